"""What a file seems to be: settings ready to copy, with which the reader of training reads it, or a refusal."""

import datetime
import json
from pathlib import Path

import polars as pl
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim import data as command
from sim.datasets.auto import AutoConfig, Guess, look_at
from sim.datasets.log_settings import LogConfig
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import load_dataset
from sim.files.event_readers import read_events


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path / "cache"))


def look(path: Path, content: str | bytes | None, *overrides: str) -> Guess:
    """Writes a file and looks at it."""
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    values = composed_values("data_statistics", ["data=auto", f"data.path={path}", *overrides])["data"]
    return look_at(read_settings(AutoConfig, values, "data"))


def settings(guess: Guess) -> dict[str, str]:
    return dict(override.removeprefix("data.").split("=", 1) for override in guess.overrides[1:])


RATINGS = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n2,31,5.0,1260759182\n"


def test_a_table_of_ratings(tmp_path):
    guess = look(tmp_path / "stars.csv", RATINGS)
    assert guess.overrides[0] == "data=ratings_file"
    found = settings(guess)
    assert (found["user_column"], found["item_column"], found["rating_column"]) == ("userId", "movieId", "rating")
    assert (found["timestamp_column"], found["time_format"], found["relevant_above"]) == ("timestamp", "seconds", "3")
    assert guess.table[1:] == [
        ("1", "31", "2.5", "2009-12-14 02:52:24"),
        ("1", "1029", "3", "2009-12-14 02:52:59"),
        ("2", "31", "5", "2009-12-14 02:53:02"),
    ]
    text = guess.describe()
    assert "  data=ratings_file\n" in text
    assert "  'data.separator=\",\"'\n" in text
    # What is printed loads the whole file.
    values = composed_values("data_statistics", guess.overrides)["data"]
    assert load_dataset(read_settings(DataConfig, values, "data")).num_ratings == 3


def test_a_log_of_events(tmp_path):
    text = (
        "visitor\tproduct\twhen\tevent type\n\xfc1\tp1\t2020-01-01T10:00:00Z\tview\n"
        "u2\tp2\t2020-01-01T10:10:00Z\tadd-to-cart\nu2\tp2\t2020-01-01T10:11:00Z\tpurchase\nu3\tp2\t2020-01-01T10:11:00Z\tgreeting\n"
    )
    guess = look(tmp_path / "log.txt", text.encode("cp1252"))
    found = settings(guess)
    assert guess.overrides[0] == "data=events_csv"
    assert (found["user_column"], found["item_column"], found["time_column"]) == ("visitor", "product", "when")
    assert (found["encoding"], found["separator"], found["time_format"]) == ("cp1252", "tab", "text")
    assert found["events"] == '["view=click","add-to-cart=click","purchase=order","greeting=ignore"]'
    assert any("greeting" in note for note in guess.notes)
    assert guess.table[1] == ("\xfc1", "p1", "click", "2020-01-01 10:00:00")
    config = read_settings(LogConfig, composed_values("data_statistics", guess.overrides)["data"], "data")
    events = read_events(config.reader, config.stored_sources(), config.event_layout(), config.limits)
    assert events.feedback.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "1::10::4::978300760\n1::11::5::978300761\n", {"separator": '"::"', "time_format": "seconds"}),
        ("a.dat", "1 10 4\n1 11 5\n2 10 1\n", {"column_names": "[user,item,rating]", "separator": '" "'}),
        ("a.csv", "user,item,rating\na,1,99\na,2,-3.5\nb,1,9.5\n", {"missing_ratings": "[99]", "relevant_above": "3"}),
        ("a.csv", "user;item;rating\na;1;0\na;2;0\nb;1;10\nb;3;7\n", {"missing_ratings": "[0]", "relevant_above": "6"}),
        ("a.csv", "user,item,rating\na,1,3\na,1,4\nb,1,2\n", {"duplicates": "last"}),
        ("a.csv", 'user,item,text,stars\n1,2,"a, ""b""\nc",4\n1,3,x,5\n', {"rating_column": "stars"}),
        ("a.csv", "uid,sku\na,x\nb,x\n", {"rating_column": "null", "relevant_above": None}),
        (
            "a.csv",
            "user,item,event\na,1,view\na,1,buy\n",
            {"rating_of_event": '["view=1","buy=2"]', "duplicates": "max"},
        ),
        ("a.csv", "session_id,item_id,ts\ns1,1,1658185117948\ns1,2,1658185117949\n", {"time_format": "milliseconds"}),
        ("a.json", '[{"user":"a","item":"B1","stars":5},{"user":"b","item":"B1","stars":1}]', {"user_column": "user"}),
        (
            "a.inter",
            "user_id:token\titem_id:token\trating:float\n1\t2\t3\n1\t3\t5\n",
            {"user_column": "user_id", "separator": "tab"},
        ),
    ],
)
def test_kinds_of_tables(tmp_path, name, content, expected):
    found = settings(look(tmp_path / name, content))
    assert {key: found.get(key) for key in expected} == expected


EVENTS = [("a", 1, "view"), ("a", 2, "cart"), ("b", 1, "buy"), ("NA", 3, "view"), ("b", 2, "wish")]


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_events_are_told_by_their_names_whatever_their_column_is_called_and_users_that_mean_nobody(tmp_path, kind):
    frame = pl.DataFrame(
        [{"user": user, "item": item, "kind": "book", "what": what, "ts": 1_600_000_000} for user, item, what in EVENTS]
    )
    path = tmp_path / f"a.{kind}"
    {"csv": frame.write_csv, "json": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    guess = look(path, None)
    found = settings(guess)
    assert found["feedback_column"] == "what"
    assert found["events"] == '["view=click","cart=click","buy=order","wish=ignore"]'
    assert found["missing_values"] == "[NA]"
    assert any("user 'NA' (1 rows)" in note for note in guess.notes)
    assert [row[:3] for row in guess.table[1:]] == [("a", "1", "click"), ("a", "2", "click"), ("b", "1", "order")]


def test_ratings_are_told_by_their_values_whatever_their_column_is_called(tmp_path):
    rows = "".join(f"u{i},i{i % 4},{1 + i % 5},{i % 3},2024-01-0{1 + i % 5}T10:00:00\n" for i in range(20))
    guess = look(tmp_path / "a.csv", "customer,product,liking,quantity,when\n" + rows)
    found = settings(guess)
    assert guess.overrides[0] == "data=ratings_file"
    assert (found["rating_column"], found["timestamp_column"]) == ("liking", "when")
    assert any("'liking' holds few numbers" in note for note in guess.notes)
    # Two such columns: neither is taken.
    guess = look(tmp_path / "b.csv", "customer,product,liking,waiting,when\n" + rows)
    assert "rating_column" not in settings(guess)
    assert any("'liking' or 'waiting' may be ratings" in note for note in guess.notes)


def test_a_scale_below_zero_is_told_with_what_training_needs(tmp_path):
    guess = look(tmp_path / "a.csv", "user,item,rating\na,1,99\na,2,-3.5\nb,1,9.5\n")
    assert any("env.reward_scale=symmetric" in note for note in guess.notes)
    assert not any("symmetric" in note for note in look(tmp_path / "b.csv", RATINGS).notes)


def test_ratings_that_mean_nothing_are_told(tmp_path):
    guess = look(tmp_path / "a.csv", "user,item,rating\na,1,4\na,2,NULL\nb,1,5\nb,2,\n")
    assert settings(guess)["missing_values"] == '["NULL",""]'
    assert [row[2] for row in guess.table[1:]] == ["4", "5"]


def test_packed_items_are_told(tmp_path):
    text = "user,shown,time\nu1,N1-0 N2-1,1600000000\nu2,N3-0,1600000001\n"
    guess = look(tmp_path / "a.csv", text)
    found = settings(guess)
    assert (found["item_column"], found["item_separator"], found["answer_separator"]) == ("shown", '" "', '"-"')
    assert [row[1:3] for row in guess.table[1:]] == [("N1", "skip"), ("N2", "click"), ("N3", "skip")]
    # A word with a digit behind a hyphen is none.
    assert "item_separator" not in settings(look(tmp_path / "b.csv", "user,item,time\nu1,A-1,5\nu2,B-0,6\n"))


def test_nested_json_and_parquet(tmp_path):
    line = {
        "session": 7,
        "events": [{"aid": 1, "ts": 1659304800025, "type": "clicks"}, {"aid": 2, "ts": 1659304900025}],
    }
    line["events"][1]["type"] = "orders"
    guess = look(tmp_path / "sessions.json", json.dumps(line) + "\n")
    assert guess.table[1:] == [("7", "1", "click", "2022-07-31 22:00:00"), ("7", "2", "order", "2022-07-31 22:01:40")]
    frame = pl.DataFrame(
        {"uid": [1, 2], "sku": ["a", "b"], "score": [1.5, 5.0], "date": [datetime.date(2020, 1, 1)] * 2}
    )
    frame.write_parquet(tmp_path / "x.pq")
    guess = look(tmp_path / "x.pq", None)
    assert guess.table[1] == ("1", "a", "1.5", "2020-01-01 00:00:00")


def test_presets_are_known_by_name_and_layout(tmp_path):
    guess = look(tmp_path / "ml-1m" / "ratings.dat", "1::1193::5::978300760\n")
    assert guess.overrides == ["data=movielens_1m", f"data.root={tmp_path}"]
    guess = look(tmp_path / "UserBehavior.csv", "1,2268318,2520377,pv,1511544070\n")
    assert guess.overrides == ["data=taobao", f"data.path={tmp_path / 'UserBehavior.csv'}"]
    # Several data sets have such a file, or the name is right and the layout is not.
    assert look(tmp_path / "ratings.csv", RATINGS).overrides[0] == "data=ratings_file"
    other = "user,item,rating\n1,2,3\n1,3,4\n"
    assert look(tmp_path / "BX-Book-Ratings.csv", other).overrides[0] == "data=ratings_file"


def test_what_it_cannot_tell_can_be_said(tmp_path):
    with pytest.raises(UserError, match=r"(?s)known to hold users: 'who', 'item', 'rating'.*data\.user_column=who"):
        look(tmp_path / "a.csv", "who,item,rating\n1,2,3\n1,3,5\n")
    found = settings(look(tmp_path / "a.csv", None, "data.user_column=who"))
    assert found["user_column"] == "who"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello\nworld\n", "no table"),
        ("", "empty"),
        ("1,Toy Story,Animation\n2,Jumanji,Adventure\n", r"(?s)no names of columns.*data\.column_names"),
        ("user,item,rating\na,1,good\na,2,bad\n", "rating 'good' is not a number"),
        ("user,item,time,event\na,1,yesterday,view\na,2,today,buy\n", "time 'yesterday' is not a time"),
        ("user,user,rating\na,1,3\na,2,5\n", "names a column twice"),
    ],
)
def test_refusals_say_why(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        look(tmp_path / "a.csv", content)
    assert str(tmp_path / "a.csv") in error.value.where


def test_the_command_prints_it_and_nothing_trains_on_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "stars.csv").write_text(RATINGS)
    monkeypatch.setattr("sys.argv", ["data", "data=auto", f"data.path={tmp_path / 'stars.csv'}"])
    command.main()
    assert "first 3 rows as they are read:" in capsys.readouterr().out
    for name, kind in (("train", DataConfig), ("train_hrl_mg", LogConfig)):
        with pytest.raises(UserError, match=r"data=auto is only for python -m sim\.data"):
            read_settings(kind, composed_values(name, ["data=auto", "data.path=x.csv"])["data"], "data")

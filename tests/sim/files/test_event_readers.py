"""Readers of logs: the same rows from every packing and time format, and one message for every mistake."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from event_files import as_rows, message, read, store

from harness.commands.command_words import override_value
from sim.formats.sources import Source
from sim.formats.text_table import TextFormat

TEXT = "time,user,event,item\n1000,u2,view,20\n1001,u1,buy,3\n1002,u1,x,4\n999,u1,view,20\n"
ROWS = [("u2", 20, 1000, 1), ("u1", 3, 1001, 2), ("u1", 20, 999, 1)]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.zip"])
def test_packings(tmp_path, name):
    columns = read(store(tmp_path, TEXT, name))
    assert as_rows(columns) == ROWS
    assert (columns.user_ids.tolist(), columns.item_ids.tolist()) == (["u1", "u2"], [3, 20])
    assert [columns.users.dtype, columns.items.dtype, columns.times.dtype, columns.feedback.dtype] == [
        "i4",
        "i4",
        "i8",
        "i1",
    ]


def test_quoted_fields_and_other_separators(tmp_path):
    text = 'time\tuser\tevent\tnote\titem\n1000\t"u\t2"\tview\t\t20\n1001\tu1\tbuy\t"a ""b"""\t3\n'
    assert as_rows(read(store(tmp_path, text, "log.tsv"))) == [("u\t2", 20, 1000, 1), ("u1", 3, 1001, 2)]
    source = store(tmp_path, TEXT.replace(",", ";"), "log.txt")
    assert as_rows(read(source, text=TextFormat(";"))) == ROWS


def test_several_files_are_one_log(tmp_path):
    more = "event,item,user,time\nbuy,3,v,5\n"
    columns = read(store(tmp_path, TEXT), store(tmp_path, more, "more.csv"))
    assert as_rows(columns) == [*ROWS, ("v", 3, 5, 2)]
    assert columns.user_ids.tolist() == ["u1", "u2", "v"]
    words = read(store(tmp_path, TEXT), store(tmp_path, more.replace("3", "hat"), "more.csv"))
    assert words.item_ids.tolist() == ["20", "3", "hat"]


def test_parquet_holds_the_same_rows(tmp_path):
    table = pl.DataFrame(
        {"time": [1000, 1001, 1002, 999], "user": ["u2", "u1", "u1", "u1"], "item": [20, 3, 4, 20]}
    ).with_columns(event=pl.Series(["view", "buy", "x", "view"], dtype=pl.Categorical))
    table.write_parquet(tmp_path / "log.parquet")
    assert as_rows(read(Source(tmp_path / "log.parquet"))) == ROWS
    moments = table.with_columns(pl.from_epoch("time"), pl.col("item").cast(pl.Float64))
    moments.write_parquet(tmp_path / "moments.parquet")
    assert as_rows(read(Source(tmp_path / "moments.parquet"))) == ROWS
    table.with_columns(pl.Series("time", [1000, None, 1002, 999])).write_parquet(tmp_path / "gap.parquet")
    assert "row 2: time '' is empty" in message(Source(tmp_path / "gap.parquet"))
    moments.with_columns(pl.lit(None, pl.Datetime).alias("time")).write_parquet(tmp_path / "gap.parquet")
    assert "row 1: time '' is empty" in message(Source(tmp_path / "gap.parquet"))
    table.with_columns(pl.concat_list("item")).write_parquet(tmp_path / "lists.parquet")
    assert "column 'item' has type List(Int64)" in message(Source(tmp_path / "lists.parquet"))
    assert "no column 'who'" in message(Source(tmp_path / "log.parquet"), user_column="who")


@pytest.mark.parametrize(
    ("time_format", "text", "seconds"),
    [
        ("seconds", "1454284742", 1454284742),
        ("seconds", "1454284742.9", 1454284742),
        ("milliseconds", "1454284742999", 1454284742),
        ("text", "2016-01-31 23:59:02", 1454284742),
        ("text", "2016-01-31T23:59:02.999Z", 1454284742),
        ("text", "2016-01-31 23:59:02 UTC", 1454284742),
        ("text", "2016-01-31", 1454198400),
        ("text", "2016-01-31 23:59", 1454284740),
        ("text", "2016-01-31 23:59:02+00:00", 1454284742),
        ("text", "2016-01-31T23:59:02.5+01:30", 1454279342),
        ("text", "2016-01-31T23:59-0800", 1454313540),
        ("microseconds", "1454284742999999", 1454284742),
        ("nanoseconds", "1454284742999999999", 1454284742),
        ("auto", "1454284742", 1454284742),
        ("auto", "1454284742.9", 1454284742),
        ("auto", "1454284742999", 1454284742),
        ("auto", "1454284742999999", 1454284742),
        ("auto", "2016-01-31 23:59:02 UTC", 1454284742),
    ],
)
def test_time_formats(tmp_path, time_format, text, seconds):
    source = store(tmp_path, f"time,user,event,item\n{text},1,view,1\n")
    assert read(source, time_format=time_format).times.tolist() == [seconds]


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (["10", "9", "-1"], [-1, 9, 10]),
        (["10.0", "9.0"], [9, 10]),
        (["10.0", "9"], [9, 10]),
        (["10.0", "a.0"], ["10.0", "a.0"]),
        (["007", "7"], ["007", "7"]),
        (["99999999999999999999", "1"], ["1", "99999999999999999999"]),
    ],
)
def test_ids_are_integers_only_if_all_of_them_are(tmp_path, texts, ids):
    text = "time,user,event,item\n" + "".join(f"1,{text},view,5\n" for text in texts)
    columns = read(store(tmp_path, text))
    assert columns.user_ids.tolist() == ids
    spelled = [text.removesuffix(".0") if isinstance(ids[0], int) else text for text in texts]
    assert columns.user_ids[columns.users].astype(str).tolist() == spelled


def test_a_column_promoted_to_floats_in_one_file_keeps_its_ids(tmp_path):
    january = store(tmp_path, "time,user,event,item\n1,7,view,20\n2,8,buy,30\n")
    february = store(tmp_path, "time,user,event,item\n3,7.0,view,20.0\n4,9.0,buy,30.0\n", "february.csv")
    assert as_rows(read(january, february)) == [(7, 20, 1, 1), (8, 30, 2, 2), (7, 20, 3, 1), (9, 30, 4, 2)]
    words = store(tmp_path, "time,user,event,item\n3,7.0,view,20\n4,anna,buy,30\n", "words.csv")
    assert "user ids '7' and '7.0' both occur, among ids that are not numbers" in message(january, words)
    versions = read(store(tmp_path, "time,user,event,item\n3,7.0,view,20\n4,anna,buy,30\n"))
    assert versions.user_ids.tolist() == ["7.0", "anna"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1.5E+18", "line 3: user '1.5E+18' is in scientific notation"),
        ("1e+20", "is in scientific notation"),
        ("12e5", "line 3: user '12e5' is in scientific notation, and all other user ids are numbers"),
        ("9007199254740993.0", "is beyond 2^53, where floats merge ids"),
        ("-99999999999999999999.0", "is beyond 2^53"),
    ],
)
def test_ids_whose_digits_are_lost_are_refused(tmp_path, text, problem):
    log = "time,user,event,item\n1,9007199254740992.0,view,5\n1,{},view,5\n"
    assert problem in message(store(tmp_path, log.format(text)))
    # A hash may look like a number: among names it is one.
    names = log.replace("9007199254740992.0", "a7f")
    assert read(store(tmp_path, names.format("12e5"))).user_ids.tolist() == ["12e5", "a7f"]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (pl.Series([1.0, 2.0**24 + 2], dtype=pl.Float32), "row 2: item '16777218.0' is beyond 2^24"),
        (pl.Series([1.0, 2.0**53 + 2]), "is beyond 2^53, where Float64 merges ids"),
        (pl.Series([1.0, None]), "row 2: item '' is empty"),
        (pl.Series([b"\xff\x00", b"a"]), "column 'item' has type Binary, which is neither text nor UUIDs"),
        (pl.Series([1, 2], dtype=pl.Duration("us")), "column 'item' has type Duration"),
    ],
)
def test_parquet_columns_that_cannot_be_ids(tmp_path, ids, problem):
    table = pl.DataFrame({"time": [1, 2], "user": [1, 2], "event": ["view", "view"], "item": ids})
    table.write_parquet(tmp_path / "log.parquet")
    assert problem in message(Source(tmp_path / "log.parquet"))


def test_one_damaged_time_does_not_change_the_unit_of_the_others(tmp_path):
    seconds = "".join(f"{1454284742 + row},1,view,{row}\n" for row in range(5))
    log = f"time,user,event,item\n{seconds}1454284742000000000,1,view,9\n"
    assert "line 7: time '1454284742000000000' is not a time from 1970" in message(
        store(tmp_path, log), time_format="auto"
    )


def test_the_first_mistake_is_named_whatever_its_kind(tmp_path):
    text = TEXT + "soon,u1,view,3\n5,u1,view\n"
    assert "line 6: time 'soon'" in message(store(tmp_path, text))


def test_what_is_missing_is_left_out_and_rows_without_a_session_say_so(tmp_path):
    text = "time,user,event,item,s\n1,-1.0,view,20,a\n2,8,buy,30,\n3,8,view,20,NA\n4,9,NA,30,b\n5,9,buy,30,b\n"
    columns = read(store(tmp_path, text), session_column="s", missing_values=["-1", "NA"])
    assert as_rows(columns)[0][:4] == (8, 30, 2, 2)
    assert columns.sessions.tolist()[:2] == [-1, -1]
    assert len(columns.times) == 3
    assert columns.sessions[2] >= 0
    assert columns.left_out == {"data.missing_values": 2}


SESSIONS = "time,user,event,item,session\n1000,u2,view,20,{}\n1001,u1,buy,3,{}\n"


@pytest.mark.parametrize("name", ["NA", "null", "-1", "\\N"])
def test_sessions_that_mean_unknown_are_named(tmp_path, name):
    columns = read(store(tmp_path, SESSIONS.format(name, 7)), session_column="session")
    assert columns.notes == [
        f"1 events have the session {int(name) if name == '-1' else name!r}, which often means that it is unknown: "
        f"'data.missing_values={override_value([name])}' cuts them by pauses; now a user has one such session"
    ]
    columns = read(store(tmp_path, SESSIONS.format(name, 7)), session_column="session", missing_values=[name])
    assert (columns.sessions.tolist(), columns.notes) == ([-1, 1], [])


def test_sessions_whose_digits_are_lost_are_refused(tmp_path):
    for name in ("1.5E18", "1e+18", "1000000000000000000.0"):
        said = message(store(tmp_path, SESSIONS.format(name, name)), session_column="session")
        assert f"line 2: session '{name}' is" in said
    table = pl.DataFrame({"time": [1, 2], "user": ["u", "v"], "event": ["view"] * 2, "item": [1, 2]})
    table.with_columns(session=pl.Series([1e18, 2.0])).write_parquet(tmp_path / "log.parquet")
    assert "row 1: session" in message(Source(tmp_path / "log.parquet"), session_column="session")
    table.with_columns(session=pl.Series([float("nan"), 2.0])).write_parquet(tmp_path / "log.parquet")
    assert read(Source(tmp_path / "log.parquet"), session_column="session").sessions.tolist() == [-1, 1]


def test_rows_without_a_time_or_an_id_may_be_left_out(tmp_path, capsys):
    text = TEXT + ",u1,view,3\n5,,view,3\n"
    assert """or leave such lines out: 'data.missing_values=[""]'""" in message(store(tmp_path, text))
    assert as_rows(read(store(tmp_path, text), missing_values=[""])) == ROWS
    table = pl.DataFrame({"time": [1, 2], "user": [float("nan"), 2.0], "event": ["view"] * 2, "item": [1, 2]})
    table.write_parquet(tmp_path / "log.parquet")
    assert as_rows(read(Source(tmp_path / "log.parquet"), missing_values=[""])) == [(2, 2, 2, 1)]


def test_sessions_may_be_the_users(tmp_path):
    source = store(tmp_path, "s,time,item\nb,1,5\na,2,6\nb,3,7\n")
    changes = {"user_column": "s", "session_column": "s", "feedback_column": None}
    assert as_rows(read(source, **changes)) == [("b", 5, 1, 1, 1), ("a", 6, 2, 1, 0), ("b", 7, 3, 1, 1)]


def test_files_without_header_that_tell_the_feedback_by_their_name(tmp_path):
    clicks = store(tmp_path, "1,2014-04-07T10:51:09.277Z,214536502,0\n2,2014-04-07,7,0\n", "x-clicks.dat")
    buys = store(tmp_path, "1,2014-04-07T10:52:00.000Z,214536502,12462,1\n", "x-buys.dat.gz")
    test = store(tmp_path, "9,2014-04-07T10:52:00.000Z,1,1\n", "x-test.dat")
    changes = {
        "user_column": "session",
        "session_column": "session",
        "feedback_column": None,
        "text": TextFormat(",", ["session", "time", "item"]),
        "time_format": "text",
        "feedback_of_file": {"*-clicks.dat": "click", "*-buys.dat": "order"},
    }
    expected = [(1, 214536502, 1396867869, 1, 0), (2, 7, 1396828800, 1, 1), (1, 214536502, 1396867920, 2, 0)]
    assert as_rows(read(clicks, buys, test, **changes)) == expected
    assert "no file matches '*-buys.dat'" in message(clicks, test, **changes)
    changes["feedback_of_file"] = {"*-clicks.dat": "click", "x*": "order"}
    assert "two patterns of data.feedback_of_file match it" in message(clicks, **changes)
    short = store(tmp_path, "1,2014\n", "y-clicks.dat")
    changes["feedback_of_file"] = {}
    assert "line 1: 2 fields instead of 3" in message(short, **changes)


@pytest.mark.parametrize(
    ("text", "changes", "problem"),
    [
        ("time,user,event\n1,2,view\n", {}, "line 1: the header has no column 'item'"),
        (TEXT + "5,u1,view\n", {}, "line 6: 3 fields instead of 4"),
        (TEXT + '5,u1,"view,3\n', {}, "line 6: wrongly quoted"),
        (TEXT + "5,,view,3\n", {}, "line 6: user '' is empty"),
        (TEXT + "5,u1,view,\n", {}, "line 6: item '' is empty"),
        (TEXT + f"5,{'u' * 300},view,3\n", {}, "line 6: user"),
        (TEXT + "soon,u1,view,3\n", {}, "line 6: time 'soon' is not a time in seconds"),
        (TEXT + ",u1,view,3\n", {}, "line 6: time '' is empty"),
        (TEXT + "nan,u1,view,3\n", {}, "line 6: time 'nan' is not a time in seconds"),
        (TEXT + "-5,u1,view,3\n", {}, "line 6: time '-5' is not a time from 1970"),
        (TEXT + "1454284742999,u1,view,3\n", {}, "Set data.time_format=milliseconds"),
        (TEXT, {"time_format": "text"}, "line 2: time '1000' is not a time"),
        (
            "time,user,event,item\n2016-02-30 10:00:00,1,view,1\n",
            {"time_format": "text"},
            "'2016-02-30 10:00:00' is not",
        ),
        (
            "time,user,event,item\n2016-01-31 10,1,view,1\n",
            {"time_format": "text"},
            "line 2: time '2016-01-31 10'",
        ),
        (TEXT + "5,u1,wish,3\n", {}, "line 6: event 'wish' is not one of 'view', 'buy', 'x'"),
        ("time,user,event,item\n1,u1,x,3\n", {}, "holds no events"),
        ("time,user,event,item\n", {}, "holds a header but no rows"),
    ],
)
def test_a_mistake_gives_one_message_with_its_line(tmp_path, text, changes, problem):
    assert problem in message(store(tmp_path, text), **changes)


def test_unknown_events_may_be_ignored(tmp_path):
    assert as_rows(read(store(tmp_path, TEXT + "5,u1,wish,3\n"), ignore_unknown=True)) == ROWS


def test_lines_are_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.formats.chunks.read_chunks.__defaults__", (64, None))
    text = TEXT + "5,u1,view,3\n" * 50
    assert len(as_rows(read(store(tmp_path, text)))) == 53
    assert "line 57: event 'wish'" in message(store(tmp_path, text + "5,u1,view,3\n5,u1,wish,3\n"))


QUERIES = """\
queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;is.test
1;100;NA;16327074;311;2016-05-09;1,2;0;7518,71,30394;FALSE
2;100;NA;16400000;311;2016-05-09;;5;71,12;FALSE
3;101;42;0;10;2016-05-10;;5;71,7518;FALSE
4;102;42;5;10;2016-05-11;;5;;FALSE
5;103;42;5;10;2016-05-12;;5;71;TRUE
"""
CLICKS = "queryId;timeframe;itemId\n1;16330000;71\n3;900;7518\n3;1950;7518\n3;999;5\n"
PURCHASES = """\
sessionId;userId;timeframe;eventdate;ordernumber;itemId
100;NA;17000000;2016-05-09;1;12
101;42;1;2016-05-10;1;99
101;42;1;2016-05-09;1;71
"""


def diginetica(folder: Path, **texts: str) -> list[Source]:
    files = {"queries": QUERIES, "clicks": CLICKS, "purchases": PURCHASES, **texts}
    return [store(folder, text, f"train-{name}.csv.gz") for name, text in files.items()]


def test_diginetica_by_hand(tmp_path):
    midnight = 1462752000  # 2016-05-09
    rows = [
        ("session 100", 7518, midnight + 16327, 0, 0),
        ("session 100", 71, midnight + 16327, 0, 0),
        ("session 100", 30394, midnight + 16327, 0, 0),
        ("session 100", 71, midnight + 16400, 0, 0),
        ("session 100", 12, midnight + 16400, 0, 0),
        ("42", 71, midnight + 86400, 0, 1),
        ("42", 7518, midnight + 86400, 0, 1),
        # Clicks of the queries, by their own times but not before what they answer.
        ("session 100", 71, midnight + 16330, 1, 0),
        ("42", 7518, midnight + 86400, 1, 1),
        ("42", 7518, midnight + 86401, 1, 1),
        # Purchases of what had been shown until then: neither 71 in session 101, before, nor 99, never.
        ("session 100", 12, midnight + 17000, 2, 0),
    ]
    assert as_rows(read(*diginetica(tmp_path), reader="diginetica")) == rows


def test_diginetica_mistakes(tmp_path):
    sources = diginetica(tmp_path)
    assert "there is no train-clicks.csv" in message(sources[0], sources[2], reader="diginetica")
    broken = QUERIES + "6;103;42;5;10;yesterday;;5;71;FALSE\n"
    assert "line 7: eventdate 'yesterday'" in message(*diginetica(tmp_path, queries=broken), reader="diginetica")
    broken = QUERIES + "6;103;42;5;10;2016-05-10;;5;71;maybe\n"
    assert "line 7: is.test 'maybe'" in message(*diginetica(tmp_path, queries=broken), reader="diginetica")
    assert "line 2: itemId '' is empty" in message(
        *diginetica(tmp_path, clicks="queryId;timeframe;itemId\n1;5;\n"), reader="diginetica"
    )
    broken = PURCHASES.replace(";2016-05-09;1;71", ";soon;1;71")
    assert "line 4: eventdate 'soon'" in message(*diginetica(tmp_path, purchases=broken), reader="diginetica")


KUAIRAND = """\
user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab
3,1071,20220408,1600,1649408076860,1,0,0,0,0,0,1,175045,87433,0,0,0,0,1
3,17,20220408,1600,1649408076140,0,0,0,0,0,1,0,0,9433,0,0,0,0,1
3,5,20220408,1600,1649408078000,0,1,0,0,0,0,0,812,9433,0,0,0,0,0
12,5,20220408,1600,1649408075999,1,0,0,1,0,0,0,812,9433,0,0,1,0,0
"""
SHOWN = [("12", 5, 1649408075), ("3", 17, 1649408076), ("3", 1071, 1649408076), ("3", 5, 1649408078)]


@pytest.mark.parametrize(
    ("order_proxy", "feedback"),
    [
        ([], [1, 0, 1, 0]),
        (["is_like"], [1, 0, 1, 2]),
        (["is_like", "is_comment", "is_like"], [2, 0, 1, 2]),
        (["long_view"], [1, 0, 2, 0]),
        (["is_profile_enter", "is_forward", "is_follow"], [2, 0, 1, 0]),
    ],
)
def test_kuairand_by_hand(tmp_path, order_proxy, feedback):
    columns = read(store(tmp_path, KUAIRAND), reader="kuairand", order_proxy=order_proxy)
    expected = [(int(user), item, second, code) for (user, item, second), code in zip(SHOWN, feedback, strict=True)]
    assert as_rows(columns) == expected
    assert columns.feedback.dtype == np.int8
    assert columns.sessions is None


def test_kuairand_files_are_merged_by_their_milliseconds(tmp_path):
    header, *lines = KUAIRAND.splitlines()
    texts = ("\n".join([header, *part, ""]) for part in (lines[:1], lines[1:]))
    parts = [store(tmp_path, text, f"part{number}.csv.gz") for number, text in enumerate(texts)]
    columns = read(*parts, reader="kuairand")
    assert [row[:3] for row in as_rows(columns)] == [(int(user), item, second) for user, item, second in SHOWN]


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ("is_click,", "clicked,", "line 1: the header has no column 'is_click'"),
        ("is_like,", "likes,", "line 1: the header has no column 'is_like'"),
        (",time_ms,", ",time,", "line 1: the header has no column 'time_ms'"),
        ("1649408078000,0,", "1649408078000,2,", "line 4: is_click '2' is not one of '0', '1'"),
        ("1649408078000,0,1,", "1649408078000,0,True,", "line 4: is_like 'True' is not one of '0', '1'"),
        ("1649408078000,0,1,", "1649408078000,0,,", "line 4: is_like '' is not one of '0', '1'"),
        ("1649408078000", "", "line 4: time_ms '' is empty"),
        ("1649408078000", "soon", "line 4: time_ms 'soon' is not a time in milliseconds"),
        ("1649408078000", "-1", "line 4: time_ms '-1' is not a time from 1970 to 9999"),
        ("1649408078000", "1649408078000000", "line 4: time_ms '1649408078000000' is not a time from 1970 to 9999"),
        ("3,5,", "3,,", "line 4: video_id '' is empty"),
        ("12,5,", ",5,", "line 5: user_id '' is empty"),
        (",1,0,0\n", ",1,0\n", "line 5: 18 fields instead of 19"),
    ],
)
def test_kuairand_mistakes(tmp_path, was, becomes, problem):
    assert KUAIRAND.count(was) == 1
    said = message(store(tmp_path, KUAIRAND.replace(was, becomes)), reader="kuairand", order_proxy=["is_like"])
    assert problem in said
    assert "time_format" not in said  # it has no say here


def test_columns_of_kuairand_that_do_not_count_are_not_looked_at(tmp_path):
    text = KUAIRAND.replace("1649408078000,0,1,", "1649408078000,0,x,")
    assert len(as_rows(read(store(tmp_path, text), reader="kuairand", order_proxy=["is_follow"]))) == 4


def test_large_columns_keep_their_order(tmp_path):
    random = np.random.default_rng(0)
    users, items, times = random.integers(0, 900, (3, 20_000))
    lines = "".join(f"{time},{user},view,i{item}\n" for user, item, time in zip(users, items, times, strict=True))
    columns = read(store(tmp_path, "time,user,event,item\n" + lines))
    np.testing.assert_array_equal(columns.user_ids[columns.users], users)
    np.testing.assert_array_equal(columns.item_ids[columns.items], [f"i{item}" for item in items])
    np.testing.assert_array_equal(columns.times, times)
    assert (np.diff(columns.user_ids) > 0).all()
    assert columns.item_ids.tolist() == sorted(columns.item_ids.tolist())

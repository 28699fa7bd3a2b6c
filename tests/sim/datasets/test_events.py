"""Logs by configuration: what is found, filtered, sampled, cached, split and counted, and what is refused."""

import dataclasses
import gzip
import json
import os
import zipfile
from pathlib import Path

import hydra
import numpy as np
import polars as pl
import pytest
from impression_logs import (
    diginetica_files,
    diginetica_rows,
    kuairand_events,
    kuairand_files,
    sessions_of,
    write_files,
)

from harness.errors import UserError
from harness.settings import read_settings
from sim.datasets import events as event_datasets
from sim.datasets.events import load_log, log_statistics
from sim.datasets.log_settings import LogConfig
from sim.tables.events import EventLog, build_event_log

REAL = os.environ.get("TPGR_JAX_DATA")
HAS_JDATA = REAL is not None and Path(REAL, "jdata-sample").is_dir()
FILES = (Path(__file__).parents[3] / "conf" / "data").glob("*.yaml")
NAMES = sorted(path.stem for path in FILES if "\n  - log_base\n" in path.read_text())
JDATA = """\
user_id,sku_id,time,model_id,type,cate,brand
266079.0,138778,2016-01-31 23:59:02,,1,8,403
266079.0,138778,2016-01-31 23:59:03,0,6,8,403
266079.0,5,2016-02-01 00:10:00,0,3,8,403
12.0,138778,2016-02-01 01:00:00,0,4,8,403
"""
MORE_JDATA = JDATA.splitlines()[0] + "\n12.0,7,2016-03-01 00:00:00,0,2,8,403\n"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Points the environment's folders into the test's own."""
    monkeypatch.setenv("TPGR_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path / "tables"))
    (tmp_path / "data").mkdir()


def config(name: str, /, **changes) -> LogConfig:
    """Composes conf/data/NAME.yaml with changes."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        found = hydra.compose("data_statistics", overrides=[f"data={name}"]).data
    return read_settings(LogConfig, {**found, **changes}, "data")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def own(tmp_path: Path, rows: list[tuple], **changes) -> LogConfig:
    """Writes rows (user, item, time, event) as a log of one's own and returns its configuration."""
    lines = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    path = write(tmp_path / "log.csv", f"user,item,time,event\n{lines}")
    return config("events_csv", path=str(path), **changes)


def as_rows(log: EventLog) -> list[tuple]:
    """Returns (user id, session, time, item id, feedback) of every row, as if the log were not split."""
    begins = log.shown_at[log.session_starts()[:-1]][log.session]
    order = np.lexsort((log.shown_at, begins, log.user))
    session = np.cumsum(np.diff(log.session[order], prepend=-1) != 0) - 1
    users, items = log.user_ids[log.user[order]].tolist(), log.item_ids[log.item[order]].tolist()
    return list(
        zip(users, session.tolist(), log.time[order].tolist(), items, log.feedback[order].tolist(), strict=True)
    )


def assert_same(one: EventLog, other: EventLog) -> None:
    for field in dataclasses.fields(EventLog):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second)
            assert first.dtype == second.dtype
        else:
            assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_file_is_valid(name):
    own = name in ("events_csv", "ratings_as_events")
    assert config(name, **({"path": "log.csv"} if own else {})).name == name


def test_ratings_in_place_of_a_log_give_one_message():
    with pytest.raises(UserError, match=r"data\.kind is 'ratings'\n  .* data=synthetic_funnel,"):
        config("synthetic")


def test_jdata_by_hand(tmp_path):
    for month, text in (("03", MORE_JDATA), ("02", JDATA)):
        write(tmp_path / "data" / "jdata" / f"JData_Action_2016{month}.csv.gz", text)
    log = load_log(config("jdata", skips_per_event=0.0))
    burst = 1454284742  # 2016-01-31 23:59:02
    assert as_rows(log) == [
        (12, 0, burst + 3658, 138778, 2),
        (12, 1, 1456790400, 7, 1),
        (266079, 2, burst, 138778, 1),
    ]
    assert (log.name, log.synthetic, log.synthetic_skips) == ("jdata", False, False)
    assert log.source.endswith("JData_Action_201602.csv.gz and 1 more")
    assert log.checksum.startswith("sha256:")
    assert log.time[log.in_test_part()].tolist() == [1456790400]


@pytest.mark.parametrize("entry", ["jdata/JData_Action_*.csv", "jdata/JData_Action_*"])
def test_a_file_and_its_gzip_count_once_and_both_kinds_may_be_mixed(tmp_path, entry):
    folder = tmp_path / "data" / "jdata"
    write(folder / "JData_Action_201602.csv", JDATA)
    write(folder / "JData_Action_201602.csv.gz", JDATA)
    write(folder / "JData_Action_201603.csv.gz", MORE_JDATA)
    # Three events of the first file count, one of the second.
    log = load_log(config("jdata", files=[entry], skips_per_event=0.0, expected_events=4))
    assert log.source.endswith("JData_Action_201602.csv and 1 more")


def test_a_log_without_skips_gets_sampled_ones_and_says_so(tmp_path):
    rows = [(user, (user + shift) % 40, user * 10, "click") for user in range(200) for shift in (0, 1)]
    log = load_log(own(tmp_path, rows))
    assert log.synthetic_skips
    assert (log.num_events, int((log.feedback == 1).sum())) == (4000, 400)
    assert not np.array_equal(log.item, load_log(own(tmp_path, rows, seed=1)).item)
    recorded = load_log(own(tmp_path, [*rows, (0, 39, 5, "skip")]))
    assert not recorded.synthetic_skips
    assert recorded.num_events == 401
    assert not load_log(own(tmp_path, rows, skips_per_event=0.0)).synthetic_skips


def test_filters(tmp_path):
    rows = [("a", 1, 0, "click"), ("a", 2, 1, "skip"), ("b", 1, 5, "click"), ("b", 3, 6, "order"), ("b", 2, 7, "skip")]
    # c's session is the test part: its events count for no item, though 3 would have two of them.
    rows += [("c", 3, 5000, "click"), ("c", 2, 5001, "skip"), ("c", 4, 5002, "skip"), ("c", 4, 5003, "order")]
    items = load_log(own(tmp_path, rows, min_item_events=2))
    assert [row[3] for row in as_rows(items)] == [1, 2, 1, 2, 2]
    assert items.item_ids.tolist() == [1, 2]
    sessions = load_log(own(tmp_path, rows, min_session_events=3))
    assert as_rows(sessions)[:3] == [("b", 0, 5, 1, 1), ("b", 0, 6, 3, 2), ("b", 0, 7, 2, 0)]
    assert [row[3] for row in as_rows(sessions)[3:]] == [3, 2, 4]
    with pytest.raises(UserError, match=r"data\.min_session_events leave no test sessions"):
        load_log(own(tmp_path, rows, min_item_events=2, min_session_events=2))
    with pytest.raises(UserError, match="no events are left"):
        load_log(own(tmp_path, rows, min_item_events=9))


def test_long_sessions_are_cut_after_the_split_and_before_anything_else(tmp_path):
    rows = [("bot", item, item, "click") for item in range(50)]
    pair = ((1, "skip"), (2, "click"))
    rows += [(user, item, 1000 * user + item, event) for user in range(1, 9) for item, event in pair]
    whole = load_log(own(tmp_path, rows, max_session=None))
    assert np.bincount(whole.session).max() == 50
    cut = load_log(own(tmp_path, rows, max_session=20))
    assert np.bincount(cut.session).tolist() == [*([2] * 6), 17, 17, 16, 2, 2]
    assert cut.is_test.sum() == whole.is_test.sum()  # what is tested does not depend on the limit
    assert "user bot (50)" in cut.notes[0]
    assert cut.table_hash != whole.table_hash
    assert load_log(own(tmp_path, rows, max_session=20)).notes == cut.notes  # from the cache
    dropped = load_log(own(tmp_path, rows, max_session=20, long_sessions="drop"))
    assert "bot" not in dropped.user_ids.tolist()
    # Sampled skips count: nine for every click.
    clicks = [("bot", item, item, "click") for item in range(30)]
    clicks += [
        (user, 30 + (17 * user + item) % 400, 1000 * user, "click") for user in range(1, 100) for item in range(9)
    ]
    assert np.bincount(load_log(own(tmp_path, clicks, max_session=None)).session).max() == 300
    assert np.bincount(load_log(own(tmp_path, clicks, max_session=100)).session).max() == 100
    assert config("events_csv", path="log.csv").max_session == 1000


RATINGS = "user,item,rating,timestamp\n" + "".join(
    f"{user},{item},{rating},{1_000_000 * user + 60 * item}\n"
    for user in range(10)
    for item, rating in enumerate([0.5, 3.5, 4, 4.5, 5])
)


def test_ratings_as_a_log(tmp_path):
    path = write(tmp_path / "ratings.csv", RATINGS)
    log = load_log(config("ratings_as_events", path=str(path)))
    assert log.feedback.tolist() == [0, 0, 1, 1, 2] * 10
    assert (log.num_sessions, log.synthetic_skips) == (10, False)
    assert log.feedback_proxy == "skip below 4, click from 4, order from 5"
    assert log_statistics(log)["feedback_proxy"] == log.feedback_proxy
    lower = load_log(config("ratings_as_events", path=str(path), least_rating={"click": 3.5}))
    assert lower.feedback.tolist() == [0, 1, 1, 1, 1] * 10
    assert lower.feedback_proxy == "skip below 3.5, click from 3.5"


@pytest.mark.parametrize(
    ("name", "separator"), [("movielens_latest_small_as_events", ","), ("movielens_1m_as_events", "::")]
)
def test_movielens_as_a_log(tmp_path, name, separator):
    header = "userId,movieId,rating,timestamp\n" if separator == "," else ""
    folder, ending = ("ml-latest-small", "csv") if header else ("ml-1m", "dat")
    rows = RATINGS.split("\n", 1)[1].replace(",", separator)
    write(tmp_path / "data" / folder / f"ratings.{ending}.gz", header + rows)
    assert load_log(config(name, expected_events=50)).feedback.tolist() == [0, 0, 1, 1, 2] * 10
    with pytest.raises(UserError, match=f"where {name} has"):
        load_log(config(name))


def test_propensities_stay_beside_their_items(tmp_path):
    pairs = [(user, item) for user in range(10) for item in (2, 1, 3)]
    lines = [f"{user},{item},{1000 * user + item},{1 / (user + item + 1)}\n" for user, item in pairs]
    path = write(tmp_path / "log.csv", "user,item,time,p\n" + "".join(lines))
    columns = {"feedback_column": None, "propensity_column": "p", "skips_per_event": 0.0}
    log = load_log(config("events_csv", path=str(path), min_item_events=8, **columns))
    user, item = log.user_ids[log.user], log.item_ids[log.item]
    np.testing.assert_allclose(log.shown_probability, 1 / (user + item + 1), rtol=1e-6)
    assert log.notes == []
    # Nobody was shown sampled skips.
    sampled = load_log(config("events_csv", path=str(path), **{**columns, "skips_per_event": 1.0}))
    assert sampled.shown_probability is None
    assert "data.propensity_column is left out" in sampled.notes[0]


DAY = 86_400
DAYS = [("a", 1, 10, "click"), ("b", 1, DAY, "skip"), ("c", 1, 3 * DAY - 5, "click"), ("c", 2, 3 * DAY + 5, "order")]


def test_split_by_day(tmp_path):
    setting = own(tmp_path, [*DAYS, ("d", 1, 2 * DAY + 9, "skip")], split="day")
    log = load_log(setting)
    # c's session begins on the last day on which any begins, and goes on after midnight.
    assert log.is_test.tolist() == [False, False, True, True]
    kept = load_log(dataclasses.replace(setting, train_days=1))
    assert kept.user_ids.tolist() == ["b", "c", "d"]
    assert kept.is_test.tolist() == [False, True, True]
    one_day = own(tmp_path, DAYS[:1], split="day")
    with pytest.raises(UserError, match=r"events_csv: data\.split=day leaves no training sessions") as caught:
        load_log(one_day)
    assert "data.split=quantile" in caught.value.do


def test_split_by_quantile(tmp_path):
    rows = [(user, 1, 1000 * user, "skip") for user in range(10)]
    setting = own(tmp_path, rows)
    assert load_log(setting).is_test.tolist() == [False] * 8 + [True] * 2
    half = dataclasses.replace(setting, test_quantile=0.5)
    assert load_log(half).is_test.sum() == 5
    together = own(tmp_path, [(user, 1, 5, "skip") for user in range(10)])
    with pytest.raises(UserError, match="leaves no test sessions"):
        load_log(together)


def test_statistics_by_hand(tmp_path):
    setting = own(tmp_path, DAYS, split="day")
    log = load_log(setting)
    found = log_statistics(log)
    assert json.loads(json.dumps(found)) == found
    assert (found["users"], found["items"], found["synthetic_skips"]) == (3, 2, False)
    train, test = found["parts"]["train"], found["parts"]["test"]
    assert [train[key] for key in ("samples", "items", "users", "sessions", "clicks", "orders")] == [2, 1, 2, 2, 1, 0]
    assert [test[key] for key in ("samples", "items", "users", "sessions", "clicks", "orders")] == [2, 2, 1, 1, 2, 1]
    assert (test["click_rate"], test["order_rate"], train["click_rate"]) == (1.0, 0.5, 0.5)
    assert test["events_per_session"] == {"min": 2, "median": 2.0, "mean": 2.0, "max": 2}
    assert (train["timestamps"], test["timestamps"]) == ([10, DAY], [3 * DAY - 5, 3 * DAY + 5])


def test_the_log_comes_from_the_cache_until_something_changes(tmp_path, monkeypatch):
    setting = own(tmp_path, DAYS)
    parsed = load_log(setting)
    with monkeypatch.context() as patch:
        patch.setattr(event_datasets, "read_events", None)
        stored = load_log(dataclasses.replace(setting, obtain="elsewhere"))
        for change in ({"session_gap": 5.0}, {"test_quantile": 0.3}, {"skips_exclude": "past"}):
            with pytest.raises(TypeError):
                load_log(dataclasses.replace(setting, **change))
    assert_same(stored, parsed)
    assert isinstance(stored.item, np.memmap)
    assert stored.probabilities is None
    assert load_log(own(tmp_path, [*DAYS, ("e", 1, 4 * DAY, "click")])).num_users == 4


def test_the_test_part_changes_nothing_of_the_training_part(tmp_path):
    """Other items, answers and even other users on the last day, and what was made of the first day is the same."""
    random = np.random.default_rng(0)

    def day(number: int, users: int, items: tuple[int, int], event: str) -> list[tuple]:
        times = sorted(number * DAY + random.integers(0, 80_000, 150))
        return [(int(random.integers(users)), int(random.integers(*items)), int(time), event) for time in times]

    first = day(0, 40, (10, 40), "click")
    tables = []
    for number, last in enumerate(
        [day(1, 40, (30, 60), "click"), day(1, 55, (0, 12), "order"), [(9, 20, DAY, "skip")]]
    ):
        (tmp_path / str(number)).mkdir()
        log = load_log(own(tmp_path / str(number), first + last, split="day", min_item_events=3))
        columns = (log.user_ids[log.user], log.session, log.time, log.item_ids[log.item], log.feedback)
        columns += (log.shown_at, log.clicked_at, log.ordered_at)
        end = np.flatnonzero(log.in_test_part())[0]
        assert log.in_test_part()[end:].all()
        tables.append([column[:end].tolist() for column in columns])
        # Skips of both parts are items that were clicked in the first day.
        known = np.unique(log.item[:end][log.feedback[:end] > 0])
        assert np.isin(log.item[log.feedback == 0], known).all()
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0][0]) > 1_000


def test_whatever_tells_one_log_from_another_changes_its_hash(tmp_path):
    rows = [*DAYS, ("a", 2, 20, "click"), ("d", 1, 3 * DAY, "click"), ("d", 2, 3 * DAY + 60, "skip")]
    setting = own(tmp_path, rows, split="day")
    hashes = [load_log(setting).table_hash]
    assert hashes[0].startswith("sha256:")
    assert load_log(dataclasses.replace(setting, cache=str(tmp_path / "again"), name="other")).table_hash == hashes[0]
    for change in (
        {"feedback_of_event": {"skip": "skip", "click": "order", "order": "order"}},
        {"session_gap": 5.0},
        {"split": "quantile", "test_quantile": 0.5},
        {"min_session_events": 2},
    ):
        hashes.append(load_log(dataclasses.replace(setting, **change)).table_hash)
    rows[0] = ("a", 1, 11, "click")  # a second later
    hashes.append(load_log(own(tmp_path, rows, split="day")).table_hash)
    (tmp_path / "clicks").mkdir()
    visits = [(user, hour) for user in range(20) for hour in range(user % 3 + 1)]
    many = [
        (user, (user * 7 + hour + shift) % 31, DAY * (user % 2) + 3600 * hour + shift, "click")
        for user, hour in visits
        for shift in (0, 5)
    ]
    clicks = own(tmp_path / "clicks", many, split="day")
    for change in (
        {},
        {"seed": 1},
        {"skips_per_event": 2.0},
        {"skip_popularity_power": 0.0},
        {"skips_exclude": "past"},
    ):
        hashes.append(load_log(dataclasses.replace(clicks, **change)).table_hash)
    assert len(set(hashes)) == len(hashes)


def test_a_wrong_number_of_events_is_refused(tmp_path):
    assert load_log(own(tmp_path, DAYS, expected_events=4)).num_events == 4
    with pytest.raises(UserError, match=r"log\.csv: holds 4 events where events_csv has 5"):
        load_log(own(tmp_path, DAYS, expected_events=5))


def test_missing_files_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match=r"^retailrocket: no files of this data set under ") as caught:
        load_log(config("retailrocket"))
    assert "kaggle.com" in caught.value.do
    assert "TPGR_JAX_DATA" in caught.value.do
    path = write(tmp_path / "data" / "2019-Oct.csv", "event_time\n")
    with pytest.raises(UserError, match=f"{path}: line 1: the header has no column 'user_id'"):
        load_log(config("rees46", root=str(tmp_path / "data")))


SHOPS = {
    "retailrocket": (
        "retailrocket/events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n"
        "1433221332999,257597,addtocart,5,\n"
        "1433221340000,257597,transaction,355908,4000\n"
        "1433321340000,257597,view,6,\n",
        [(257597, 0, 1433221332, 355908, 2), (257597, 0, 1433221332, 5, 1), (257597, 1, 1433321340, 6, 1)],
    ),
    "rees46": (
        "rees46/2019-Oct.csv.gz",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d7-a\n"
        "2019-10-01 00:00:05 UTC,remove_from_cart,7,2103807459595387724,,,35.79,541312140,72d7-a\n"
        "2019-10-01 00:00:09 UTC,purchase,39,2103807459595387724,a.b,lg,1.0,541312140,72d7-a\n"
        "2019-10-01 00:00:10 UTC,cart,39,2103807459595387724,a.b,lg,1.0,541312140,9999-b\n",
        [
            (541312140, 0, 1569888000, 44600062, 1),
            (541312140, 0, 1569888009, 39, 2),
            (541312140, 1, 1569888010, 39, 1),
        ],
    ),
}


@pytest.mark.parametrize("name", SHOPS)
def test_shops_by_hand(tmp_path, name):
    place, text, rows = SHOPS[name]
    write(tmp_path / "data" / place, text)
    options = {"expected_events": None, "min_item_events": 1, "skips_per_event": 0.0, "split": "quantile"}
    log = load_log(config(name, **options))
    assert as_rows(log) == rows
    assert (log.name, log.synthetic_skips) == (name, False)


def test_yoochoose_files_have_no_header(tmp_path):
    folder = tmp_path / "data" / "yoochoose"
    write(folder / "yoochoose-clicks.dat", "1,2014-04-07T10:51:09.277Z,5,0\n2,2014-04-08T10:51:09.277Z,6,0\n")
    write(folder / "yoochoose-buys.dat", "1,2014-04-07T10:59:00.000Z,5,12462,1\n")
    write(folder / "yoochoose-test.dat", "3,2014-04-07T10:59:00.000Z,5,0\n")
    options = {"expected_events": 3, "min_item_events": 1, "skips_per_event": 0.0}
    log = load_log(config("yoochoose", **options))
    assert as_rows(log) == [(1, 0, 1396867869, 5, 2), (2, 1, 1396954269, 6, 1)]


PROXIES = ["is_like", "is_follow", "is_comment", "is_forward"]


def as_text_rows(log: EventLog) -> list[tuple]:
    return [(str(user), session, time, str(item), feedback) for user, session, time, item, feedback in as_rows(log)]


@pytest.mark.parametrize(
    ("folder", "version", "packed"),
    [
        ("KuaiRand-1K", "1k", ""),
        ("KuaiRand-Pure", "pure", ".csv"),
        ("KuaiRand-27K", "27k", "part2.csv"),  # the other parts as they are
    ],
)
def test_kuairand_is_what_plain_python_reads_in_its_files(tmp_path, folder, version, packed):
    texts = kuairand_files(0, version)
    names = [name for name in texts if packed and name.endswith(packed)]
    write_files(tmp_path / "data" / folder / "data", texts, packed=names)
    log = load_log(config("kuairand", min_item_events=1))
    standard = [texts[name] for name in sorted(texts) if "standard" in name]
    rows = sessions_of(kuairand_events(standard, PROXIES), 1800)
    assert as_text_rows(log) == rows
    assert {row[4] for row in rows} == {0, 1, 2}
    assert log.is_test.sum() == pytest.approx(0.2 * log.num_sessions, abs=1)
    assert (log.num_events, log.num_users) == (len(rows), 12)
    assert log.user_ids.dtype.kind == log.item_ids.dtype.kind == "i"
    assert (log.name, log.synthetic, log.synthetic_skips) == ("kuairand", False, False)
    assert log.order_proxy == "is_like or is_follow or is_comment or is_forward"
    assert log.source.endswith(f"and {len(standard) - 1} more")


def test_kuairand_with_the_videos_put_in_at_random(tmp_path):
    texts = kuairand_files(1, "1k")
    write_files(tmp_path / "data" / "KuaiRand-1K" / "data", texts)
    options = {"min_item_events": 1, "session_gap": 600.0, "order_proxy": ["long_view"]}
    log = load_log(config("kuairand", files=["KuaiRand-1K/data/log_*.csv"], **options))
    rows = sessions_of(kuairand_events([texts[name] for name in sorted(texts)], ["long_view"]), 600)
    assert as_text_rows(log) == rows
    assert log.order_proxy == "long_view"
    # Those alone, in the folder that data.root names.
    root = str(tmp_path / "data" / "KuaiRand-1K" / "data")
    alone = load_log(config("kuairand", root=root, files=["log_random_*.csv"], **options))
    random = [text for name, text in texts.items() if "random" in name]
    assert as_text_rows(alone) == sessions_of(kuairand_events(random, ["long_view"]), 600)
    assert load_log(config("kuairand", root=root, min_item_events=1)).num_users == 12


def test_what_stands_in_for_orders_is_said_after_filters_and_from_the_cache(tmp_path, monkeypatch):
    write_files(tmp_path / "data" / "KuaiRand-1K" / "data", kuairand_files(2, "1k"))
    setting = config("kuairand", min_session_events=2)
    log = load_log(setting)
    assert np.bincount(log.session).min() >= 2
    assert log.order_proxy == " or ".join(PROXIES)
    with monkeypatch.context() as patch:
        patch.setattr(event_datasets, "read_events", None)
        assert_same(load_log(setting), log)
        with pytest.raises(TypeError):
            load_log(dataclasses.replace(setting, order_proxy=["is_like"]))
    assert log_statistics(log)["order_proxy"] == log.order_proxy
    none = load_log(dataclasses.replace(setting, order_proxy=[]))
    assert none.order_proxy == ""
    assert set(none.feedback.tolist()) == {0, 1}


def test_orders_of_other_logs_are_no_proxy(tmp_path):
    assert load_log(own(tmp_path, DAYS)).order_proxy == ""


def test_a_log_is_still_configured_as_before_there_were_proxies():
    with hydra.initialize_config_module("conf", version_base="1.3"):
        values = dict(hydra.compose("data_statistics", overrides=["data=jdata"]).data)
    del values["order_proxy"]
    assert read_settings(LogConfig, values, "data").order_proxy == []


@pytest.mark.parametrize("packing", ["files", "zip"])
def test_diginetica_is_what_plain_python_reads_in_its_files(tmp_path, packing):
    texts = diginetica_files(0)
    if packing == "files":
        write_files(tmp_path / "data" / "diginetica", texts, packed=["train-clicks.csv"])
    else:
        with zipfile.ZipFile(tmp_path / "data" / "dataset-train-diginetica.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in {**texts, "products.csv": "itemId;pricelog2;product.name.tokens\n1;3;4\n"}.items():
                archive.writestr(name, text)
    log = load_log(config("diginetica"))
    rows = diginetica_rows(texts)
    assert as_text_rows(log) == rows
    assert len(rows) > 500
    assert {row[4] for row in rows} == {0, 1, 2}
    assert (log.name, log.synthetic_skips, log.order_proxy) == ("diginetica", False, "")


def test_generated_logs(tmp_path, monkeypatch):
    from sim.generators import funnel

    def generate_log(*, size, seed, shop, world, num_users, num_items):
        assert (size, seed, shop, num_users, num_items) == ("tiny", 3, "blind", 20, 100)
        rows = {"users": [1, 2], "items": [5, 6], "times": [0, DAY], "feedback": [0, 1]}
        columns = {name: np.array(column) for name, column in rows.items()}
        probabilities = np.full((2, 3), 1 / 3)
        fixed = {"checksum": "sha256:0", "source": "generated", "synthetic": True, "probabilities": probabilities}
        return build_event_log(name="?", **columns, **fixed, sessions=None, session_gap=0.0)

    monkeypatch.setattr(funnel, "generate_log", generate_log)
    setting = config("synthetic_funnel", size="tiny", seed=3, shop="blind", num_users=20, num_items=100)
    log = load_log(setting)
    assert (log.name, log.synthetic, log.synthetic_skips) == ("synthetic_funnel", True, False)
    assert log.is_test.tolist() == [False, True]
    monkeypatch.setattr(funnel, "generate_log", None)
    assert_same(load_log(setting), log)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("reader", "nope", "reader"),
        ("name", " ", "name"),
        ("seed", -1, "seed"),
        ("max_unpacked_gib", 0.0, "max_unpacked_gib"),
        ("separator", "a\nb", "separator"),
        ("path", None, "path"),
        ("user_column", None, "user_column"),
        ("item_column", "user", "item_column"),
        ("session_column", "item", "session_column"),
        ("time_format", "minutes", "time_format"),
        ("feedback_of_event", {"view": "like"}, "feedback_of_event.view"),
        ("feedback_of_event", {}, "feedback_of_event"),
        ("feedback_of_file", {"*.csv": "ignore"}, "feedback_of_file.*.csv"),
        ("feedback_of_file", {"*.csv": "click"}, "feedback_of_file"),
        ("unknown_events", "drop", "unknown_events"),
        ("feedback_of_event", {True: "click"}, "feedback_of_event"),
        ("events", ["page.view"], "events"),
        ("events", ["page.view=like"], "events.page.view"),
        ("event_columns", {"is_click": "click"}, "event_columns"),  # beside a column of names
        ("event_columns", {"user": "click"}, "item_column"),
        ("least_rating", {"skip": 1}, "least_rating.skip"),
        ("least_rating", {"click": 5, "order": 4}, "least_rating"),
        ("item_separator", "", "item_separator"),
        ("answer_separator", "-", "answer_separator"),  # beside a column of names
        ("propensity_column", "user", "item_column"),
        ("max_session", 0, "max_session"),
        ("long_sessions", "keep", "long_sessions"),
        ("session_gap", float("nan"), "session_gap"),
        ("skips_per_event", -1.0, "skips_per_event"),
        ("skip_popularity_power", float("inf"), "skip_popularity_power"),
        ("skips_exclude", "future", "skips_exclude"),
        ("min_item_events", 0, "min_item_events"),
        ("train_days", 0, "train_days"),
        ("expected_events", 0, "expected_events"),
        ("split", "week", "split"),
        ("test_quantile", 1.0, "test_quantile"),
        ("order_proxy", ["is_hate"], "order_proxy"),
        ("order_proxy", ["likes"], "order_proxy"),
        ("order_proxy", "is_like", "order_proxy"),
        ("order_proxy", ["is_like"], "order_proxy"),  # of a table, which has no such column
        ("nonsense", 1, "nonsense"),
    ],
)
def test_impossible_settings_name_their_key(key, value, named):
    with pytest.raises(UserError) as caught:
        config("events_csv", **{"path": "log.csv", key: value})
    assert f"data.{named}" in str(caught.value)
    assert caught.value.do


def test_an_unknown_size_is_refused():
    with pytest.raises(UserError, match=r"data\.size: unknown value 'huge'"):
        config("synthetic_funnel", size="huge")


@pytest.mark.skipif(not HAS_JDATA, reason="set TPGR_JAX_DATA to a folder with jdata-sample/JData_Action_*.csv.gz")
def test_real_jdata():
    setting = config("jdata", root=REAL, expected_events=89_997 - 590)
    recorded = load_log(dataclasses.replace(setting, skips_per_event=0.0))
    assert recorded.num_users <= 3_009
    assert recorded.num_items <= 3_366
    assert recorded.user_ids.dtype.kind == recorded.item_ids.dtype.kind == "i"
    assert (recorded.feedback == 2).sum() <= 200
    log = load_log(setting)
    assert log.synthetic_skips
    np.testing.assert_allclose((log.feedback > 0).mean(), 0.1, rtol=0.001)
    starts = log.time[log.session_starts()[:-1]]
    # The last of the three bursts, 2016-03-31 and 2016-04-01, is for testing.
    np.testing.assert_array_equal(log.is_test, starts > np.datetime64("2016-03-15", "s").astype(int))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("changes", "table_hash"),
    [
        ({"session_column": "session"}, "5587f1da488907e3018accfcfc1de9c2b66e2b31b30143ab3898bac8e4f72733"),
        (
            {"split": "day", "min_item_events": 3, "max_session": 4},
            "b13ef0a800a26147911076a234d8e8b9d36b75c4328f5b452414dd573288f920",
        ),
    ],
)
def test_the_hash_of_a_log_stays_however_it_is_read_in_parts(tmp_path, monkeypatch, changes, table_hash, kind):
    monkeypatch.setattr("sim.files.tables.try_parquet", lambda *_: None)
    monkeypatch.setattr("sim.formats.parquet.ROWS_AT_A_TIME", 70)
    monkeypatch.setattr("sim.files.ids._BATCH", 50)
    monkeypatch.setattr("sim.tables.event_order.ROWS_AT_A_TIME", 40)
    random, number = np.random.default_rng(0), 400
    users = [f"u{user}" if row < 250 else str(user) for row, user in enumerate(random.integers(0, 30, number))]
    items, times = random.integers(10**9, 10**9 + 20, number), random.integers(0, 3 * DAY, number)
    sessions = [f"s{session}" if session else "" for session in random.integers(0, 4, number)]
    events = random.choice(np.array(["skip", "click", "order"]), number).tolist()
    table = pl.DataFrame({"user": users, "item": items, "time": times, "event": events, "session": sessions})
    table.write_csv(tmp_path / "log.csv")
    table.write_parquet(tmp_path / "log.parquet")
    log = load_log(config("events_csv", path=str(tmp_path / f"log.{kind}"), **changes))
    assert log.table_hash == f"sha256:{table_hash}"

"""Several files that are one table, folders of Parquet files, columns of Parquet files, and RecBole's atomic files."""

import functools
import gzip
import tempfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.datasets.log_settings import LogConfig
from sim.datasets.rating_settings import DataConfig
from sim.files.event_readers import EventLayout, read_events
from sim.files.rating_readers import read_ratings
from sim.files.rows import TableLayout
from sim.formats.parquet import parquet_files, partition_values
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import TextFormat

CSV = "user,item,rating\n"


@pytest.fixture(autouse=True)
def untried(monkeypatch, request):
    """Reads Parquet files without the trial in another process, which takes half a second."""
    if "damaged" not in request.node.name:
        monkeypatch.setattr("sim.files.tables.try_parquet", lambda *_: None)


def store(path: Path, text: str | bytes = f"{CSV}1,10,3\n") -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Source(path)


def parquet(path: Path, **columns) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(path)
    return Source(path)


def ratings(*sources: Source, **changes) -> list[tuple]:
    text = TextFormat(**changes.pop("text", {}))
    columns = read_ratings("table", sources, layout=TableLayout(**changes, text=text))
    arrays = [columns.users, columns.items, columns.ratings]
    arrays += [] if columns.timestamps is None else [columns.timestamps]
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def events(*sources: Source, **changes) -> list[tuple]:
    layout = {"user_column": "user", "item_column": "item", "time_column": "time", "feedback_column": "event"}
    layout |= {"feedback_of_event": {"view": "click", "buy": "order"}, "time_format": "auto", **changes}
    columns = read_events("events_table", sources, EventLayout(**layout), SizeLimits())
    arrays = (columns.user_ids[columns.users], columns.item_ids[columns.items], columns.times, columns.feedback)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def named(path: object, data: str = "ratings_file", **changes) -> list[Path]:
    """Returns the files that `data.path` names."""
    kind = DataConfig if data == "ratings_file" else LogConfig
    paths = [str(one) for one in path] if isinstance(path, list) else str(path)
    values = {**_composed(data), "path": paths, **changes}
    return [source.path for source in read_settings(kind, values).stored_sources()]


@functools.cache
def _composed(data: str) -> dict:
    return composed_values("data_statistics", [f"data={data}"])["data"]


def message(read, *arguments, **changes) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments, **changes)
    assert caught.value.do
    assert caught.value.__cause__ is None
    return str(caught.value)


# Several files


def test_ids_are_the_same_across_files_of_any_kind_and_order_of_columns(tmp_path):
    files = [
        store(tmp_path / "1.csv", f"{CSV}1,10,3\n"),
        store(tmp_path / "2.csv", "rating\titem\tuser\n4\t11\t1.0\n"),
        store(tmp_path / "3.txt", '{"item": 10, "user": 2, "rating": 5}\n'),
        parquet(tmp_path / "4.parquet", user=[3.0], item=["11"], rating=[1]),
    ]
    assert ratings(*files) == [(1, 10, 3.0), (1, 11, 4.0), (2, 10, 5.0), (3, 11, 1.0)]


def test_each_file_has_its_own_unit_of_time(tmp_path):
    header = "user,item,event,time\n"
    files = [store(tmp_path / f"{n}.csv", f"{header}{n},10,view,{time}\n") for n, time in ((1, 10**9), (2, 10**12))]
    assert [row[2] for row in events(*files)] == [10**9, 10**9]
    assert [row[3] for row in ratings(*files, rating_column=None, timestamp_column="time")] == [10**9, 10**9]


def test_a_file_with_other_columns_is_named(tmp_path):
    first, other = store(tmp_path / "1.csv"), store(tmp_path / "2.csv", "user,item,stars\n1,10,3\n")
    assert f"{other}: line 1: the header has no column 'rating'" in message(ratings, first, other)
    text = {"header": ["user", "item", "rating"]}
    bare, wider = store(tmp_path / "3.csv", "1,10,3\n"), store(tmp_path / "4.csv", "0,1,10,3\n")
    assert f"{wider}: line 1: 4 fields, where the files before have 3" in message(ratings, bare, wider, text=text)
    assert len(ratings(bare, store(tmp_path / "5.csv", "2,10,3\n"), text=text)) == 2


def test_every_file_that_looks_cut_short_is_named(tmp_path):
    cut = store(tmp_path / "1.csv", "user,item,rating,time\n1,10,3,1000000000\n1,11,3,99")
    whole = store(tmp_path / "2.csv", "user,item,rating,time\n2,10,3,1000000000\n")
    assert f"{cut}: the last line ends with timestamp 99" in message(ratings, cut, whole, timestamp_column="time")


def test_paths_patterns_and_lists(tmp_path):
    for name in ("log-10.csv", "log-2.csv", "log-2.csv.gz", "odd [1].csv", "other.csv"):
        store(tmp_path / name)
    in_order = [tmp_path / "log-2.csv", tmp_path / "log-10.csv"]
    for data in ("ratings_file", "events_csv"):
        assert named(tmp_path / "log-*.csv*", data) == in_order
        assert named([tmp_path / "other.csv", tmp_path / "log-*.csv"], data) == [tmp_path / "other.csv", *in_order]
        assert named([tmp_path / "log-2.csv", tmp_path / "log-*.csv"], data) == in_order
        assert named(tmp_path / "odd [1].csv", data) == [tmp_path / "odd [1].csv"]
        assert "no file matches this pattern" in message(named, tmp_path / "no-*.csv", data)


def test_several_members_of_an_archive_need_a_pattern(tmp_path):
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        for name in ("a-1.csv", "a-2.csv", "b.csv"):
            archive.writestr(name, f"{CSV}1,10,3\n")
    assert "holds 3 files" in message(named, tmp_path / "logs.zip")
    assert named(tmp_path / "logs.zip", member="a-*.csv") == [tmp_path / "logs.zip"] * 2


# Folders


def spark(folder: Path) -> Path:
    parquet(folder / "part-00010-a.snappy.parquet", user=[3], item=["x"], rating=[1.0])
    parquet(folder / "part-00002-a.snappy.parquet", user=[1, 2], item=["y", "x"], rating=[4.0, 5.0])
    for name in ("_SUCCESS", ".part-00002-a.snappy.parquet.crc", "_metadata", "_temporary/0.parquet", ".hidden/x.csv"):
        store(folder / name, b"not a table")
    return folder


def test_a_folder_of_spark_is_its_parts(tmp_path):
    sources = [Source(path) for path in named(spark(tmp_path / "ratings.parquet"))]
    assert ratings(*sources) == [(1, "y", 4.0), (2, "x", 5.0), (3, "x", 1.0)]


def test_folders_of_hive_are_columns(tmp_path):
    folder = tmp_path / "log"
    parquet(folder / "event=view" / "date=2024-01-02" / "0.parquet", user=[1], item=["x"])
    parquet(folder / "event=buy" / "date=2024-01-01%2012%3A30" / "0.parquet", user=[2], item=["y"])
    paths = named(folder, "events_csv")
    rows = [(2, "y", 1704112200, 2), (1, "x", 1704153600, 1)]
    assert events(*map(Source, paths), time_column="date") == rows
    assert events(*map(Source, named(folder / "*" / "*" / "*.parquet", "events_csv")), time_column="date") == rows
    assert [row[2] for row in ratings(Source(paths[1]), rating_column="event", rating_of_event={"view": 2})] == [2.0]


def test_folders_name_columns_of_text_files_too_and_the_files_come_first(tmp_path):
    source = store(tmp_path / "user=7" / "rating=3" / "a.csv", "item,rating\n10,5\n")
    assert ratings(source) == [(7, 10, 5.0)]
    source = store(tmp_path / "user=7" / "rating=3" / "a.json", '{"item": 10, "rating": 5}\n')
    assert ratings(source) == [(7, 10, 5.0)]
    assert partition_values(tmp_path / "a=__HIVE_DEFAULT_PARTITION__" / "b=1=2" / "c=3.csv") == {"a": "", "b": "1=2"}
    source = parquet(tmp_path / "user=__HIVE_DEFAULT_PARTITION__" / "a.parquet", item=[1], rating=[2])
    assert "row 1: user '' is empty" in message(ratings, source)


def test_folders_that_are_no_table(tmp_path):
    store(tmp_path / "csv" / "a.csv")
    (tmp_path / "empty").mkdir()
    assert "is a folder that holds a.csv, and no Parquet files" in message(parquet_files, tmp_path / "csv")
    assert "is a folder that holds nothing, and no Parquet files" in message(parquet_files, tmp_path / "empty")
    store(spark(tmp_path / "mixed") / "notes.txt")
    assert "is a folder that holds notes.txt beside Parquet files" in message(parquet_files, tmp_path / "mixed")


def test_a_damaged_part_is_named(tmp_path):
    folder = spark(tmp_path / "ratings.parquet")
    part = folder / "part-00010-a.snappy.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    sources = [Source(path) for path in parquet_files(folder)]
    assert f"{part}: is not a sound Parquet file" in message(ratings, *sources)
    part.write_bytes(b"")
    assert f"{part}: the file is empty" in message(ratings, *sources)
    parquet(part, user=[1], item=[2])
    assert f"{part}: has no column 'rating'; its columns are 'user', 'item'" in message(ratings, *sources)


# Columns of Parquet files


def test_binary_columns_are_uuids_or_text(tmp_path):
    ids = [uuid.UUID(int=1), uuid.uuid5(uuid.NAMESPACE_DNS, "a")]
    source = parquet(tmp_path / "a.parquet", user=[one.bytes for one in ids], item=[b"x", b"y"], rating=[1, 2])
    assert ratings(source) == [(str(ids[0]), "x", 1.0), (str(ids[1]), "y", 2.0)]
    source = parquet(tmp_path / "a.parquet", user=[b"\xff" * 15], item=[1], rating=[2])
    assert "column 'user' has type Binary, which is neither text nor UUIDs" in message(ratings, source)
    source = parquet(tmp_path / "a.parquet", user=[ids[0].bytes, None], item=[1, 2], rating=[2, 2])
    assert "row 2: user '' is empty" in message(ratings, source)


@pytest.mark.parametrize("column", ["user", "rating", "time"])
def test_durations_are_refused(tmp_path, column):
    columns = {"user": [1], "item": [2], "rating": [3], "time": [4], "event": ["view"]}
    source = parquet(tmp_path / "a.parquet", **{**columns, column: np.array([5], "timedelta64[us]")})
    problem = f"column '{column}' has type Duration(time_unit='us'), which is no time of a calendar"
    assert problem in message(ratings, source, timestamp_column="time")
    if column != "rating":
        assert problem in message(events, source)


def test_missing_texts_of_parquet_are_empty(tmp_path):
    columns = {"user": ["a", None], "item": ["b", "c"], "rating": [1, 2], "time": [1, 2], "event": ["view", None]}
    source = parquet(tmp_path / "a.parquet", **columns)
    assert "row 2: user '' is empty" in message(ratings, source)
    assert ratings(source, missing_values=[""]) == [("a", "b", 1.0)]
    source = parquet(tmp_path / "a.parquet", **{**columns, "user": ["a", "d"]})
    assert "row 2: event '' is not one of" in message(events, source)


# RecBole


@pytest.mark.parametrize("name", ["ml.inter", "ml.txt"])
def test_atomic_files_of_recbole(tmp_path, name):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\tgenre:token_seq\n"
    source = store(tmp_path / name, f"{header}196\t242\t3\t881250949\ta b\n186\t302\t3.5\t8.91717742E8\tc\n")
    layout = {"user_column": "user_id", "item_column": "item_id", "timestamp_column": "timestamp"}
    assert ratings(source, **layout) == [(196, 242, 3.0, 881250949), (186, 302, 3.5, 891717742)]
    log = events(source, user_column="user_id", item_column="item_id", time_column="timestamp", feedback_column=None)
    assert log == [(196, 242, 881250949, 1), (186, 302, 891717742, 1)]
    problem = message(ratings, source, **{**layout, "item_column": "genre"})
    assert f"{source}: line 1: the column 'genre' holds sequences (token_seq), which cannot be read" in problem


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 3])
def test_parquet_files_are_read_in_parts(tmp_path, monkeypatch, rows_at_a_time):
    monkeypatch.setattr("sim.formats.parquet.ROWS_AT_A_TIME", rows_at_a_time)
    events_of = [[{"item": 3.0, "event": "view"}], [], None, [{"item": 4.0, "event": "buy"}] * 2, [], []]
    times = [10, 11, 12, 13, 14, 15]
    log = parquet(tmp_path / "log.parquet", user=[1.0, 2.0, 3.0, 4.5, 5.0, 6.0], time=times, events=events_of)
    assert events(log) == [("1.0", 3, 10, 1), ("4.5", 4, 13, 2), ("4.5", 4, 13, 2)]
    wrong = parquet(tmp_path / "wrong.parquet", user=[1, 2, 3, 4], item=[1] * 4, rating=[1.0, 2.0, 3.0, None])
    assert "row 4: rating '' is empty" in message(ratings, wrong)
    empty = parquet(tmp_path / "empty.parquet", **{name: pl.Series(dtype=pl.Int64) for name in ("user", "time")})
    assert "no column 'item'" in message(events, empty)


def test_packed_parquet(tmp_path, monkeypatch):
    plain = parquet(tmp_path / "r.parquet", user=[1, 2], item=[3, 4], rating=[5.0, None])
    whole = plain.path.read_bytes()
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("day=1/r.parquet", whole)
    packed = [store(tmp_path / "r.parquet.gz", gzip.compress(whole)), Source(tmp_path / "r.zip", "day=1/r.parquet")]
    monkeypatch.setenv("TMPDIR", str(tmp_path / "unpacked"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "unpacked").mkdir()
    for source in packed:
        assert ratings(source, rating_column="user") == [(1, 3, 1.0), (2, 4, 2.0)]
        assert message(ratings, source).startswith(f"{source}: row 2: rating '' is empty")
    assert ratings(plain, *packed, rating_column="item") == [(1, 3, 3.0), (2, 4, 4.0)] * 3
    assert not list((tmp_path / "unpacked").iterdir())


def test_damaged_parquet_that_is_packed_is_named_as_what_it_is(tmp_path):
    parquet(tmp_path / "r.parquet", user=[1] * 99)
    cut = store(tmp_path / "r.parquet.gz", gzip.compress((tmp_path / "r.parquet").read_bytes()[:-9]))
    assert message(ratings, cut).startswith(f"{cut}: is not a sound Parquet file")
    half = store(tmp_path / "half.gz", gzip.compress((tmp_path / "r.parquet").read_bytes())[:-9])
    assert message(ratings, half).startswith(f"{half}: the compressed data ends too early")

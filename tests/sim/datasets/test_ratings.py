"""Data sets: which file is taken, what is cached, when generated ratings stand in, and what is refused."""

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import hydra
import numpy as np
import pooch
import pytest
import requests

from harness.errors import UserError
from harness.settings import read_settings
from sim.datasets import ratings as datasets
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import AnyDataConfig, load_dataset, statistics
from sim.generators import ratings as synthetic
from sim.tables.plausibility import rating_warnings
from sim.tables.ratings import RatingData
from sim.tables.summary import rating_summary, summary_rows

REAL = os.environ.get("TPGR_JAX_DATA")
FILES = (Path(__file__).parents[3] / "conf" / "data").glob("*.yaml")
NAMES = sorted(path.stem for path in FILES if "\n  - base\n" in path.read_text())
TEXT = "2::30::5::978300760\n1::10::4::978302109\n1::30::1::978302268\n"
ANY_COUNTS = {"expected_users": None, "expected_items": None, "expected_ratings": None}
ARRAYS = ("user_ids", "item_ids", "indptr", "items", "codes", "rating_values", "timestamps")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Points the environment's folders into the test's own and cuts the network."""
    monkeypatch.setenv("TPGR_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TPGR_JAX_CACHE", str(tmp_path / "tables"))
    (tmp_path / "data").mkdir()

    def unreachable(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: unreachable)


@dataclasses.dataclass(frozen=True)
class Data:
    data: AnyDataConfig


def config(name: str, /, **changes) -> DataConfig:
    """Composes conf/data/NAME.yaml with changes."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        found = hydra.compose("data_statistics", overrides=[f"data={name}"]).data
    return read_settings(Data, {"data": {**found, **changes}}).data


def small(**changes) -> DataConfig:
    """Returns movielens_1m with any counts."""
    return config("movielens_1m", **{**ANY_COUNTS, **changes})


def write(path: Path, text: str = TEXT) -> Path:
    """Writes a file, gzipped or zipped as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ml-1m/README", "read me")
            archive.writestr("ml-1m/ratings.dat", text)
    else:
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def assert_same(one: RatingData, other: RatingData) -> None:
    """Compares two tables in all fields."""
    for field in dataclasses.fields(RatingData):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name in ARRAYS:
            assert (first is None) == (second is None)
            if first is not None:
                np.testing.assert_array_equal(first, second)
                assert first.dtype == second.dtype
        else:
            assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_file_is_valid(name):
    path = {"path": "ratings.csv"} if name in ("ratings_file", "recbole") else {}
    assert config(name, **path).name == name


@pytest.mark.parametrize("place", ["ml-1m/ratings.dat", "ml-1m/ratings.dat.gz", "ml-1m.zip"])
def test_files_are_found_and_parsed(tmp_path, place):
    path = write(tmp_path / "data" / place)
    data = load_dataset(small())
    assert data.user_ids.tolist() == [1, 2]
    assert data.item_ids.tolist() == [10, 30]
    assert data.matrix(data.rating_values).toarray().tolist() == [[4, 1], [0, 5]]
    assert data.timestamps.tolist() == [978302109, 978302268, 978300760]
    assert (data.rating_min, data.rating_max, data.synthetic, data.name) == (1, 5, False, "movielens_1m")
    assert data.checksum == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert str(path) in data.source


def test_precedence_of_files(tmp_path):
    places = ["ml-1m/ratings.dat", "ml-1m/ratings.dat.gz", "ml-1m.zip", "ratings.dat", "ratings.dat.gz"]
    for place in places:
        write(tmp_path / "data" / place)
    for place in places:
        path = tmp_path / "data" / place
        assert load_dataset(small(root=str(tmp_path / "data"))).source.split(" (")[0] == str(path)
        path.unlink()


def test_a_bare_file_counts_only_below_a_root_that_was_set(tmp_path):
    write(tmp_path / "data" / "ratings.dat")
    assert not load_dataset(small(root=str(tmp_path / "data"))).synthetic
    with pytest.raises(UserError, match="no files of this data set under"):
        load_dataset(small(offline_fallback=False))


def test_another_data_sets_file_is_refused(tmp_path):
    write(tmp_path / "data" / "ratings.dat")
    with pytest.raises(UserError, match=r"ratings\.dat: holds 2 users where movielens_1m has 6,040"):
        load_dataset(config("movielens_1m", root=str(tmp_path / "data")))
    with pytest.raises(UserError, match="holds 3 ratings where movielens_1m has 4"):
        load_dataset(small(root=str(tmp_path / "data"), expected_ratings=4))


def test_netflix_layouts(tmp_path):
    root = tmp_path / "data" / "netflix"
    write(root / "combined_data_1.txt", "1:\n7,3,2005-09-06\n2:\n8,5,2005-09-07\n")
    write(root / "combined_data_2.txt", "3:\n7,1,2005-09-06\n")
    combined = load_dataset(config("netflix", **ANY_COUNTS))
    shutil.rmtree(root)
    for movie, text in ((1, "1:\n7,3,2005-09-06\n"), (2, "2:\n8,5,2005-09-07\n"), (3, "3:\n7,1,2005-09-06\n")):
        write(root / "training_set" / f"mv_{movie:07}.txt", text)
    single = load_dataset(config("netflix", **ANY_COUNTS))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(combined, name), getattr(single, name))
    assert single.user_ids.tolist() == [7, 8]
    with pytest.raises(UserError, match=r"kaggle\.com"):
        load_dataset(config("netflix", root=str(tmp_path / "tables"), offline_fallback=False))


def test_the_table_comes_from_the_cache_until_the_file_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "data" / "ml-1m" / "ratings.dat")
    parsed = load_dataset(small())
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "read_ratings", None)
        stored = load_dataset(small())
    assert_same(stored, parsed)
    assert isinstance(stored.items, np.memmap)
    assert not stored.items.flags.writeable
    write(path, TEXT + "3::10::2::978302109\n")
    assert load_dataset(small()).num_ratings == 4
    assert not list((tmp_path / "tables").glob(".*"))


def test_the_hash_of_the_table_is_computed_once(tmp_path, monkeypatch):
    write(tmp_path / "data" / "ml-1m" / "ratings.dat")
    data = load_dataset(small())
    monkeypatch.setattr(datasets, "hashed", None)
    assert load_dataset(small()).table_hash == data.table_hash


def test_one_file_read_in_two_ways_makes_two_tables(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("user,item,rating,time,service\na,1,2,30,5\na,2,4,20,1\nb,1,4,2,3\n")
    ways = [{}, {"rating_column": "service"}, {"timestamp_column": "time"}, {"rating_min": 0.0, "rating_max": 9.0}]
    tables = [load_dataset(config("ratings_file", path=str(path), **way)) for way in ways]
    assert len({table.checksum for table in tables}) == 1
    assert len({table.table_hash for table in tables}) == 4
    generated = [load_dataset(config("synthetic", size="tiny", seed=seed)).table_hash for seed in (0, 0, 1)]
    assert generated[0] == generated[1] != generated[2]


def test_string_ids_survive_the_cache(tmp_path):
    path = write(tmp_path / "r.csv", "user,item,rating\nzoë,007,1\nbob,7,2\n")
    setting = config("ratings_file", path=str(path))
    assert_same(load_dataset(setting), load_dataset(setting))
    assert load_dataset(setting).user_ids.tolist() == ["bob", "zoë"]


@pytest.mark.parametrize("victim", ["meta.json", "items.npy", "codes.npy"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_damaged_cache_is_rebuilt_with_one_notice(tmp_path, capsys, victim, harm):
    write(tmp_path / "data" / "ml-1m" / "ratings.dat")
    parsed = load_dataset(small())
    (file,) = (tmp_path / "tables").glob(f"*/{victim}")
    whole = file.read_bytes()
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(whole[:-1] if harm == "cut" else b"\x01" + whole[1:])
    assert_same(load_dataset(small()), parsed)
    assert capsys.readouterr().err.count("\n") == 1
    load_dataset(small())
    assert capsys.readouterr().err == ""


def test_what_an_earlier_version_cached_may_lack_what_has_a_default(tmp_path, capsys):
    path = write(tmp_path / "r.csv", "user,item,rating\n1,2,3\n1,3,5\n1,2,4\n2,2,3\n")
    setting = config("ratings_file", path=str(path), duplicates="last")
    parsed = load_dataset(setting)
    assert (parsed.num_repeats, parsed.value_places) == (1, ["line 5", "line 4", "line 3"])
    (file,) = (tmp_path / "tables").glob("*/meta.json")
    meta = json.loads(file.read_text())
    del meta["num_repeats"], meta["value_places"]
    file.write_text(json.dumps(meta))
    assert_same(load_dataset(setting), dataclasses.replace(parsed, num_repeats=0, value_places=[]))
    assert capsys.readouterr().err == ""


def test_what_was_left_out_and_where_ratings_stand_is_known_of_several_files_and_from_the_cache(tmp_path):
    write(tmp_path / "a.csv", "user,item,rating\n1,2,3\nNA,3,5\n1,4,99\n")
    write(tmp_path / "b.csv", "user,item,rating\n2,2,1\n2,3,-3\n2,4,99\n")
    paths = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    setting = config("ratings_file", path=paths, missing_ratings=[99.0], missing_values=["NA"])
    for data in (load_dataset(setting), load_dataset(setting)):
        assert data.left_out == {"data.missing_values": 1, "data.missing_ratings": 2}
        assert (data.missing_ratings, data.missing_values) == ([99.0], ["NA"])
        assert data.value_places == ["line 3 of b.csv", "line 2 of b.csv", "line 2 of a.csv"]
        said = dict(summary_rows(rating_summary(data, 3.0)))
        assert said["left out"] == "1 row by data.missing_values, 2 rows by data.missing_ratings"
    with pytest.raises(UserError, match=r"line 3 of b.csv: rating -3 of user 2 .*\n.*data.missing_ratings=\[99,-3\]"):
        load_dataset(dataclasses.replace(setting, rating_min=0.5))


@pytest.mark.parametrize(
    ("spelled", "separator"), [(r"\x01", "\x01"), (r"\t", "\t"), ("tab", "\t"), (r"\u0001|", r"\u0001|")]
)
def test_separators_that_cannot_be_typed(spelled, separator):
    assert config("ratings_file", path="r.csv", separator=spelled).text_format.separator == separator


def test_interactions_need_no_key_but_that_there_are_no_ratings(tmp_path):
    rows = "".join(f"{user},{item}\n" for user in range(20) for item in (*range(12), 0))
    write(tmp_path / "r.csv", f"user,item\n{rows}")
    clicks = config("ratings_file", path=str(tmp_path / "r.csv"), rating_column=None)
    data = load_dataset(clicks)
    assert (data.num_ratings, data.num_repeats, data.rating_values[1:].tolist()) == (240, 20, [1.0])
    assert clicks.hits_above == 0.0
    assert rating_warnings(data, clicks.hits_above) == []
    # What is set counts where it can be reached.
    assert config("ratings_file", path="r.csv", rating_column=None, relevant_above=0.5).hits_above == 0.5
    assert config("ratings_file", path="r.csv", rating_column=None, implicit_rating=-2.0).hits_above == -3.0
    assert config("ratings_file", path="r.csv", rating_column=None, duplicates="sum").hits_above == 3.0
    assert config("ratings_file", path="r.csv").hits_above == 3.0


@pytest.mark.parametrize("counts", [["view=1", "buy=5", "cart=ignore"], {"view": 1, "buy": 5.0, "cart": "ignore"}])
def test_events_count_or_are_ignored(counts):
    read = config("ratings_file", path="r.csv", rating_of_event=counts)
    assert read.rating_of_event == {"view": 1.0, "buy": 5.0, "cart": None}
    with pytest.raises(UserError, match=r"data\.rating_of_event\.cart is 'click'"):
        config("ratings_file", path="r.csv", rating_of_event={"cart": "click"})


def test_a_cache_that_cannot_be_written_only_warns(tmp_path, capsys, monkeypatch):
    write(tmp_path / "data" / "ml-1m" / "ratings.dat")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "save", refuse)
    assert load_dataset(small()).num_ratings == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot cache" in said
    assert list((tmp_path / "tables").iterdir()) == []


def test_processes_do_not_collide_in_the_cache(tmp_path):
    path = write(tmp_path / "r.csv", "user,item,rating\n" + "".join(f"{user},1,{user % 5}\n" for user in range(2000)))
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from tests.sim.datasets import test_ratings as t; "
        "print(t.load_dataset(t.config('ratings_file', path=sys.argv[1])).num_ratings)"
    )
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", code, str(path), root]
    started = [subprocess.Popen(command, stdout=-1, stderr=-1, cwd=root) for _ in range(3)]
    assert [process.communicate() for process in started] == [(b"2000\n", b"")] * 3
    assert len(list((tmp_path / "tables").iterdir())) == 1


def test_a_download_is_stored_and_read(tmp_path, monkeypatch):
    archive = write(tmp_path / "served.zip")
    checksum = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: lambda url, target, _: shutil.copy(archive, target))
    assert load_dataset(small(checksum=checksum)).num_ratings == 3
    assert (tmp_path / "data" / "ml-1m.zip").read_bytes() == archive.read_bytes()


def test_a_download_with_a_wrong_checksum_never_falls_back(tmp_path, monkeypatch):
    archive = write(tmp_path / "served.zip")
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: lambda url, target, _: shutil.copy(archive, target))
    with pytest.raises(UserError, match="expected checksum"):
        load_dataset(small())
    assert list((tmp_path / "data").iterdir()) == []


def test_without_files_and_network_generated_ratings_stand_in_loudly(capsys):
    data = load_dataset(config("movielens_10m", fallback_size="tiny"))
    assert data.synthetic
    assert data.name == "synthetic_tiny"
    said = capsys.readouterr().err
    assert said.startswith("WARNING: movielens_10m is not available")
    assert said.count("\n") == 1
    with pytest.raises(UserError, match="no files of this data set") as caught:
        load_dataset(config("movielens_10m", offline_fallback=False))
    assert "no network" in str(caught.value)


@pytest.mark.parametrize("harm", ["empty", "malformed", "folder", "dangling"])
def test_damaged_files_never_fall_back(tmp_path, harm):
    path = tmp_path / "data" / "ml-1m" / "ratings.dat"
    path.parent.mkdir()
    if harm == "folder":
        path.mkdir()
    elif harm == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("" if harm == "empty" else TEXT + "oops\n")
    with pytest.raises(UserError, match=str(path)):
        load_dataset(small())


def test_a_damaged_archive_never_falls_back(tmp_path):
    path = write(tmp_path / "data" / "ml-1m.zip")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a sound compressed file"):
        load_dataset(small())


def test_wrong_ratings_are_refused(tmp_path):
    path = write(tmp_path / "data" / "ml-1m" / "ratings.dat", TEXT + "1::10::3::1000000000\n")
    with pytest.raises(UserError, match="user 1 rates item 10 more than once"):
        load_dataset(small())
    write(path, TEXT + "3::10::6::1000000000\n")
    with pytest.raises(UserError, match="outside the scale 1 to 5"):
        load_dataset(small())


def test_tables_inside_archives(tmp_path):
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/r.csv", "user,item,rating\n1,2,3\n")
    assert load_dataset(config("ratings_file", path=str(path))).num_ratings == 1
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.csv", "user,item,rating\n1,2,3\n2,2,3\n")
    with pytest.raises(UserError, match="holds 2 files"):
        load_dataset(config("ratings_file", path=str(path)))
    assert load_dataset(config("ratings_file", path=str(path), member="b.csv")).num_ratings == 2
    with pytest.raises(UserError, match="no such file"):
        load_dataset(config("ratings_file", path=str(tmp_path / "none.csv")))


def test_synthetic_ratings_and_their_cache(tmp_path, monkeypatch):
    assert load_dataset(config("synthetic", size="tiny")).num_users == 200
    assert load_dataset(config("synthetic", size=None, num_users=50, num_items=40, num_ratings=500)).num_ratings == 500
    assert not (tmp_path / "tables").exists()
    tiny = synthetic.generate("tiny")
    monkeypatch.setattr(synthetic, "generate", lambda **_: tiny)
    first = load_dataset(config("synthetic", size="movielens_10m"))
    monkeypatch.setattr(synthetic, "generate", None)
    assert_same(load_dataset(config("synthetic", size="movielens_10m")), first)
    assert first.name == "synthetic"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reader", "nope"),
        ("size", "huge"),
        ("fallback_size", "huge"),
        ("name", " "),
        ("test_fraction", -0.1),
        ("test_fraction", 1.0),
        ("test_fraction", float("nan")),
        ("fold", 5),
        ("fold", -1),
        ("folds", 0),
        ("rating_min", 5.0),
        ("relevant_above", float("inf")),
        ("split_seed", -1),
        ("seed", -1),
        ("num_users", 0),
        ("expected_ratings", 0),
        ("max_unpacked_gib", 0.0),
        ("url", "http://example.org/a.zip"),
        ("checksum", "1234"),
        ("archive", None),
        ("split_seed", "x"),
        ("nonsense", 1),
    ],
)
def test_impossible_settings_name_their_key(key, value):
    with pytest.raises(UserError) as caught:
        config("movielens_1m", **{key: value})
    assert f"data.{key if key != 'archive' else 'url'}" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("path", None), ("user_column", None), ("item_column", ""), ("separator", "123456789"), ("separator", '"')],
)
def test_impossible_table_settings_name_their_key(key, value):
    with pytest.raises(UserError, match=rf"data\.{key}"):
        config("ratings_file", **{"path": "r.csv", key: value})
    with pytest.raises(UserError, match="one column has two roles"):
        config("ratings_file", path="r.csv", item_column="user")


def test_a_log_in_place_of_ratings_gives_one_message():
    with pytest.raises(UserError, match=r"data\.kind is 'events'\n  .* choose data=synthetic,"):
        config("jdata")


def test_a_configuration_from_before_there_were_kinds_is_of_ratings():
    with hydra.initialize_config_module("conf", version_base="1.3"):
        found = hydra.compose("data_statistics", overrides=["data=synthetic", "~data.kind"]).data
    assert read_settings(DataConfig, found, "data").kind == "ratings"


def test_statistics_by_hand(tmp_path):
    write(tmp_path / "data" / "ml-1m" / "ratings.dat")
    found = statistics(load_dataset(small()))
    assert json.loads(json.dumps(found)) == found
    assert (found["users"], found["items"], found["ratings"], found["density"]) == (2, 2, 3, 0.75)
    assert found["ratings_per_user"] == {"min": 1, "median": 1.5, "mean": 1.5, "max": 2}
    assert found["rating_mean"] == pytest.approx(10 / 3)
    assert found["rating_distribution"] == {"1": 1, "4": 1, "5": 1}
    assert found["timestamps"] == [978300760, 978302268]


@pytest.mark.skipif(REAL is None, reason="set TPGR_JAX_DATA to a folder with the real data sets")
@pytest.mark.parametrize(
    ("name", "counts"),
    [("movielens_1m", (6_040, 3_706, 1_000_209)), ("movielens_latest_small", (610, 9_724, 100_836))],
)
def test_real_data(name, counts):
    data = load_dataset(config(name, root=REAL, offline_fallback=False))
    assert (data.num_users, data.num_items, data.num_ratings) == counts


DUPLICATES = "user,item,rating,t\n1,5,2,30\n2,5,1,1\n1,5,4,10\n1,5,3,20\n"


@pytest.mark.parametrize(
    ("duplicates", "rating"), [("first", 4.0), ("last", 2.0), ("mean", 3.0), ("max", 4.0), ("sum", 9.0)]
)
def test_several_ratings_of_a_pair_become_one(tmp_path, duplicates, rating):
    (tmp_path / "r.csv").write_text(DUPLICATES)
    changes = {"path": str(tmp_path / "r.csv"), "timestamp_column": "t"}
    data = load_dataset(config("ratings_file", duplicates=duplicates, **changes))
    assert data.matrix(data.rating_values).toarray().tolist() == [[rating], [1.0]]
    assert (data.rating_min, data.rating_max) == (1.0, rating)
    with pytest.raises(UserError, match=r"user 1 rates item 5 more than once \(2 repeated ratings, first on line 4\)"):
        load_dataset(config("ratings_file", **changes))

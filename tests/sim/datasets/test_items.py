"""Item tables: read for the items of a data set, kept in run folders, refused with the reason."""

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.datasets.items import ItemsConfig, items_of_run, load_items, write_items
from sim.datasets.log_settings import LogConfig
from sim.datasets.rating_settings import DataConfig
from sim.tables.items import ALWAYS, ITEMS_FILE, ItemTable, read_item_table

SHOP = """\
item,title,categories,from,until
7,"Jacket, blue",clothes | men,2024-01-01,2024-03-01
9,Hat,,,
8,Shoe,clothes,2024-02-01,n/a
7,Another jacket,none,,
1,Not in the data,x,,
"""
COLUMNS = {
    "categories_column": "categories",
    "available_from_column": "from",
    "available_until_column": "until",
    "missing_values": ["n/a"],
}
FEBRUARY, MARCH = 1_706_745_600, 1_709_251_200


def table_of(path: Path, item_ids: list, **settings) -> ItemTable:
    data = read_settings(DataConfig, composed_values("train", ["data=ratings_file", "data.path=x.csv"])["data"])
    table = load_items(ItemsConfig(path=str(path), **settings), data, np.array(item_ids), synthetic=False)
    assert table is not None
    return table


@pytest.fixture
def shop(tmp_path) -> ItemTable:
    (tmp_path / "shop.csv").write_text(SHOP)
    return table_of(tmp_path / "shop.csv", [5, 7, 8, 9], **COLUMNS)


def test_what_a_table_says_of_the_items_of_the_data(shop):
    assert shop.titles == ("", "Jacket, blue", "Shoe", "Hat")
    assert [shop.label(item) for item in range(4)] == ["5", "Jacket, blue", "Shoe", "Hat"]
    assert [shop.categories_of(item) for item in range(4)] == [[], ["clothes", "men"], ["clothes"], []]
    np.testing.assert_array_equal(shop.category_matrix().toarray(), [[0, 0], [1, 1], [1, 0], [0, 0]])
    assert shop.has_row.tolist() == [False, True, True, True]
    assert "3 of 4 items have a row; 1 of 5 rows are of other items; 1 repeat an item" in shop.describe()
    assert shop.counts() == {
        "rows": 5,
        "items_with_row": 3,
        "items_without_row": 1,
        "rows_of_other_items": 1,
        "repeated_rows": 1,
    }


def test_when_items_can_be_recommended(shop):
    assert shop.has_dates
    assert shop.available_from[0] == -ALWAYS
    assert shop.available_until[2] == ALWAYS
    assert shop.available_at(FEBRUARY - 1).tolist() == [True, True, False, True]
    assert shop.available_at(FEBRUARY).tolist() == [True, True, True, True]
    assert shop.available_at(MARCH).tolist() == [True, False, True, True]


def test_a_run_folder_keeps_it(shop, tmp_path):
    shop.write(tmp_path)
    stored = read_item_table(tmp_path)
    for name in vars(shop):
        np.testing.assert_array_equal(getattr(stored, name), getattr(shop, name), err_msg=name)
    (tmp_path / ITEMS_FILE).write_bytes((tmp_path / ITEMS_FILE).read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged"):
        read_item_table(tmp_path)
    assert read_item_table(tmp_path / "elsewhere") is None


def test_a_table_without_titles_and_categories_is_kept(tmp_path):
    (tmp_path / "items.csv").write_text("item\n7\n8\n")
    table_of(tmp_path / "items.csv", [7, 9], title_column=None).write(tmp_path)
    stored = read_item_table(tmp_path)
    assert stored is not None
    assert [stored.label(0), stored.categories_of(0), stored.category_matrix().shape] == ["7", [], (2, 0)]


def test_a_continued_run_takes_the_table_of_its_folder(shop, tmp_path, capfd):
    data = read_settings(DataConfig, composed_values("train", ["data.size=tiny"])["data"])
    folders = [tmp_path / "seed_0", tmp_path / "seed_1"]
    write_items(shop, folders)
    write_items(shop, folders)
    assert capfd.readouterr().err.count("3 of 4 items") == 1
    gone = ItemsConfig(path=str(tmp_path / "gone.csv"))
    found = items_of_run(gone, data, shop.item_ids, False, folders[1:])
    assert found is not None
    assert found.titles == shop.titles
    with pytest.raises(UserError, match="other items"):
        items_of_run(gone, data, shop.item_ids[1:], False, folders)
    with pytest.raises(UserError, match=r"gone\.csv"):
        items_of_run(gone, data, shop.item_ids, False, [tmp_path / "new"])
    write_items(None, [tmp_path / "new"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("ids", "written"),
    [([7, 10], ["7.0", "10.0"]), (["007", "x"], ["007", "x"]), (["7.0", "x"], ["7.0", "x"]), ([2**60], [str(2**60)])],
)
def test_ids_are_those_of_the_data(tmp_path, ids, written):
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"{text},title {text}\n" for text in written))
    assert table_of(tmp_path / "items.csv", ids).titles == tuple(f"title {text}" for text in written)


def test_parquet_with_dates_and_missing_values(tmp_path):
    frame = pl.DataFrame(
        {"sku": [9.0, 7.0], "title": ["Hat", None], "from": [None, FEBRUARY * 1000], "kind": ["a|b", "c"]}
    )
    frame = frame.with_columns(pl.col("from").cast(pl.Datetime("ms")))
    frame.write_parquet(tmp_path / "items.parquet")
    columns = {"id_column": "sku", "categories_column": "kind", "category_separator": None}
    table = table_of(tmp_path / "items.parquet", [7, 9], available_from_column="from", **columns)
    assert table.titles == ("", "Hat")
    assert table.available_from.tolist() == [FEBRUARY, -ALWAYS]
    assert [table.categories_of(item) for item in range(2)] == [["c"], ["a|b"]]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (
            "item,title\n1,A\n2,B\n",
            {},
            r"none of its 2 ids, such as '1', is one of the 2 items .* such as '7'.*id_column",
        ),
        ("item;title\n7;A\n", {"id_column": "sku"}, r"no column 'sku'.*items\.separator"),
        ("item,from\n7,soon\n", {"title_column": None, "available_from_column": "from"}, r"line 2: from 'soon' is not"),
        (
            "item,title,a,b\n7,A,20,10\n",
            {"available_from_column": "a", "available_until_column": "b"},
            "line 2: b '10' is before the item is available",
        ),
        (
            "item,title,new\n7,A,2\n",
            {"category_flags": ["new"]},
            "new '2' is not one of '0', '1'.*items.category_flags",
        ),
        ("item,title\n7,\xe9\n", {}, r"not valid UTF-8.*items\.encoding"),
        ("item,title\n", {}, "no rows"),
    ],
)
def test_what_is_wrong_is_said_with_the_key_that_helps(tmp_path, text, settings, message):
    (tmp_path / "items.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        table_of(tmp_path / "items.csv", [7, 8], **settings)
    assert "data." not in f"{error.value.what} {error.value.do}"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"separator": "123456789"}, "items.separator"),
        ({"encoding": "martian"}, "items.encoding"),
        ({"category_flags": ["x"], "categories_column": "y"}, "items.category_flags"),
    ],
)
def test_impossible_settings(settings, key):
    with pytest.raises(UserError, match=key):
        ItemsConfig(**settings)


LAYOUTS = {
    "movielens_1m": (
        "ml-1m/ratings.dat",
        "movies.dat",
        "1::Les Mis\xe9rables (1995)::Drama|Musical\n".encode("latin-1"),
    ),
    "movielens_10m": ("ml-10M100K/ratings.dat", "movies.dat", "1::Les Mis\xe9rables (1995)::Drama|Musical\n".encode()),
    "movielens_20m": (
        "ml-20m/ratings.csv",
        "movies.csv",
        'movieId,title,genres\n1,"Les ""Mis\xe9rables"" (1995)",Drama|Musical\n2,X,(no genres listed)\n'.encode(),
    ),
    "movielens_100k": (
        "ml-100k/u.data",
        "u.item",
        ("1|Les Mis\xe9rables (1995)|01-Jan-1995||http://x|" + "0|" * 8 + "1|0|0|0|1|" + "0|" * 5 + "0\n").encode(
            "latin-1"
        ),
    ),
}


@pytest.mark.parametrize("preset", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_presets_fill_it_from_beside_their_ratings(tmp_path, preset, packed):
    ratings, name, text = LAYOUTS[preset]
    folder = (tmp_path / ratings).parent
    values = composed_values("train", [f"data={preset}", f"data.root={tmp_path}"])
    if packed:
        with zipfile.ZipFile(tmp_path / values["data"]["archive"], "w") as archive:
            archive.writestr(ratings, "1::1::5::1\n")
            archive.writestr(f"{folder.name}/{name}", text)
    else:
        folder.mkdir()
        (tmp_path / ratings).write_text("1::1::5::1\n")
    config, data = read_settings(ItemsConfig, values["items"]), read_settings(DataConfig, values["data"])
    if not packed:
        assert load_items(config, data, np.array([1, 2]), False) is None
        (folder / name).write_bytes(text)
    table = load_items(config, data, np.array([1, 2]), False)
    assert table is not None
    assert table.titles[0].replace('"', "") == "Les Mis\xe9rables (1995)"
    assert [table.categories_of(item) for item in (0, 1)] == [["Drama", "Musical"], []]
    assert load_items(config, data, np.array([1, 2]), synthetic=True) is None


def test_other_data_sets_have_none():
    values = composed_values("train_hrl_mg", ["data=events_csv", "data.path=x.csv", "items.path=y.csv"])
    assert read_settings(ItemsConfig, values["items"]) == ItemsConfig(path="y.csv")
    assert read_settings(LogConfig, values["data"]).item_column == "item"

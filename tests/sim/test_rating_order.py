"""The order of a user's ratings in time, through the reader and the cache."""

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from harness.errors import UserError
from harness.settings import read_settings
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import load_dataset

# User 1 rates items 30, 10, 20 in one second, which is after item 40; user 2 comes in between.
TEXT = "user,item,rating,time\n1,30,5,200\n2,10,3,100\n1,10,4,200\n1,20,1,200\n1,40,2,150\n"


def config(tmp_path, *overrides: str) -> DataConfig:
    path = tmp_path / "ratings.csv"
    path.write_text(TEXT)
    with initialize_config_module("conf", version_base="1.3"):
        values = compose(
            "data_statistics",
            overrides=["data=ratings_file", f"data.path={path}", f"data.cache={tmp_path / 'cache'}", *overrides],
        ).data
    return read_settings(DataConfig, values, "data")


def test_ties_keep_the_order_of_the_file_if_asked_for(tmp_path):
    settings = config(tmp_path, "data.timestamp_column=time")
    plain = load_dataset(settings)
    assert plain.source_rows is None
    for _ in range(2):  # parsed, then from the cache
        data = load_dataset(settings, keep_source_rows=True)
        order = data.rows_by_time()
        assert data.item_ids[data.items[order]].tolist() == [40, 30, 10, 20, 10]
        assert data.rating_values[data.codes[order]].tolist() == [2, 5, 4, 1, 3]
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert plain.item_ids[plain.items[plain.rows_by_time()]].tolist() == [40, 10, 20, 30, 10]
    for field in ("items", "codes", "timestamps", "indptr"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(data, field))


def test_ratings_without_times_have_no_order(tmp_path):
    data = load_dataset(config(tmp_path), keep_source_rows=True)
    with pytest.raises(UserError, match=r"ratings_file has no timestamps.*\n.*data\.timestamp_column"):
        data.rows_by_time()

"""Training called from Python."""

import json

import numpy as np
import polars as pl
import pytest

import hrlmg_jax
import tpgr_jax
from harness.errors import UserError
from harness.training.from_python import overrides_of

SMALL = {"train": {"steps": 2, "episodes_per_step": 32}, "env": {"episode_length": 8}}


@pytest.fixture(scope="module")
def ratings() -> pl.DataFrame:
    random = np.random.default_rng(0)
    pairs = pl.DataFrame({"user": random.integers(0, 60, 1500), "item": random.integers(0, 40, 1500)}).unique()
    return pairs.sort("user", "item").with_columns(rating=pl.Series(random.integers(1, 6, len(pairs))))


def test_keywords_become_the_overrides_of_the_command():
    given = {
        "train": {"steps": 3},
        "env.alpha": 0.2,
        "tree": "kmeans",
        "experiment": "movielens",
        "data": {"fold": None},
    }
    assert overrides_of(given) == [
        "tree=kmeans",
        "+experiment=movielens",
        "train.steps=3",
        "env.alpha=0.2",
        "data.fold=null",
    ]


def test_a_data_frame_trains_and_stays_in_the_run_folder(ratings, tmp_path):
    folder = tmp_path / "run"
    recommender = tpgr_jax.train(ratings, folder=folder, data={"test_fraction": 0}, **SMALL)
    assert recommender.source == str(folder)
    assert len(recommender.recommend([5], k=3).frame()) == 3
    assert pl.read_parquet(folder / "ratings.parquet").equals(ratings)
    assert json.loads((folder / "run.json").read_text())["data"]["ratings"] == len(ratings)
    with pytest.raises(UserError, match="already holds a run's data"):
        tpgr_jax.train(ratings, folder=folder, **SMALL)


def test_a_table_and_its_file_are_the_same_data(ratings, tmp_path):
    ratings.write_csv(tmp_path / "ratings.csv")
    tables = (ratings, ratings.to_dict(), tmp_path / "ratings.csv")
    hashes = set()
    for number, table in enumerate(tables):
        tpgr_jax.train(table, "popularity", folder=tmp_path / str(number), env={"episode_length": 8})
        hashes.add(json.loads((tmp_path / str(number) / "run.json").read_text())["data"]["table"])
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("change", "settings", "part"),
    [
        (lambda frame: frame.rename({"item": "film"}), {}, "has no column 'item'"),
        (lambda frame: [1, 2], {}, "a list is not a table"),
        (lambda frame: {"user": [1], "item": [1, 2]}, {}, "make no table"),
        (lambda frame: frame, {"train": {"stepz": 3}}, "stepz"),
        (lambda frame: frame, {"num_seeds": 2}, "num_seeds=2 trains several"),
        (lambda frame: frame, {"env": {"episode_length": 1000}}, "episode_length"),
    ],
)
@pytest.mark.parametrize("train", [tpgr_jax.train])
def test_mistakes_leave_nothing_behind(ratings, tmp_path, monkeypatch, change, settings, part, train):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=part):
        train(change(ratings), **settings)
    assert not list(tmp_path.iterdir())


def test_a_log_is_read_by_the_second_system(tmp_path):
    with pytest.raises(UserError, match="has no column 'time'"):
        hrlmg_jax.train({"user": [1], "item": [2], "event": ["click"]}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()

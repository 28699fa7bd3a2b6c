"""The hash of a table: of its content, and of nothing else."""

import dataclasses

import numpy as np
import pytest

from hand_made import hand_made_log, hand_made_ratings
from sim.tables import events, ratings, table_hash
from sim.tables.table_hash import hashed

RATINGS = hand_made_ratings([1, 1, 2], [5, 7, 5], [1.0, 4.5, 3.0])
LOG = hand_made_log([0, 0, 1], [2, 1, 2], [0, 2, 1])


def ratings_hash(**changes) -> str:
    return hashed(dataclasses.replace(RATINGS, **changes), ratings.HASHED).table_hash


def log_hash(**changes) -> str:
    return hashed(dataclasses.replace(LOG, **changes), events.HASHED).table_hash


def changed(values: np.ndarray) -> np.ndarray:
    return np.array([*values[:-1], values[-1] + 1], values.dtype)


@pytest.mark.parametrize("name", ["user_ids", "item_ids", "indptr", "items", "codes", "rating_values"])
def test_a_value_of_a_rating_table_changes_its_hash(name):
    assert ratings_hash(**{name: changed(getattr(RATINGS, name))}) != ratings_hash()


def test_scale_and_times_change_the_hash_of_ratings_and_names_do_not():
    times = [None, np.array([1, 2, 3]), np.array([1, 2, 4])]
    hashes = [ratings_hash(timestamps=time) for time in times] + [ratings_hash(rating_max=10)]
    assert len(set(hashes)) == 4
    assert ratings_hash(name="other", source="elsewhere", checksum="?", source_rows=np.arange(3)) == ratings_hash()


@pytest.mark.parametrize("name", [name for name in events.HASHED if isinstance(getattr(LOG, name), np.ndarray)])
def test_a_value_of_a_log_changes_its_hash(name):
    values = getattr(LOG, name)
    other = ~values if values.dtype == bool else changed(values)
    assert log_hash(**{name: other}) != log_hash()


def test_what_else_is_said_of_a_log():
    others = {log_hash(), log_hash(synthetic_skips=True), log_hash(order_proxy="is_like")}
    assert len(others) == 3
    assert log_hash(probabilities=np.ones((3, 3)), name="other") == log_hash()


def test_the_hash_depends_on_no_block_size_and_on_the_order(monkeypatch):
    whole = ratings_hash()
    monkeypatch.setattr(table_hash, "_BLOCK", 2)
    assert ratings_hash() == whole
    assert ratings_hash(codes=RATINGS.codes[::-1]) != whole
    assert whole.startswith("sha256:")
    assert len(whole) == 71

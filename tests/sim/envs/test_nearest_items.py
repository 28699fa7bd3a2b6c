"""Nearest items against brute force in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.envs import nearest_items as nearest
from sim.envs.nearest_items import best_available, k_largest, map_rows, similarity

partition = jax.jit(k_largest, static_argnums=1)


@pytest.mark.parametrize("measure", ["euclidean", "inner"])
def test_similarity_orders_items_by_distance_or_product(measure):
    generator = np.random.default_rng(0)
    query, vectors = generator.normal(size=(5, 3)), generator.normal(size=(20, 3)) * generator.gamma(2, size=(20, 1))
    found = similarity(jnp.asarray(query), jnp.asarray(vectors), measure)
    for q, row in zip(query, np.asarray(found), strict=True):
        near = [-np.linalg.norm(q - v) if measure == "euclidean" else float(q @ v) for v in vectors]
        assert np.argsort(-row).tolist() == np.argsort(-np.array(near)).tolist()


def test_the_best_available_item_has_the_highest_score_of_the_rest():
    scores = jnp.asarray([0.5, 3.0, -1.0, 2.0])
    assert int(best_available(scores, jnp.asarray([-1, -1, -1]))) == 1
    assert int(best_available(scores, jnp.asarray([1, -1, -1]))) == 3
    assert int(best_available(scores, jnp.asarray([3, 0, 1]))) == 2


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 5, 6, 7, 100])
def test_rows_are_mapped_alike_however_many_at_a_time(monkeypatch, at_a_time):
    monkeypatch.setattr(nearest, "NUMBERS_AT_A_TIME", 10 * at_a_time)
    rows = {"a": np.arange(12.0).reshape(6, 2), "b": np.arange(6)}
    shapes = []

    def function(row):
        shapes.append(row["a"].shape)
        return row["a"].sum() * 100 + row["b"]

    found = jax.jit(lambda rows: map_rows(function, rows, numbers_per_row=10))(rows)
    np.testing.assert_array_equal(found, rows["a"].sum(1) * 100 + rows["b"])
    assert set(shapes) == {(2,)}


scores_with_ties = st.sampled_from([-np.inf, -3.5, -1e-30, 0.0, 1e-30, 0.25, 3.5, 1e30])
any_scores = st.floats(width=32, allow_nan=False)


@pytest.mark.parametrize(("size", "k"), [(1, 1), (5, 5), (64, 1), (100, 37), (130, 129)])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_partition_finds_the_largest_and_of_equal_ones_the_first(size, k, data):
    drawn = data.draw(st.lists(scores_with_ties | any_scores, min_size=size, max_size=size))
    scores = np.array(drawn, np.float32) + 0.0  # no -0.0, which is equal to 0.0
    expected = np.sort(np.argsort(-scores, kind="stable")[:k])
    assert np.array_equal(partition(jnp.asarray(scores), k), expected)

"""Item vectors for the clustering: what they recover, and that only the given users are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from hand_made import hand_made_ratings
from harness.errors import UserError
from harness.settings import read_settings
from sim.generators import ratings as synthetic
from sim.tables.ratings import HASHED, RatingData
from sim.tables.table_hash import hashed
from tpgr_jax.models.matrix_factorisation import factor_vectors, factorise, stored_factor_vectors
from tpgr_jax.tree import item_vae
from tpgr_jax.tree.item_tree import TreeConfig
from tpgr_jax.tree.item_vae import vae_vectors
from tpgr_jax.tree.item_vectors import build_item_tree, item_vectors


def tree_config(clustering: str = "pca", vectors: str = "rating", vector_size: int = 4, epochs: int = 2) -> TreeConfig:
    return TreeConfig(
        depth=2, clustering=clustering, vectors=vectors, vector_size=vector_size, vector_epochs=epochs, seed=0
    )


TREE_SETTINGS = {"depth": 2, "clustering": "pca", "vectors": "mf", "vector_size": 8, "vector_epochs": 3, "seed": 0}


def as_data(table: np.ndarray) -> RatingData:
    """Ratings from a [U, I] table; NaN = not rated."""
    users, items = np.nonzero(~np.isnan(table))
    return hand_made_ratings(users, items, table[users, items], 0.5, 5)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray]:
    """A [150, 80] matrix of rank two plus biases (and a little noise), and which half of it is observed."""
    generator = np.random.default_rng(0)
    users, items = generator.choice([-1, 1], (150, 2)), generator.normal(size=(80, 2))
    bias = 0.3 * generator.normal(size=(150, 1)) + 0.4 * generator.normal(size=80)
    matrix = 3 + bias + 0.6 * users @ items.T + 0.05 * generator.normal(size=(150, 80))
    observed = generator.random(matrix.shape) < 0.5
    observed[np.arange(80), np.arange(80)] = True
    return np.round(np.clip(matrix, 0.5, 5), 2), observed


def test_factorisation_recovers_a_planted_matrix(planted: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, observed = planted
    model = factorise(as_data(np.where(observed, matrix, np.nan)), np.arange(150), size=3, epochs=120, seed=0)
    assert model["user_factors"].shape == (150, 3)
    assert model["item_factors"].shape == (80, 3)
    predicted = 5 * (
        model["mean"]
        + model["user_bias"][:, None]
        + model["item_bias"]
        + model["user_factors"] @ model["item_factors"].T
    )

    def held_out_error(prediction: np.ndarray) -> float:
        return float(np.sqrt(np.mean((prediction - matrix)[~observed] ** 2)))

    # The best additive model of the observed part, by alternating means.
    user_bias, item_bias = np.zeros((150, 1)), np.zeros(80)
    seen = np.where(observed, matrix, np.nan)
    for _ in range(20):
        user_bias = np.nanmean(seen - item_bias, axis=1, keepdims=True)
        item_bias = np.nanmean(seen - user_bias, axis=0)
    assert held_out_error(predicted) < 0.5 * held_out_error(user_bias + item_bias)
    assert held_out_error(predicted) < 0.3 * held_out_error(np.full(matrix.shape, seen[observed].mean()))
    assert model["mean"] == pytest.approx(seen[observed].mean() / 5, abs=1e-5)
    assert np.corrcoef(model["item_bias"], item_bias)[0, 1] > 0.9


def changed_outside(matrix: np.ndarray, observed: np.ndarray, users: np.ndarray) -> tuple[RatingData, RatingData]:
    """Two data sets that agree for the given users and differ for all others."""
    table = np.where(observed, matrix, np.nan)
    other = table.copy()
    rest = np.setdiff1d(np.arange(len(table)), users)
    other[rest] = np.where(np.isnan(other[rest])[:, ::-1], 1.25, 4.75)
    return as_data(table), as_data(other)


@pytest.mark.parametrize("vectors", ["rating", "mf", "vae"])
def test_vectors_depend_on_the_given_users_only(planted: tuple[np.ndarray, np.ndarray], vectors: str) -> None:
    users = np.arange(0, 150, 2)
    data, other = changed_outside(*planted, users)
    assert np.any(data.matrix(data.rating_values).toarray() != other.matrix(other.rating_values).toarray())
    config = tree_config(vectors=vectors, vector_size=3)
    first, second = item_vectors(config, data, users), item_vectors(config, other, users)
    if scipy.sparse.issparse(first):
        first, second = first.toarray(), second.toarray()
    np.testing.assert_array_equal(first, second)


def test_rating_vectors_stay_sparse_and_are_the_columns_of_the_given_users() -> None:
    data = synthetic.generate("tiny")
    users = np.sort(np.random.default_rng(0).permutation(data.num_users)[:150])
    vectors = item_vectors(tree_config(vectors="rating"), data, users)
    assert scipy.sparse.issparse(vectors)
    assert vectors.shape == (data.num_items, 150)
    expected = np.zeros((data.num_items, 150))
    for column, user in enumerate(users):
        rows = slice(data.indptr[user], data.indptr[user + 1])
        expected[data.items[rows], column] = data.rating_values[data.codes[rows]]
    np.testing.assert_array_equal(vectors.toarray(), expected)
    assert vectors.nnz == np.count_nonzero(expected)


def test_factor_vectors_have_unit_spread_and_hold_the_bias_last(planted: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, observed = planted
    data = as_data(np.where(observed, matrix, np.nan))
    vectors = factor_vectors(data, np.arange(150), 3, 2, 0)
    assert vectors.shape == (80, 3)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors.std(axis=0), 1, rtol=1e-4)
    bias = factorise(data, np.arange(150), 2, 2, 0)["item_bias"]
    np.testing.assert_allclose(vectors[:, -1], bias / bias.std(), rtol=1e-4)


def test_kept_factors_are_those_of_one_table(planted: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """Two columns of one file as ratings: the same checksum, users, items and number of ratings."""
    matrix, observed = planted
    tables = [hashed(as_data(np.where(observed, values, np.nan)), HASHED) for values in (matrix, 5.5 - matrix)]
    first, other, again = (stored_factor_vectors(tmp_path, tables[i], np.arange(150), 3, 2, 0) for i in (0, 1, 0))
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_number_per_item_is_the_bias_alone(planted: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, observed = planted
    vectors = factor_vectors(as_data(np.where(observed, matrix, np.nan)), np.arange(150), 1, 2, 0)
    assert vectors.shape == (80, 1)
    assert np.all(np.isfinite(vectors))


def test_auto_encoder_separates_planted_groups_over_several_uneven_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    num_items, num_users, batch = 70, 30, 32
    monkeypatch.setattr(item_vae, "_DENSE_NUMBERS_PER_BATCH", batch * num_users)
    generator = np.random.default_rng(0)
    group = np.arange(num_items) % 2
    likes = (np.arange(num_users) >= num_users // 2).astype(int)
    rated = generator.random((num_items, num_users)) < np.where(group[:, None] == likes, 0.7, 0.05)
    ratings = np.where(rated, generator.integers(1, 6, rated.shape), 0).astype(np.float32)
    ratings[68] = 0  # an item without ratings must not do harm
    ratings[69] = ratings[1]  # the last, incomplete batch sees the same vector as the first
    vectors = vae_vectors(scipy.sparse.csr_array(ratings), size=3, epochs=60, seed=0)
    assert vectors.shape == (num_items, 3)
    assert vectors.dtype == np.float32
    assert np.all(np.isfinite(vectors))
    np.testing.assert_allclose(vectors[69], vectors[1], atol=1e-5)
    vectors, group = np.delete(vectors, 68, axis=0), np.delete(group, 68)
    centres = np.stack([vectors[group == side].mean(axis=0) for side in (0, 1)])
    distances = np.linalg.norm(vectors[:, None] - centres, axis=-1)
    assert np.mean(np.argmin(distances, axis=1) == group) > 0.97
    spread = np.sqrt(np.mean(np.min(distances, axis=1) ** 2))
    assert np.linalg.norm(centres[0] - centres[1]) > 1.5 * spread


@pytest.mark.parametrize("vectors", ["rating", "mf", "vae"])
def test_trees_of_every_kind_hold_each_item_once_in_balance(vectors: str) -> None:
    data = synthetic.generate("tiny")
    users = np.arange(160)
    for clustering in ("pca", "kmeans", "random"):
        tree = build_item_tree(tree_config(clustering, vectors), data, users)
        assert (tree.num_items, tree.num_children, tree.depth) == (100, 10, 2)
        np.testing.assert_array_equal(np.sort(tree.leaf_items[tree.leaf_items >= 0]), np.arange(100))
        np.testing.assert_array_equal(tree.leaf_items[tree.item_leaf], np.arange(100))
        np.testing.assert_array_equal(tree.sizes[0], np.full(10, 10))
        again = build_item_tree(tree_config(clustering, vectors), data, users)
        np.testing.assert_array_equal(again.leaf_items, tree.leaf_items)


@pytest.mark.parametrize("clustering", ["pca", "kmeans"])
def test_the_clustering_follows_the_planted_groups(clustering: str) -> None:
    """Two groups of items rated by different users end up in different halves of a binary tree."""
    table = np.full((40, 16), np.nan)
    generator = np.random.default_rng(1)
    group = generator.permutation(np.arange(16) % 2)
    for user in range(40):
        table[user, (group == user % 2) & (generator.random(16) < 0.9)] = 4
    config = TreeConfig(depth=4, clustering=clustering, vectors="rating", vector_size=4, vector_epochs=1, seed=0)
    halves = build_item_tree(config, as_data(table), np.arange(40)).item_paths[:, 0]
    assert len(set(halves[group == 0])) == len(set(halves[group == 1])) == 1
    assert set(halves) == {0, 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("depth", 0),
        ("depth", -1),
        ("clustering", "ward"),
        ("clustering", "PCA"),
        ("vectors", "bert"),
        ("vector_size", 0),
        ("vector_epochs", 0),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_wrong_tree_settings_are_refused_by_name(key: str, value: Any) -> None:
    assert read_settings(TreeConfig, TREE_SETTINGS, "tree") == TreeConfig(**TREE_SETTINGS)
    with pytest.raises(UserError, match=rf"^tree\.{key} is "):
        read_settings(TreeConfig, TREE_SETTINGS | {key: value}, "tree")

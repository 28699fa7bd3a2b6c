"""Item vectors against NumPy's own decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from hand_made import hand_made_ratings
from sim.envs.rating_env import empirical_rewards
from sim.tables.ratings import RatingData
from tpgr_jax.models.item_actions import VectorConfig, action_vectors, reward_vectors, scaled_vectors


def make_ratings() -> tuple[RatingData, np.ndarray]:
    """Ratings of 12 users and their empirical rewards [12, 7]."""
    table = np.random.default_rng(0).integers(0, 6, (12, 7))
    table[0], table[:, 0] = 5, 1
    users, items = np.nonzero(table)
    return hand_made_ratings(users, items, table[users, items], 1, 5), np.where(table > 0, 2 * table / 5 - 1, 0.0)


def test_reward_vectors_are_the_best_low_rank_model_of_the_users_rewards() -> None:
    data, rewards = make_ratings()
    users = np.arange(9)  # the others must not matter
    found = reward_vectors(data, users, empirical_rewards(data, "half_open"), 3)
    _, singular, right = np.linalg.svd(rewards[users])
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), singular[:3], rtol=1e-5)
    # Vectors have no sign of their own; their products do.
    expected = (right[:3].T * singular[:3] ** 2) @ right[:3]
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-4)


def test_more_columns_than_the_rank_are_zero() -> None:
    data, _ = make_ratings()
    found = reward_vectors(data, np.arange(12), empirical_rewards(data, "half_open"), 10)
    assert found.shape == (7, 10)
    assert (np.abs(found[:, :6]).max(0) > 0).all()
    np.testing.assert_array_equal(found[:, 6:], 0)


def test_without_rewards_all_vectors_are_zero() -> None:
    data, _ = make_ratings()
    np.testing.assert_array_equal(reward_vectors(data, np.arange(12), np.zeros(6), 3), 0)


@pytest.mark.parametrize("kind", ["svd", "mf"])
def test_vectors_repeat_and_lie_in_the_unit_ball(kind: str) -> None:
    data, _ = make_ratings()
    rewards = empirical_rewards(data, "half_open")
    config = VectorConfig(vectors=kind, vector_size=3, vector_epochs=1, vector_length="at_most_one")
    first, again = (action_vectors(config, data, np.arange(12), rewards, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (7, 3)
    norms = np.linalg.norm(first, axis=1)
    assert norms.max() == pytest.approx(1)
    assert norms.min() < 0.9


def test_scaling_by_hand() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [0.6, 0.0]])
    np.testing.assert_allclose(scaled_vectors(vectors, "unit"), [[0.6, 0.8], [0, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(scaled_vectors(vectors, "at_most_one"), [[0.6, 0.8], [0, 0], [0.12, 0]], atol=1e-6)

"""GreedySVD: the fold-in against numpy.linalg.lstsq, and what it predicts against the factorisation itself."""

import jax
import numpy as np
import pytest
from bandit_problem import (
    LENGTH,
    NUM_ITEMS,
    TEST_USERS,
    TRAIN_USERS,
    is_best_left,
    make_data,
    make_simulator,
    make_table,
    play_and_keep,
    reward_table,
)

from hand_made import hand_made_ratings
from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.rating_env import empirical_rewards
from tpgr_jax.baselines.greedy_svd import GreedySVDConfig, fit_greedy_svd, greedy_svd_policy
from tpgr_jax.models.matrix_factorisation import factorise


def make_config(**changes):
    values = {"target": "rating", "factors": 3, "epochs": 200, "ridge": 0.3}
    return read_settings(GreedySVDConfig, values | changes, "agent.policy")


@pytest.fixture(scope="module")
def problem():
    table = make_table()
    data = make_data(table)
    return data, reward_table(table), *make_simulator(data)


@pytest.mark.parametrize("target", ["rating", "reward"])
def test_the_fold_in_is_the_ridge_regression_on_the_answers_that_count(problem, target):
    data, _, env, env_params, reward_of_code = problem
    params = fit_greedy_svd(make_config(target=target), data, TRAIN_USERS, reward_of_code, 0)
    played = play_and_keep(env, env_params, greedy_svd_policy(), params, TEST_USERS)
    items, answers, beliefs = jax.tree.map(np.asarray, played)
    base, features = np.asarray(params.base, np.float64), np.asarray(params.features, np.float64)
    size = features.shape[1]
    assert size == (4 if target == "rating" else 3)  # a user bias belongs to ratings
    assert (answers == 0).any()
    for b in range(len(TEST_USERS)):
        for t in range(LENGTH):
            past, seen = items[:t, b], answers[:t, b]
            counted = seen != 0 if target == "rating" else np.ones(t, bool)
            # Ridge regression as least squares with rows sqrt(ridge) * identity and targets 0 added.
            rows = np.concatenate([features[past[counted]], np.sqrt(0.3) * np.eye(size)])
            targets = np.concatenate([seen[counted] - base[past[counted]], np.zeros(size)])
            vector = np.linalg.lstsq(rows, targets)[0]
            np.testing.assert_allclose(beliefs.mean[t, b], vector, atol=1e-4)
            assert is_best_left(items[t, b], base + features @ vector, past)
    assert len({tuple(row) for row in items.T}) > 3  # users are told apart


@pytest.mark.parametrize("scale", ["half_open", "symmetric"])
def test_predictions_are_ratings_in_units_of_the_reward(problem, scale):
    data, *_ = problem
    reward_of_code = empirical_rewards(data, scale)
    params = fit_greedy_svd(make_config(), data, TRAIN_USERS, reward_of_code, 7)
    model = factorise(data, TRAIN_USERS, 3, 200, 7)
    ratings = 5 * (model["mean"] + model["item_bias"])
    expected = 2 * ratings / 5 - 1 if scale == "half_open" else (ratings - 3) / 2
    np.testing.assert_allclose(params.base, expected, atol=1e-5)
    np.testing.assert_array_equal(params.features[:, :3], model["item_factors"])
    assert not params.unrated_answers


def test_the_first_item_is_the_one_with_the_highest_mean_and_bias(problem):
    data, _, env, env_params, reward_of_code = problem
    params = fit_greedy_svd(make_config(), data, TRAIN_USERS, reward_of_code, 0)
    items, *_ = play_and_keep(env, env_params, greedy_svd_policy(), params, TEST_USERS)
    assert set(items[0].tolist()) == {int(np.argmax(params.base))}


def test_reward_factors_come_from_rewards_with_unrated_as_zero(problem):
    data, rewards, _, _, reward_of_code = problem
    params = fit_greedy_svd(make_config(target="reward"), data, TRAIN_USERS, reward_of_code, 0)
    np.testing.assert_allclose(params.base, rewards[TRAIN_USERS].mean(axis=0), atol=1e-6)
    values, vectors = np.linalg.eigh(np.cov(rewards[TRAIN_USERS].T, bias=True))
    best = vectors[:, -3:] * values[-3:] @ vectors[:, -3:].T
    np.testing.assert_allclose(params.features @ params.features.T, best, atol=1e-5)
    assert params.unrated_answers


def test_one_distinct_rating_is_enough():
    users, items = np.divmod(np.arange(4 * NUM_ITEMS), NUM_ITEMS)
    data = hand_made_ratings(users, items, np.full(4 * NUM_ITEMS, 4))
    params = fit_greedy_svd(make_config(epochs=1), data, np.arange(3), empirical_rewards(data, "half_open"), 0)
    assert np.abs(params.base - 0.6).max() < 0.1


@pytest.mark.parametrize(("key", "value"), [("target", "ratings"), ("factors", 0), ("epochs", 0), ("ridge", 0.0)])
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=f"agent.policy.{key}"):
        make_config(**{key: value})

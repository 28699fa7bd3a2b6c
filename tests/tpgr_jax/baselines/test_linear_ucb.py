"""LinearUCB against its closed form in NumPy at every step of episodes, its features and its prior."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.settings import read_settings
from tpgr_jax.baselines.linear_ucb import LinearUCBConfig, fit_linear_ucb, linear_ucb_policy, upper_bound
from tpgr_jax.models.kalman import KalmanState


def make_config(**changes):
    values = {
        "features": "svd",
        "feature_size": 4,
        "feature_epochs": 2,
        "ridge": 0.1,
        "exploration": 0.3,
        "prior": "zero",
    }
    return read_settings(LinearUCBConfig, values | changes, "agent.policy")


@pytest.fixture(scope="module")
def problem():
    table = make_table()
    data = make_data(table)
    return data, reward_table(table), *make_simulator(data)


def closed_form(features, ridge, prior, exploration, items, answers):
    """Score of every item after answers to items: A = ridge I + X^T X, theta = A^-1 (X^T r + ridge prior)."""
    chosen = features[items]
    matrix = ridge * np.eye(features.shape[1]) + chosen.T @ chosen
    theta = np.linalg.solve(matrix, chosen.T @ answers + ridge * prior)
    width = np.sqrt(np.einsum("ik,kl,il->i", features, np.linalg.inv(matrix), features))
    return features @ theta + exploration * width


@pytest.mark.parametrize("prior", ["zero", "population"])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_every_step_has_the_bounds_of_the_closed_form(problem, prior, ridge):
    data, rewards, env, env_params, reward_of_code = problem
    params = fit_linear_ucb(make_config(prior=prior, ridge=ridge), data, TRAIN_USERS, reward_of_code, 0)
    played = play_and_keep(env, env_params, linear_ucb_policy(), params, TEST_USERS)
    bounds = jax.vmap(upper_bound, (None, 0))(params, played[2])
    items, answers, bounds = np.asarray(played[0]), np.asarray(played[1]), np.asarray(bounds)
    features, theta = np.asarray(params.features, np.float64), np.asarray(params.prior, np.float64)
    assert (np.any(theta != 0)) == (prior == "population")
    np.testing.assert_allclose(answers, rewards[TEST_USERS, items], atol=1e-6)
    for b in range(len(TEST_USERS)):
        for t in range(LENGTH):
            expected = closed_form(features, ridge, theta, 0.3, items[:t, b], answers[:t, b])
            np.testing.assert_allclose(bounds[t, b], expected, atol=2e-4)
            assert is_best_left(items[t, b], bounds[t, b], items[:t, b])
    assert len({tuple(row) for row in items.T}) > 3  # users are told apart


def test_one_answer_by_hand():
    # x = (1, 0), r = 1, ridge 1: A = diag(2, 1), theta = (1/2, 0). Unit noise, prior variance 1 / ridge.
    belief = KalmanState.initial(np.zeros(2), 1.0, 1)
    belief, direction = belief.update(np.array([[1.0, 0]]), np.array([1.0]), 1.0, np.array([True]))
    np.testing.assert_allclose(belief.mean, [[0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(belief.covariance, [[[0.5, 0], [0, 1]]], atol=1e-6)
    np.testing.assert_allclose(direction, [[np.sqrt(0.5), 0]], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 2), st.lists(st.booleans(), min_size=1, max_size=8))
def test_a_posterior_is_that_of_the_observations_that_count(seed, noise, counts):
    generator = np.random.default_rng(seed)
    features, targets = generator.normal(size=(len(counts), 3)), generator.normal(size=len(counts))
    mean, variance = generator.normal(size=3), 0.7
    belief = KalmanState.initial(np.float32(mean), np.float32(variance), 1)
    for row, target, counted in zip(features, targets, counts, strict=True):
        belief, _ = belief.update(np.float32(row[None]), np.float32([target]), np.float32(noise), np.array([counted]))
    kept = features[counts]
    precision = np.eye(3) / variance + kept.T @ kept / noise
    expected = np.linalg.solve(precision, mean / variance + kept.T @ targets[counts] / noise)
    np.testing.assert_allclose(belief.mean[0], expected, atol=1e-4)
    np.testing.assert_allclose(belief.covariance[0], np.linalg.inv(precision), atol=1e-4)
    assert isinstance(belief, KalmanState)


@pytest.mark.parametrize("kind", ["svd", "mf"])
def test_features_have_norms_up_to_one_and_a_constant(problem, kind):
    data, rewards, _, _, reward_of_code = problem
    params = fit_linear_ucb(make_config(features=kind), data, TRAIN_USERS, reward_of_code, 0)
    features = np.asarray(params.features)
    assert features.shape == (NUM_ITEMS, 5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1).max(), 1, rtol=1e-6)
    np.testing.assert_allclose(features[:, -1], np.sqrt(0.5), rtol=1e-6)
    if kind == "svd":  # products of factors are the best approximation of the mean products of rewards
        moments = rewards[TRAIN_USERS].T @ rewards[TRAIN_USERS]
        values, vectors = np.linalg.eigh(moments)
        best = vectors[:, -4:] * values[-4:] @ vectors[:, -4:].T
        products = features[:, :-1] @ features[:, :-1].T
        np.testing.assert_allclose(products / products.max(), best / best.max(), atol=1e-5)


def test_the_prior_of_the_population_is_the_ridge_regression_on_all_rewards(problem):
    data, rewards, _, _, reward_of_code = problem
    params = fit_linear_ucb(make_config(prior="population", ridge=0.5), data, TRAIN_USERS, reward_of_code, 0)
    features = np.asarray(params.features, np.float64)
    rows = np.concatenate([np.tile(features, (len(TRAIN_USERS), 1)), np.sqrt(0.5) * np.eye(5)])
    targets = np.concatenate([rewards[TRAIN_USERS].ravel(), np.zeros(5)])
    np.testing.assert_allclose(params.prior, np.linalg.lstsq(rows, targets)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"), [("features", "vae"), ("feature_size", 0), ("ridge", 0.0), ("exploration", -1.0), ("prior", "x")]
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=f"agent.policy.{key}"):
        make_config(**{key: value})

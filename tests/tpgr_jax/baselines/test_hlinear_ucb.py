"""HLinearUCB against independent NumPy loops: episodes, the items' statistics, and whole rounds of learning."""

import jax
import jax.numpy as jnp
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

from harness.errors import UserError
from harness.settings import read_settings
from tpgr_jax.baselines.hlinear_ucb import (
    HLinearUCBConfig,
    ItemStatistics,
    add_interactions,
    fit_hlinear_ucb,
    hlinear_ucb_policy,
    initial_statistics,
    item_deviation,
    play_interactions,
    with_hidden_features,
)
from tpgr_jax.baselines.linear_ucb import fit_linear_ucb, upper_bound

HIDDEN = 2


def make_config(**changes):
    values = {
        "features": "svd",
        "feature_size": 2,
        "feature_epochs": 2,
        "ridge": 0.5,
        "exploration": 0.2,
        "prior": "population",
        "hidden_size": HIDDEN,
        "item_ridge": 0.7,
        "item_exploration": 0.3,
        "rounds": 3,
        "users_per_round": 4,
    }
    return read_settings(HLinearUCBConfig, values | changes, "agent.policy")


@pytest.fixture(scope="module")
def problem():
    table = make_table()
    data = make_data(table)
    return data, reward_table(table), *make_simulator(data)


class NumpyUser:
    """The user's side of the algorithm, with inverses."""

    def __init__(self, prior, ridge):
        self.matrix, self.vector = ridge * np.eye(len(prior)), ridge * prior

    def learn(self, features, reward):
        self.matrix += np.outer(features, features)
        self.vector += reward * features
        return self.theta

    @property
    def theta(self):
        return np.linalg.solve(self.matrix, self.vector)

    def score(self, features, item_covariance, config):
        hidden = self.theta[-HIDDEN:]
        user_width = np.einsum("ik,kl,il->i", features, np.linalg.inv(self.matrix), features)
        item_width = np.einsum("h,ihg,g->i", hidden, item_covariance, hidden)
        return (
            features @ self.theta
            + config.exploration * np.sqrt(user_width)
            + config.item_exploration * np.sqrt(item_width)
        )


def learned_by_loops(observed, prior, start, rounds_of_users, rewards, config):
    """Whole rounds of learning: C and d of every item after them, from hidden features `start`."""
    matrix = np.stack([config.item_ridge * np.eye(HIDDEN)] * NUM_ITEMS)
    vector = config.item_ridge * start
    for users in rounds_of_users:
        covariance = np.linalg.inv(matrix)
        hidden = np.stack([covariance[item] @ vector[item] for item in range(NUM_ITEMS)])
        hidden /= np.maximum(np.linalg.norm(hidden, axis=1, keepdims=True), 1)
        features = np.hstack([observed, hidden])
        for user in users:
            model, past = NumpyUser(np.append(prior, np.zeros(HIDDEN)), config.ridge), []
            for _ in range(LENGTH):
                score = model.score(features, covariance, config)
                score[past] = -np.inf
                item = int(np.argmax(score))
                theta = model.learn(features[item], rewards[user, item])
                matrix[item] += np.outer(theta[-HIDDEN:], theta[-HIDDEN:])
                vector[item] += theta[-HIDDEN:] * (rewards[user, item] - observed[item] @ theta[:-HIDDEN])
                past.append(item)
    return matrix, vector


@pytest.mark.parametrize("prior", ["zero", "population"])
def test_learning_is_that_of_the_loops(problem, prior):
    data, rewards, env, env_params, reward_of_code = problem
    config = make_config(prior=prior)
    fitted = fit_hlinear_ucb(config, data, TRAIN_USERS, reward_of_code, 3, env, env_params)
    linear = fit_linear_ucb(config, data, TRAIN_USERS, reward_of_code, 3)
    # The same random numbers, for the start and for the users of each round.
    start_key, key = jax.random.split(jax.random.fold_in(jax.random.key(3), 2))
    start = 0.01 * jax.random.normal(start_key, (NUM_ITEMS, HIDDEN))
    user_keys = [jax.random.split(round_key)[0] for round_key in jax.random.split(key, 3)]
    users = [np.asarray(jax.random.choice(user_key, env_params.users, (4,))) for user_key in user_keys]
    observed, theta = np.asarray(linear.features, np.float64), np.asarray(linear.prior, np.float64)
    matrix, vector = learned_by_loops(observed, theta, np.asarray(start, np.float64), users, rewards, config)
    hidden = np.linalg.solve(matrix, vector[:, :, None])[:, :, 0]
    hidden /= np.maximum(np.linalg.norm(hidden, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(fitted.item_covariance, np.linalg.inv(matrix), atol=1e-4)
    np.testing.assert_allclose(fitted.user.features, np.hstack([observed, hidden]), atol=1e-4)
    np.testing.assert_allclose(fitted.user.prior, np.append(theta, [0, 0]), atol=1e-6)
    assert np.abs(hidden - start).max() > 0.05  # something was learned


def test_without_rounds_the_hidden_features_are_the_start(problem):
    data, _, env, env_params, reward_of_code = problem
    fitted = fit_hlinear_ucb(make_config(rounds=0), data, TRAIN_USERS, reward_of_code, 0, env, env_params)
    hidden = np.asarray(fitted.user.features[:, -HIDDEN:])
    assert 0.005 < hidden.std() < 0.02
    np.testing.assert_allclose(fitted.item_covariance, np.tile(np.eye(HIDDEN) / 0.7, (NUM_ITEMS, 1, 1)), rtol=1e-6)


def test_every_step_of_an_evaluation_has_both_confidence_terms(problem):
    data, rewards, env, env_params, reward_of_code = problem
    config = make_config()
    params = fit_hlinear_ucb(config, data, TRAIN_USERS, reward_of_code, 0, env, env_params)
    items, answers, users = play_and_keep(env, env_params, hlinear_ucb_policy(), params, TEST_USERS)
    bounds = jax.vmap(lambda user: upper_bound(params.user, user) + 0.3 * item_deviation(params, user))(users)
    items, answers, bounds = np.asarray(items), np.asarray(answers), np.asarray(bounds)
    features = np.asarray(params.user.features, np.float64)
    for b, user in enumerate(TEST_USERS):
        model = NumpyUser(np.asarray(params.user.prior, np.float64), config.ridge)
        for t in range(LENGTH):
            expected = model.score(features, np.asarray(params.item_covariance, np.float64), config)
            np.testing.assert_allclose(bounds[t, b], expected, atol=1e-4)
            assert is_best_left(items[t, b], bounds[t, b], items[:t, b])
            model.learn(features[items[t, b]], rewards[user, items[t, b]])


def test_interactions_carry_the_users_vector_after_the_answer(problem):
    data, rewards, env, env_params, reward_of_code = problem
    config = make_config()
    params = fit_hlinear_ucb(config, data, TRAIN_USERS, reward_of_code, 0, env, env_params)
    users = jnp.asarray(TRAIN_USERS)
    items, vectors, answers = jax.jit(play_interactions, static_argnums=0)(
        env, env_params, params, users, jax.random.key(0)
    )
    np.testing.assert_allclose(answers, rewards[TRAIN_USERS, items], atol=1e-6)
    for b in range(len(TRAIN_USERS)):
        model = NumpyUser(np.asarray(params.user.prior, np.float64), config.ridge)
        for t in range(LENGTH):
            theta = model.learn(np.asarray(params.user.features[items[t, b]], np.float64), float(answers[t, b]))
            np.testing.assert_allclose(vectors[t, b], theta, atol=1e-4)


def test_interactions_of_one_item_add_up():
    # x = 2, r = 1; theta = (0.25, 1): residual 0.5. theta = (0.5, 3): residual 0.  C += 1 + 9, d += 0.5 + 0.
    statistics = ItemStatistics(jnp.full((2, 1, 1), 0.7), jnp.zeros((2, 1)))
    vectors = jnp.array([[0.25, 1], [0.5, 3]])
    found = add_interactions(statistics, jnp.full((2, 1), 2.0), jnp.array([1, 1]), vectors, jnp.ones(2))
    np.testing.assert_allclose(found.matrix[:, 0, 0], [0.7, 10.7], rtol=1e-6)
    np.testing.assert_allclose(found.vector[:, 0], [0, 0.5], atol=1e-6)


def test_hidden_features_stay_in_the_unit_ball(problem):
    data, *_, reward_of_code = problem
    linear = fit_linear_ucb(make_config(), data, TRAIN_USERS, reward_of_code, 0)
    statistics = initial_statistics(NUM_ITEMS, HIDDEN, 0.5, jax.random.key(0))
    vector = statistics.vector.at[0].set(jnp.array([3.0, 4.0])).at[1].set(jnp.array([0.06, 0.08]))
    params = with_hidden_features(linear, ItemStatistics(statistics.matrix, vector), jnp.float32(0))
    np.testing.assert_allclose(params.user.features[:2, -HIDDEN:], [[0.6, 0.8], [0.12, 0.16]], rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 0), ("item_ridge", 0.0), ("item_exploration", -0.1), ("rounds", -1), ("users_per_round", 0)],
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=f"agent.policy.{key}"):
        make_config(**{key: value})

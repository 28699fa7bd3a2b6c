"""GaussianPosterior against conditioning by numpy.linalg.solve, and its estimates against plain NumPy."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.rating_env import Observation, RatingEnv
from tpgr_jax.baselines.gaussian_posterior import (
    FactorCovariance,
    FullCovariance,
    GaussianPosteriorConfig,
    fit_gaussian_posterior,
    gaussian_posterior_policy,
)
from tpgr_jax.models.reward_moments import principal_axes, reward_covariance, reward_matrix

EPISODES = 3


def make_config(**changes):
    return read_settings(
        GaussianPosteriorConfig, {"noise": 0.02, "factors": None, "covariance_limit_mb": 10.0} | changes, "agent.policy"
    )


@jax.jit
def means_along(params, items, answers):
    """[T + 1, B, I] conditional means before the first and after each of [B, T] answers to items."""
    batch, length = items.shape

    def step(carry, t):
        shown = jnp.arange(length) < t
        observation = Observation(
            step=jnp.full(batch, t),
            recommended=jnp.where(shown, items, -1),
            last_item=jnp.where(t > 0, items[:, t - 1], -1),
            last_reward=jnp.full(batch, 99.0),  # not for this policy
            last_empirical=jnp.where(t > 0, answers[:, t - 1], 0.0),
            status=jnp.zeros((batch, 9)),
        )
        carry = params.update(carry, observation)
        return carry, params.conditional_mean(carry, observation)

    return jax.lax.scan(step, params.initial(batch, length), jnp.arange(length + 1))[1]


def conditioned(mean, covariance, noise, items, answers):
    """Mean of all items given answers with the variances `noise` [I], by the textbook formula."""
    observed = covariance[np.ix_(items, items)] + np.diag(noise[items])
    return mean + covariance[:, items] @ np.linalg.solve(observed, answers - mean[items])


def random_episodes(generator, num_items, length, repeats):
    draw = (lambda: generator.integers(0, num_items, length)) if repeats else lambda: generator.permutation(num_items)
    items = np.stack([draw()[:length] for _ in range(EPISODES)])
    return items, generator.uniform(-1, 1, items.shape)


sizes = st.sampled_from([(7, 7), (20, 6)])  # items and steps; each pair compiles once


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.1, 1.0]), st.booleans())
def test_full_covariance_conditions_like_solve(size, seed, noise, repeats):
    num_items, length = size
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(num_items, generator.integers(1, num_items + 1))) / np.sqrt(num_items)
    mean, covariance = generator.normal(size=num_items), root @ root.T  # singular more often than not
    items, answers = random_episodes(generator, num_items, length, repeats)
    params = FullCovariance(jnp.float32(mean), jnp.float32(covariance), jnp.float32(noise))
    found = means_along(params, jnp.asarray(items), jnp.float32(answers))
    for b in range(EPISODES):
        for t in range(length + 1):
            expected = conditioned(mean, covariance, np.full(num_items, noise), items[b, :t], answers[b, :t])
            np.testing.assert_allclose(found[t, b], expected, atol=2e-3 * np.sqrt(0.02 / noise))


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1))
def test_factors_condition_like_solve_with_the_residuals_as_noise(size, seed):
    num_items, length = size
    generator = np.random.default_rng(seed)
    loadings = generator.normal(size=(num_items, 2)) / 2
    mean, noise = generator.normal(size=num_items), generator.uniform(0.05, 1, num_items)
    items, answers = random_episodes(generator, num_items, length, False)
    params = FactorCovariance(jnp.float32(mean), jnp.float32(loadings), jnp.float32(noise))
    found = means_along(params, jnp.asarray(items), jnp.float32(answers))
    for b in range(EPISODES):
        for t in range(length + 1):
            expected = conditioned(mean, loadings @ loadings.T, noise, items[b, :t], answers[b, :t])
            np.testing.assert_allclose(found[t, b], expected, atol=1e-4)


def test_one_answer_by_hand():
    # Items 0 and 1 with covariance 0.5, item 2 independent. Answer 0.8 to item 0 (mean 0.2, variance 0.9 + 0.1 noise):
    # mean of item 1: -0.1 + 0.5 / 1 * (0.8 - 0.2) = 0.2; of item 0: 0.2 + 0.9 * 0.6 = 0.74; of item 2: as before.
    covariance = jnp.array([[0.9, 0.5, 0], [0.5, 0.7, 0], [0, 0, 0.3]])
    params = FullCovariance(jnp.array([0.2, -0.1, 0.15]), covariance, jnp.float32(0.1))
    means = means_along(params, jnp.array([[0]]), jnp.array([[0.8]]))
    np.testing.assert_allclose(means[:, 0], [[0.2, -0.1, 0.15], [0.74, 0.2, 0.15]], rtol=1e-6)


@pytest.fixture(scope="module")
def problem():
    table = make_table()
    data = make_data(table)
    return data, reward_table(table), *make_simulator(data)


def test_moments_are_those_of_the_training_users_with_unrated_as_zero(problem):
    data, rewards, _, _, reward_of_code = problem
    params = fit_gaussian_posterior(make_config(), data, TRAIN_USERS, reward_of_code, 0)
    np.testing.assert_allclose(params.mean, rewards[TRAIN_USERS].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(params.covariance, np.cov(rewards[TRAIN_USERS].T, bias=True), atol=1e-6)
    assert params.noise == np.float32(0.02)


def test_factors_are_the_best_approximation_and_keep_the_variances(problem):
    data, rewards, _, _, reward_of_code = problem
    params = fit_gaussian_posterior(make_config(factors=3), data, TRAIN_USERS, reward_of_code, 0)
    covariance = np.cov(rewards[TRAIN_USERS].T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    best = vectors[:, -3:] * values[-3:] @ vectors[:, -3:].T
    np.testing.assert_allclose(params.loadings @ params.loadings.T, best, atol=1e-5)
    variance = np.sum(np.square(params.loadings), axis=1) + params.noise - 0.02
    np.testing.assert_allclose(variance, np.diag(covariance), atol=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_iterative_and_direct_decompositions_agree(centred):
    generator = np.random.default_rng(5)
    table = np.where(generator.random((40, 600)) < 0.2, generator.integers(1, 6, (40, 600)), 0)
    table[0] = generator.integers(1, 6, 600)
    data, rewards = make_data(table), reward_table(table)
    matrix = reward_matrix(data, np.arange(40), np.array([0, -0.6, -0.2, 0.2, 0.6, 1]))
    values, vectors = principal_axes(matrix, 4, centred, 0)  # 600 items: by iteration
    centre = rewards - (rewards.mean(axis=0) if centred else 0)
    moments = centre.T @ centre / 40
    expected = np.linalg.eigvalsh(moments)[::-1][:4]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(moments @ vectors, vectors * expected, atol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-8)
    np.testing.assert_allclose(reward_covariance(matrix), np.cov(rewards.T, bias=True), atol=1e-6)  # in several blocks


def test_as_many_factors_as_items_equal_the_full_covariance(problem):
    data, _, _, _, reward_of_code = problem
    full = fit_gaussian_posterior(make_config(), data, TRAIN_USERS, reward_of_code, 0)
    factors = fit_gaussian_posterior(make_config(factors=NUM_ITEMS), data, TRAIN_USERS, reward_of_code, 0)
    items, answers = random_episodes(np.random.default_rng(0), NUM_ITEMS, LENGTH, False)
    arguments = jnp.asarray(items), jnp.float32(answers)
    np.testing.assert_allclose(means_along(full, *arguments), means_along(factors, *arguments), atol=1e-4)


@pytest.mark.parametrize("factors", [None, 2])
def test_every_step_recommends_the_highest_conditional_mean(problem, factors):
    data, _, env, env_params, reward_of_code = problem
    params = fit_gaussian_posterior(make_config(factors=factors), data, TRAIN_USERS, reward_of_code, 0)
    policy = gaussian_posterior_policy(LENGTH)
    items, answers, _ = jax.tree.map(np.asarray, play_and_keep(env, env_params, policy, params, TEST_USERS))
    mean = np.asarray(params.mean, np.float64)
    if factors is None:
        covariance, noise = np.asarray(params.covariance, np.float64), np.full(NUM_ITEMS, 0.02)
    else:
        covariance, noise = params.loadings @ params.loadings.T, np.asarray(params.noise)
    for b in range(len(TEST_USERS)):
        for t in range(LENGTH):
            past = items[:t, b]
            score = conditioned(mean, covariance, noise, past, answers[:t, b])
            assert is_best_left(items[t, b], score, past)
    assert len({tuple(row) for row in items.T}) > 3  # users are told apart


def test_a_decision_needs_no_array_of_episodes_x_steps_x_items():
    batch, length, num_items = 64, 32, 500
    policy = gaussian_posterior_policy(length)
    params = FullCovariance(jnp.zeros(num_items), jnp.zeros((num_items, num_items)), jnp.float32(1))
    env = RatingEnv(num_items, length)
    observation, _ = jax.vmap(env.reset_at)(jnp.zeros(batch, jnp.int32))
    act = jax.jit(policy.act, static_argnums=4)
    compiled = act.lower(params, policy.initial_carry(params, batch), observation, None, False).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        pytest.skip("this backend does not say how much memory a program takes")
    assert memory.temp_size_in_bytes < 8 * 4 * batch * num_items


def test_a_covariance_that_is_too_large_is_refused_before_it_is_made(problem):
    data, _, _, _, reward_of_code = problem
    config = make_config(covariance_limit_mb=0.0005)  # 12 items take 576 bytes
    with pytest.raises(UserError, match=r"(?s)covariance of 12 items.*Set agent.policy.factors"):
        fit_gaussian_posterior(config, data, TRAIN_USERS, reward_of_code, 0)
    config = make_config(covariance_limit_mb=0.000576)
    assert fit_gaussian_posterior(config, data, TRAIN_USERS, reward_of_code, 0).covariance.shape == (12, 12)


def test_more_factors_than_items_are_refused(problem):
    data, _, _, _, reward_of_code = problem
    with pytest.raises(UserError, match="13 factors of 12 items"):
        fit_gaussian_posterior(make_config(factors=13), data, TRAIN_USERS, reward_of_code, 0)


@pytest.mark.parametrize(("key", "value"), [("noise", 0.0), ("factors", 0), ("covariance_limit_mb", -1.0)])
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=f"agent.policy.{key}"):
        make_config(**{key: value})

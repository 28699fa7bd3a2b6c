"""The filter of a user's answers against conditioning by numpy.linalg.solve, its fit against dense NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from bandit_problem import LENGTH, NUM_ITEMS, TRAIN_USERS, make_data, make_simulator, make_table, reward_table
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.settings import read_settings
from tpgr_jax.models.coded_rewards import code_rewards
from tpgr_jax.models.explored_ratings import explore_ratings
from tpgr_jax.models.kalman import KalmanState
from tpgr_jax.models.user_response_model import (
    UserResponseModel,
    UserResponseModelConfig,
    channels_of,
    fit_response_model,
)


def make_config(**changes):
    return read_settings(
        UserResponseModelConfig, {"factors": 4, "noise": 0.02, "channels": "all"} | changes, "agent.policy"
    )


def sparse_rewards(seed=0, users=40, items=9):
    generator = np.random.default_rng(seed)
    table = generator.choice([0, 0, 0, -0.6, -0.2, 0.2, 0.6, 1.0], (users, items))
    return scipy.sparse.csr_array(table)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_several_observations_at_once_are_what_they_are_one_after_the_other(seed):
    generator = np.random.default_rng(seed)
    features, targets = generator.normal(size=(3, 2, 5)), generator.normal(size=(3, 2))
    observed = jnp.asarray([True, False, True])
    start = KalmanState.initial(jnp.zeros(5), jnp.float32(1), 3)
    together, directions = start.update_many(jnp.asarray(features, jnp.float32), jnp.asarray(targets), 0.5, observed)
    apart = start
    for number in range(2):
        apart, direction = apart.update(jnp.asarray(features[:, number]), targets[:, number], 0.5, observed)
        np.testing.assert_allclose(directions[:, number], direction, atol=1e-5)
    np.testing.assert_allclose(together.mean, apart.mean, atol=1e-5)
    np.testing.assert_allclose(together.covariance, apart.covariance, atol=1e-5)
    np.testing.assert_array_equal(together.covariance[1], np.eye(5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_filter_is_conditioning_on_all_answers(seed):
    generator = np.random.default_rng(seed)
    mean, whitening = generator.uniform(0, 0.5, (9, 3)), generator.normal(size=(9, 2, 3))
    loadings = generator.normal(size=(9, 2, 4))
    model = UserResponseModel(*(jnp.asarray(array, jnp.float32) for array in (mean, whitening, loadings)))
    items = generator.permutation(9)[:5]
    rewards = generator.choice([-0.6, 0, 0.2, 1.0], 5)
    posterior = model.initial(1)
    for item, reward in zip(items, rewards, strict=True):
        posterior = model.update(posterior, jnp.asarray([item]), jnp.asarray([reward]), jnp.asarray([True]))
    channels = np.stack([rewards != 0, rewards > 0, rewards], 1)
    seen = np.einsum("tcd,td->tc", whitening[items], channels - mean[items]).reshape(-1)
    matrix = loadings[items].reshape(-1, 4)
    covariance = np.linalg.inv(np.eye(4) + matrix.T @ matrix)
    np.testing.assert_allclose(posterior.covariance[0], covariance, atol=2e-4)
    np.testing.assert_allclose(posterior.mean[0], covariance @ matrix.T @ seen, atol=2e-3)


def test_channels_of_an_answer_by_hand():
    expected = [[1, 1, 0.6], [1, 0, -0.2], [0, 0, 0]]
    np.testing.assert_allclose(channels_of(jnp.asarray([0.6, -0.2, 0.0])), expected, atol=1e-6)


def dense_fit(table, factors, noise):
    """Means, loadings and residual covariances as dense NumPy finds them."""
    users = len(table)
    channels = np.stack([table != 0, table > 0, table], 2).astype(float)
    centred = channels - channels.mean(0)
    left, singular, _ = np.linalg.svd(centred.reshape(users, -1), full_matrices=False)
    values = singular**2 / users
    kept = np.sqrt(np.maximum(1 - values[factors:].sum() / users / values[:factors], 0))
    scores = left[:, :factors] * np.sqrt(users)
    loadings = np.einsum("uk,uic->ick", scores, centred) / users * kept
    covariance = np.einsum("uic,uid->icd", centred, centred) / users
    return channels.mean(0), loadings, covariance - loadings @ loadings.swapaxes(1, 2) + noise * np.eye(3)


def test_fit_against_dense_numpy():
    rewards = sparse_rewards()
    fitted = fit_response_model(make_config(), code_rewards(rewards), 0)
    mean, loadings, residual = dense_fit(rewards.toarray(), 4, 0.02)
    np.testing.assert_allclose(fitted.mean, mean, atol=1e-12)
    # Factors are known up to their signs.
    moments = np.einsum("ick,jdk->icjd", loadings, loadings)
    np.testing.assert_allclose(np.einsum("ick,jdk->icjd", fitted.loadings, fitted.loadings), moments, atol=1e-9)
    whitening = np.asarray(fitted.model.whitening)
    assert whitening.shape == (9, 2, 3)
    unit = np.einsum("inc,icd,imd->inm", whitening, residual, whitening)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(2), unit.shape), atol=1e-4)
    whitened = np.einsum("inc,ick->ink", whitening, fitted.loadings)
    np.testing.assert_allclose(fitted.model.loadings, whitened, atol=1e-5)
    # The two combinations that are kept say the most: their loadings are the largest singular values.
    full = np.linalg.cholesky(np.linalg.inv(residual)).swapaxes(1, 2) @ loadings
    largest = np.linalg.svd(full, compute_uv=False)[:, :2]
    np.testing.assert_allclose(np.linalg.svd(whitened, compute_uv=False)[:, :2], largest, rtol=1e-4)


def test_reward_alone():
    fitted = fit_response_model(make_config(channels="reward"), code_rewards(sparse_rewards()), 0)
    assert fitted.model.whitening.shape == (9, 1, 3)
    np.testing.assert_array_equal(fitted.model.whitening[:, 0, :2], 0)
    assert fitted.loadings.shape == (9, 3, 4)


def test_pure_noise_teaches_nothing_where_many_items_meet_few_users():
    table = np.random.default_rng(0).choice([-0.6, 0, 1.0], (20, 400))
    noise = fit_response_model(make_config(factors=2), code_rewards(scipy.sparse.csr_array(table)), 0).loadings
    tastes = np.where(np.arange(20)[:, None] % 2 == np.arange(400) % 2, 1.0, -0.6)
    real = fit_response_model(make_config(factors=2), code_rewards(scipy.sparse.csr_array(tastes)), 0).loadings
    assert (noise**2).sum() < 0.2 * (real**2).sum()


def test_more_factors_than_there_are_is_a_message():
    with pytest.raises(UserError, match="factors"):
        fit_response_model(make_config(factors=28), code_rewards(sparse_rewards()), 0)


def test_answers_of_random_episodes_are_the_users_own():
    table = make_table()
    env, env_params, _ = make_simulator(make_data(table))
    rewards = reward_table(table)[TRAIN_USERS]
    some = explore_ratings(env, env_params, TRAIN_USERS, 1, 0)
    assert some.seen == pytest.approx(LENGTH / NUM_ITEMS)
    found = some.rewards.toarray()
    assert 0 < np.count_nonzero(found) < np.count_nonzero(rewards)
    np.testing.assert_allclose(found[found != 0], rewards[found != 0], atol=1e-5)
    again = explore_ratings(make_simulator(make_data(table), allow_repeats=True)[0], env_params, TRAIN_USERS, 2, 0)
    assert again.seen == pytest.approx(1 - (1 - 1 / NUM_ITEMS) ** (2 * LENGTH))
    everything = explore_ratings(env, env_params, TRAIN_USERS, 40, 0)
    np.testing.assert_allclose(everything.rewards.toarray(), rewards, atol=1e-5)


def test_a_share_of_the_answers_gives_the_same_means_and_covariances_on_average():
    generator = np.random.default_rng(1)
    liked = generator.random((4000, 1)) < 0.5
    rated = generator.random((4000, 9)) < np.where(liked == (np.arange(9) % 2 == 0), 0.7, 0.2)
    rewards = scipy.sparse.csr_array(np.where(rated, 0.6, 0.0))
    thinned = scipy.sparse.csr_array(rewards.toarray() * (generator.random(rewards.shape) < 0.7))
    full = fit_response_model(make_config(factors=1), code_rewards(rewards), 0)
    part = fit_response_model(make_config(factors=1), code_rewards(thinned), 0, seen=0.7)
    np.testing.assert_allclose(part.mean, full.mean, atol=0.03)
    moments = [np.einsum("ick,jdk->icjd", fitted.loadings, fitted.loadings) for fitted in (full, part)]
    assert np.abs(moments[0]).min() > 0.01
    np.testing.assert_allclose(moments[1], moments[0], atol=0.02)


def test_nothing_is_taken_in_before_the_first_step():
    model = fit_response_model(make_config(), code_rewards(sparse_rewards()), 0).model
    start = model.initial(2)
    same = model.update(start, jnp.zeros(2, jnp.int32), jnp.ones(2), jnp.zeros(2, bool))
    jax.tree.map(np.testing.assert_array_equal, same, start)

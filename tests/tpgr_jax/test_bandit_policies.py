"""What all non-deep baselines share: no repeats, learning from training users only, one compilation."""

import dataclasses

import jax
import numpy as np
import pytest
import yaml
from bandit_problem import (
    LENGTH,
    NUM_ITEMS,
    TEST_USERS,
    TRAIN_USERS,
    make_data,
    make_simulator,
    make_table,
    play_and_keep,
)

from harness.settings import read_settings
from tpgr_jax.baselines.gaussian_posterior import (
    GaussianPosteriorConfig,
    fit_gaussian_posterior,
    gaussian_posterior_policy,
)
from tpgr_jax.baselines.greedy_svd import GreedySVDConfig, fit_greedy_svd, greedy_svd_policy
from tpgr_jax.baselines.hlinear_ucb import HLinearUCBConfig, fit_hlinear_ucb, hlinear_ucb_policy
from tpgr_jax.baselines.linear_ucb import LinearUCBConfig, fit_linear_ucb, linear_ucb_policy
from tpgr_jax.baselines.popularity import Settings as PopularitySettings

LINEAR = {"features": "svd", "feature_size": 2, "feature_epochs": 1, "ridge": 0.5, "exploration": 0.2, "prior": "zero"}
HIDDEN = {"hidden_size": 2, "item_ridge": 1.0, "item_exploration": 0.1, "rounds": 2, "users_per_round": 4}
GAUSSIAN = {"noise": 0.02, "factors": None, "covariance_limit_mb": 1.0}
SCHEMAS = {
    "gaussian_posterior": GaussianPosteriorConfig,
    "greedy_svd": GreedySVDConfig,
    "linear_ucb": LinearUCBConfig,
    "hlinear_ucb": HLinearUCBConfig,
}
SETTINGS = {
    "gaussian_posterior": GAUSSIAN,
    "gaussian_posterior, factors": GAUSSIAN | {"factors": 2},
    "greedy_svd": {"target": "rating", "factors": 2, "epochs": 20, "ridge": 0.3},
    "greedy_svd, reward": {"target": "reward", "factors": 2, "epochs": 1, "ridge": 0.3},
    "linear_ucb": LINEAR,
    "linear_ucb, mf": LINEAR | {"features": "mf", "prior": "population"},
    "hlinear_ucb": LINEAR | HIDDEN,
}


def make_policy(name):
    if name == "gaussian_posterior":
        return gaussian_posterior_policy(LENGTH)
    return {"greedy_svd": greedy_svd_policy, "linear_ucb": linear_ucb_policy, "hlinear_ucb": hlinear_ucb_policy}[name]()


def fit(variant, table, seed=0):
    """Policy's name, and parameters learned from a table of ratings."""
    name = variant.split(",")[0]
    config = read_settings(SCHEMAS[name], SETTINGS[variant], "agent.policy")
    data = make_data(table)
    env, env_params, reward_of_code = make_simulator(data)
    arguments = config, data, TRAIN_USERS, reward_of_code, seed
    if name == "hlinear_ucb":
        return name, fit_hlinear_ucb(*arguments, env, env_params)
    fits = {
        "gaussian_posterior": fit_gaussian_posterior,
        "greedy_svd": fit_greedy_svd,
        "linear_ucb": fit_linear_ucb,
    }
    return name, fits[name](*arguments)


@pytest.fixture(scope="module")
def fitted():
    return {variant: fit(variant, make_table()) for variant in SETTINGS}


@pytest.mark.parametrize("variant", SETTINGS)
def test_no_item_comes_twice_until_the_whole_catalogue_is_played(fitted, variant):
    name, params = fitted[variant]
    env, env_params, _ = make_simulator(make_data(make_table()), episode_length=NUM_ITEMS)
    policy = gaussian_posterior_policy(NUM_ITEMS) if name == "gaussian_posterior" else make_policy(name)
    items, *_ = play_and_keep(env, env_params, policy, params, TEST_USERS)
    items = np.sort(np.asarray(items), axis=0)
    np.testing.assert_array_equal(items, np.tile(np.arange(NUM_ITEMS)[:, None], len(TEST_USERS)))


@pytest.mark.parametrize("variant", ["gaussian_posterior", "greedy_svd", "hlinear_ucb"])
def test_repeats_come_where_they_are_allowed_and_are_learned_from(fitted, variant):
    name, params = fitted[variant]
    env, env_params, _ = make_simulator(make_data(make_table()), allow_repeats=True)
    items, answers, carry = play_and_keep(env, env_params, make_policy(name), params, TEST_USERS)
    assert any(len(set(row)) < LENGTH for row in np.asarray(items).T.tolist())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((answers, carry)))


@pytest.mark.parametrize("variant", ["gaussian_posterior", "hlinear_ucb"])
def test_a_first_item_drawn_for_the_policy_is_what_it_learns_from(fitted, variant):
    name, params = fitted[variant]
    env, env_params, _ = make_simulator(make_data(make_table()), cold_start="random")
    items, *_ = play_and_keep(env, env_params, make_policy(name), params, np.repeat(TEST_USERS, 4))
    items = np.asarray(items).T
    assert len(set(items[:, 0].tolist())) > 4
    assert all(len(set(row)) == LENGTH for row in items.tolist())


@pytest.mark.parametrize("variant", SETTINGS)
def test_ratings_of_test_users_change_nothing(fitted, variant):
    table = make_table()
    others = table.copy()
    others[TEST_USERS] = np.where(others[TEST_USERS] > 0, 6 - others[TEST_USERS], 0)
    assert (table != others).any()
    _, params = fit(variant, others)
    jax.tree.map(np.testing.assert_array_equal, params, fitted[variant][1])
    others[TRAIN_USERS] = np.where(others[TRAIN_USERS] > 0, 6 - others[TRAIN_USERS], 0)
    _, params = fit(variant, others)
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(fitted[variant][1]), strict=True)
    assert any((one != other).any() for one, other in leaves)


@pytest.mark.parametrize("variant", SETTINGS)
def test_the_answer_is_the_empirical_reward_whatever_alpha_and_nothing_is_drawn(fitted, variant):
    name, params = fitted[variant]
    played = []
    for alpha in (0.0, 0.5):
        env, env_params, _ = make_simulator(make_data(make_table()), alpha=alpha)
        items, *_ = play_and_keep(env, env_params, make_policy(name), params, TEST_USERS, explore=True)
        played.append(np.asarray(items))
    np.testing.assert_array_equal(*played)


@pytest.mark.parametrize("name", SCHEMAS)
def test_policies_of_equal_settings_are_equal(name):
    assert make_policy(name) == make_policy(name)
    assert hash(make_policy(name)) == hash(make_policy(name))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_configuration_has_these_settings(name, repository):
    values = yaml.safe_load((repository / "conf" / "agent" / f"{name}.yaml").read_text())
    assert values["name"] == name
    config = read_settings(SCHEMAS[name], values["policy"], "agent.policy")
    assert dataclasses.asdict(config) == values["policy"]


def test_popularity_is_configured_as_in_the_paper(repository):
    values = yaml.safe_load((repository / "conf" / "agent" / "popularity.yaml").read_text())
    agent = read_settings(PopularitySettings, values)
    assert (agent.result_name, agent.policy.measure) == ("popularity", "average")

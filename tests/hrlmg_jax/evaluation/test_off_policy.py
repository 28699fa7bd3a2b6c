"""Policies that decide along logged sessions, and the probabilities with which these were shown."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alike_users import problem_alike, tiny_shop

from harness.errors import UserError
from hrlmg_jax.baselines.fixed_lists import POPULARITY
from hrlmg_jax.evaluation.off_policy import (
    FITTED,
    LOGGED,
    OffPolicyConfig,
    describe,
    estimate_policy,
    follow,
    logged_impressions,
    why_not,
)
from hrlmg_jax.evaluation.policies import EvaluationPolicy, fixed_list, random_items
from hrlmg_jax.evaluation.propensities import _catalogue, _Moments, _moments, by_counts, log_chances
from hrlmg_jax.evaluation.trust_policies import fixed_policies, mixed
from hrlmg_jax.evaluation.trust_policies import tested as follower
from hrlmg_jax.problem import load_data, make_env
from hrlmg_jax.reports.off_policy import off_policy_table
from sim.envs.policy import Decision, Policy
from sim.envs.rollout import begin
from sim.generators.funnel_truth import truth_of_sessions

CONFIG = OffPolicyConfig(sessions=1000, horizons=(1, 2, 30), least_effective=5.0)
STEPS = 20
RATES = [0.5, 0.4, 0.1]


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    config = tiny_shop(tmp_path_factory.mktemp("tables"))
    return problem_alike(config, load_data(config.fit()), RATES, STEPS)


@pytest.fixture(scope="module")
def logged(problem):
    return logged_impressions(problem, 1000, STEPS)


def test_sessions_are_followed_as_logged(problem, logged):
    log, starts = problem.data.log, problem.data.log.session_starts()
    test = np.flatnonzero(log.is_test)
    assert logged.of == {"propensities": LOGGED}
    np.testing.assert_array_equal(logged.row, starts[test])
    np.testing.assert_array_equal(logged.shown.sum(1), np.minimum(np.diff(starts)[test], STEPS))
    np.testing.assert_array_equal(logged.propensity[logged.shown], log.shown_probability[logged.rows[logged.shown]])
    few = logged_impressions(problem, 3, STEPS)
    np.testing.assert_array_equal(few.row, starts[test[[0, round((len(test) - 1) / 2), len(test) - 1]]])


def test_a_list_shows_its_first_item_that_was_not_shown(problem, logged):
    chance, paid, pays = follow(problem, fixed_list(problem, POPULARITY), logged, 0.0, 16)
    ranking, items = problem.rankings[POPULARITY].tolist(), problem.data.log.item[logged.rows]
    for session in range(len(items)):
        left = list(ranking)
        for step in np.flatnonzero(logged.shown[session]):
            item = int(items[session, step])
            assert chance[session, step] == (left[0] == item)
            if item in left:
                left.remove(item)
    # The users pay 0.4 + 5 x 0.1 for whatever is shown.
    np.testing.assert_allclose([paid, pays], 0.9, rtol=1e-6)


def test_softened_and_random_policies_have_uniform_chances(problem, logged):
    greedy, _, _ = follow(problem, fixed_list(problem, POPULARITY), logged, 0.0, 64)
    soft, _, _ = follow(problem, fixed_list(problem, POPULARITY), logged, 0.25, 64)
    uniform, _, _ = follow(problem, random_items(problem), logged, 0.0, 64)
    shown, items = logged.shown, problem.data.log.item[logged.rows]
    np.testing.assert_allclose(soft[shown], (0.75 * greedy + 0.25 * uniform)[shown], rtol=1e-6)
    number = problem.data.num_items
    known = items < number
    before = np.cumsum(known, 1) - known
    np.testing.assert_allclose(uniform[shown], (known / (number - before))[shown], rtol=1e-6)


@pytest.mark.parametrize("name", ["as_logged", "last_clicks, half random", "mixed"])
def test_probabilities_of_a_policy_sum_to_one(problem, name):
    policies = fixed_policies(problem)
    one = (
        mixed(fixed_list(problem, POPULARITY), problem.data.num_items) if name == "mixed" else follower(policies[name])
    )
    policy, params = one.policy(None), one.params(None)
    number = problem.data.num_items
    env = make_env(problem.env, problem.users, 3)
    env_params = problem.env_params(problem.data.first_rows("test")[:1])
    episodes = begin(env, env_params, policy, params, jnp.zeros(number, jnp.int32))
    found = policy.probability(params, episodes.carry, episodes.observation, jnp.arange(number))
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    # Drawn as often as it says.
    act = jax.jit(policy.act, static_argnums=4)
    keys = [jax.random.key(key) for key in range(100)]
    drawn = np.concatenate([act(params, episodes.carry, episodes.observation, key, True)[1].action for key in keys])
    often = np.bincount(drawn, minlength=number) / len(drawn)
    np.testing.assert_allclose(often, found, atol=5 * np.sqrt(np.asarray(found).max() / len(drawn)))


def test_a_policy_that_draws_without_telling_its_chances_is_right_on_average(problem, logged):
    telling = random_items(problem)
    draws = telling.policy(None)._replace(probability=None)
    silent = EvaluationPolicy(lambda users: draws, telling.params, True, None)
    told, _, _ = follow(problem, telling, logged, 0.0, 1000)
    drawn, _, _ = follow(problem, silent, logged, 0.0, 1000)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    ratio = (drawn / logged.propensity)[logged.shown]
    assert ratio.mean() == pytest.approx((told / logged.propensity)[logged.shown].mean(), abs=4 * ratio.std() / 30)


def test_estimates_say_when_the_log_cannot_tell(problem, logged):
    simulated = np.full(STEPS, 0.9)
    everything = estimate_policy(CONFIG, problem, random_items(problem), logged, simulated, 64)
    assert everything["warning"] is None
    low, high = everything["mean_ratio"]["ci95"]
    assert low < 1.1
    assert high > 0.9
    assert set(everything["first"]) == {"1", "2"}  # sessions are cut after 20 steps
    step = everything["step"]
    assert step["replay"]["ci95"][0] < step["replay"]["reward"] < step["replay"]["ci95"][1]
    assert step["simulated"] == pytest.approx(0.9)
    # Doubly robust with a constant prediction is importance sampling.
    assert step["doubly_robust"]["reward"] == pytest.approx(step["replay"]["reward"])
    # A policy that shows what the shop does not have.
    never = Policy(lambda params, size: (), _show_what_is_not_there)
    nothing = EvaluationPolicy(lambda users: never, lambda _: None, False, None)
    found = estimate_policy(CONFIG, problem, nothing, logged, simulated, 64)
    assert found["step"]["replay"] is None
    assert found["first"]["2"]["doubly_robust"] is None
    assert "hardly ever shown" in found["warning"]
    header = describe(CONFIG, problem, logged)
    text = off_policy_table({**header, "policies": {"random": everything, "nothing": found}})
    assert "WARNING: off-policy estimates of nothing" in text
    assert json.loads(json.dumps(header))["propensities"] == LOGGED


def _show_what_is_not_there(params, carry, observation, key, explore):
    return carry, Decision(jnp.full(observation.step.shape, 10**6), jnp.zeros(observation.step.shape))


def test_probabilities_that_are_none_are_refused(problem):
    chances = problem.data.log.shown_probability.copy()
    chances[problem.data.first_rows("test")[0]] = 0
    log = dataclasses.replace(problem.data.log, shown_probability=chances)
    wrong = dataclasses.replace(problem, data=dataclasses.replace(problem.data, log=log))
    with pytest.raises(UserError, match="probabilities of what was shown"):
        logged_impressions(wrong, 1000, STEPS)


def test_sampled_skips_tell_nothing(problem):
    log = dataclasses.replace(problem.data.log, synthetic_skips=True)
    data = dataclasses.replace(problem.data, log=log)
    assert why_not(problem) is None
    assert "nobody was shown" in why_not(dataclasses.replace(problem, data=data))
    assert "nobody" in off_policy_table({"left_out": why_not(dataclasses.replace(problem, data=data))})


def test_a_fitted_shop_shows_what_the_shop_showed(problem, logged):
    data = problem.data
    # With the generator's item vectors, by which its shop knows the items.
    vectors = truth_of_sessions(data.log, logged.row[:1]).item
    simulator = problem.simulator
    simulator = dataclasses.replace(simulator, params=simulator.params.replace(embedding=vectors))
    silent = dataclasses.replace(data, log=dataclasses.replace(data.log, shown_probability=None))
    found = logged_impressions(dataclasses.replace(problem, data=silent, simulator=simulator), 1000, STEPS)
    assert found.of["propensities"] == FITTED
    assert found.of["log_loss"] < found.of["log_loss_of_counts"]
    known = logged.shown & (data.log.item[logged.rows] < data.num_items)
    true, fitted = (np.log(one.propensity[known]) for one in (logged, found))
    assert np.corrcoef(true, fitted)[0, 1] > 0.8
    assert np.mean(np.exp(fitted - true)) == pytest.approx(1, abs=0.3)


def test_chances_of_a_shop_sum_to_one(problem):
    data = problem.data
    row = data.rows("train")[7]
    moments = _moments(data, np.full(data.num_items, row))
    before = set(np.asarray(moments.earlier[0]).tolist()) - {-1}
    assert before
    moments = _Moments(moments.row, jnp.arange(data.num_items), moments.earlier)
    catalogue = _catalogue(data, np.asarray(problem.simulator.params.embedding))
    weights = by_counts().replace(follow=jnp.asarray([0.5, -1.0, 2.0]), uniform=jnp.float32(-1))
    chances = np.exp(np.asarray(log_chances(weights, catalogue, data.table, moments)))
    left = [item for item in range(data.num_items) if item not in before]
    assert chances[left].sum() == pytest.approx(1, abs=1e-4)
    counts = data.training_counts()["shown"] + 1.0
    counted = np.exp(np.asarray(log_chances(by_counts(), catalogue, data.table, moments)))
    np.testing.assert_allclose(counted[left], counts[left] / counts[left].sum(), rtol=1e-3)

"""Rankings of every policy without a tree, against its own decisions with what must not come marked as recommended."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bandit_methods import DDPG, METHODS, USERS, build
from bandit_problem import NUM_ITEMS

from sim.envs.policy import Policy
from sim.envs.rollout import advance, begin
from tpgr_jax.baselines.item_ddpg import Critic, ItemPolicy
from tpgr_jax.problem import Problem

SOME_NEIGHBOURS = [*DDPG, "agent.policy.k=3", "agent.policy.k_fraction=null", "agent.policy.measure=inner"]


def after_two_steps(problem: Problem, policy: Policy, params: Any) -> tuple[Any, Any]:
    """Carry and observation of running episodes."""

    @jax.jit
    def play(env_params: Any, params: Any) -> Any:
        episodes = begin(problem.env, env_params, policy, params, jnp.asarray(USERS, jnp.int32))
        for t in range(2):
            episodes, _ = advance(problem.env, env_params, policy, params, episodes, jax.random.key(t), explore=False)
        return episodes.carry, episodes.observation

    return play(problem.env_params, params)


def ranking_by_decisions(act: Callable[..., Any], observation: Any, available: np.ndarray, k: int) -> np.ndarray:
    """[B, k] items that the policy decides for in turn, each marked as recommended before it decides again."""
    recommended = [set(row[row >= 0].tolist()) for row in np.asarray(observation.recommended)]
    rows, columns = np.arange(len(available))[:, None], np.arange(NUM_ITEMS)
    barred = np.where(available, -1, columns)
    barred = np.concatenate([barred, observation.recommended, np.full((len(available), k), -1)], 1)
    found = np.full((len(available), k), -1)
    for place in range(k):
        decided = np.asarray(act(observation.replace(recommended=jnp.asarray(barred, jnp.int32))))
        for row, item in enumerate(decided):
            left = set(columns[available[row]]) - recommended[row] - set(found[row].tolist())
            found[row, place] = item if left else -1
        barred[rows[:, 0], barred.shape[1] - k + place] = found[:, place]
    return found


def masks(kind: str) -> np.ndarray:
    """[B, I] what a caller allows: everything, half the catalogue, or fewer items than are asked for."""
    share = {"all": 1.0, "half": 0.5, "few": 0.2}[kind]
    return np.random.default_rng(3).random((len(USERS), NUM_ITEMS)) < share


class Played(NamedTuple):
    """A method whose episodes have begun: its parameters, and its functions compiled once for all tests."""

    name: str
    params: Any
    carry: Any
    observation: Any
    rank: Callable[..., Any]
    decide: Callable[[Any], Any]


@pytest.fixture(scope="module", params=METHODS)
def played(request):
    problem, method, params = build(METHODS[request.param])
    policy = method.policy
    carry, observation = after_two_steps(problem, policy, params)
    decide = jax.jit(lambda seen: policy.act(params, carry, seen, jax.random.key(0), False)[1].action)
    rank = functools.partial(jax.jit(policy.rank, static_argnums=3), params, carry, observation)
    return Played(request.param, params, carry, observation, rank, decide)


@pytest.mark.parametrize("kind", ["all", "half", "few"])
def test_a_ranking_is_what_the_policy_decides_for_in_turn(played, kind):
    k, available = 5, masks(kind)
    ranking = played.rank(k, jnp.asarray(available))
    items, scores = np.asarray(ranking.items), np.asarray(ranking.scores)
    if played.name == "popularity":
        expected = ranking_of_the_list(np.asarray(played.params), played.observation, available, k)
    else:
        expected = ranking_by_decisions(played.decide, played.observation, available, k)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(scores == -np.inf, items < 0)
    assert kind != "few" or (items < 0).any()
    for row in scores:
        assert np.all(np.diff(row[row > -np.inf]) <= 0)


def ranking_of_the_list(order: np.ndarray, observation: Any, available: np.ndarray, k: int) -> np.ndarray:
    """A fixed list, whose carry and not the observation says what was recommended: its ranking by hand."""
    found = np.full((len(available), k), -1)
    for row in range(len(available)):
        gone = set(np.asarray(observation.recommended[row]).tolist())
        left = [item for item in order if item not in gone and available[row, item]][:k]
        found[row, : len(left)] = left
    return found


def test_one_mask_serves_all_episodes_and_the_first_item_is_the_decision(played):
    ranking = played.rank(5, jnp.ones(NUM_ITEMS, bool))
    np.testing.assert_array_equal(ranking.items[:, 0], played.decide(played.observation))
    some = jnp.asarray(masks("half")[0])
    one, each = played.rank(5, some), played.rank(5, jnp.tile(some, (len(USERS), 1)))
    jax.tree.map(np.testing.assert_array_equal, one, each)


@pytest.fixture(scope="module")
def some_neighbours():
    """Observation and ranking of a policy, nearness of all items to its proposals, and the critic's values of them."""
    problem, method, params = build(SOME_NEIGHBOURS)
    policy: ItemPolicy = method.policy.act.__self__
    carry, observation = after_two_steps(problem, method.policy, params)
    rank = functools.partial(jax.jit(method.policy.rank, static_argnums=3), params, carry, observation)
    vectors = params.item_vectors

    @jax.jit
    def proposals_and_values() -> Any:
        _, state = policy._encode(params, carry, observation)
        values = [
            policy._critic(Critic.__call__, params.network, jnp.tile(one, (NUM_ITEMS, 1)), vectors) for one in state
        ]
        return policy.propose(params.network, state), values

    proposals, values = proposals_and_values()
    return observation, rank, np.asarray(proposals) @ np.asarray(vectors).T, np.asarray(values)


@pytest.mark.parametrize("kind", ["all", "half", "few"])
@pytest.mark.parametrize("k", [2, 6])
def test_neighbours_come_first_in_the_critics_order_and_then_the_others_by_nearness(kind, k, some_neighbours):
    observation, rank, nearness, values = some_neighbours
    available = masks(kind)
    ranking = rank(k, jnp.asarray(available))
    for row in range(len(USERS)):
        gone = set(np.asarray(observation.recommended[row]).tolist())
        left = [item for item in np.argsort(-nearness[row]) if item not in gone and available[row, item]]
        value = values[row]
        expected = [*sorted(left[:3], key=lambda item: -float(value[item])), *left[3:]][:k]
        assert ranking.items[row].tolist() == [*expected, *[-1] * (k - len(expected))]
        scores = np.asarray(ranking.scores[row])
        np.testing.assert_allclose(scores[: min(3, len(expected))], value[expected[:3]], atol=1e-5)
        assert np.all(np.diff(scores[: len(expected)]) <= 0)
        assert np.all(scores[len(expected) :] == -np.inf)

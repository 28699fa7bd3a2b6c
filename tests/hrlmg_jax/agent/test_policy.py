"""Rankings of agents with actors, against sorting by hand."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_worlds import generated_log

from hrlmg_jax.agent import hrl_mg
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.learner import LearnerConfig
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.agent.policy import ActingParams, TwoLevelPolicy
from hrlmg_jax.retrieval.index import ItemIndex, RetrievalConfig
from sim.envs.histories import Histories, make_history_table
from sim.envs.session_env import LoggedFeedback, SessionEnv, SessionObservation

ITEMS, CATALOGUE, E, N, T, B = 100, 96, 5, 3, 8, 6
EMBEDDING = np.random.default_rng(0).normal(size=(ITEMS, E))
EMBEDDING = (EMBEDDING / np.linalg.norm(EMBEDDING, axis=1, keepdims=True)).astype(np.float32)
NO_GOALS = GoalConfig(False, 2, 4, 0.5, 0.5, 0.1, False, False, False, "gamma", True)
AGENTS = {
    "ddpg": NO_GOALS,
    "ddpg with a memory": dataclasses.replace(NO_GOALS, memory=4),
    "goals unseen": dataclasses.replace(NO_GOALS, enabled=True),
    "goals seen": dataclasses.replace(NO_GOALS, enabled=True, conditioned=True),
    "goals of a memory": dataclasses.replace(NO_GOALS, enabled=True, conditioned=True, memory=4),
}


def make_agent(goals: GoalConfig, index: ItemIndex) -> tuple[Any, ActingParams]:
    """A policy with parameters drawn at random."""
    learner = hrl_mg.make_learner(
        hrl_mg.Settings(
            name="tested",
            network=NetworkConfig(4, 4, 8, "unit", 1.0, "linear", "twin"),
            goals=goals,
            learner=LearnerConfig(1, 0, 1, 1, 1, 1, 0.9, 0.1, 0.1, 0.1, 1.0, 0.1, "item", "bootstrap"),
            retrieval=RetrievalConfig("exact", 1),
        ),
        SessionEnv(LoggedFeedback(), T, N),
        E,
    )
    generator = np.random.default_rng(3)

    def drawn(level: Any) -> Any:
        shapes = jax.eval_shape(level.init, jax.random.key(1)).params["actor"]
        return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 1.0, leaf.shape), jnp.float32), shapes)

    policy = learner.policy
    high = drawn(policy.high) if isinstance(policy, TwoLevelPolicy) else None
    table = make_history_table(generated_log())
    return policy, ActingParams(drawn(policy.low), high, index, table, jnp.ones(CATALOGUE), jnp.bool_(False))


def observe(step: int, candidates: np.ndarray | None = None) -> SessionObservation:
    """B sessions in which different items were recommended."""
    generator = np.random.default_rng(step)
    recommended = np.full((B, T), -1, np.int32)
    for row in recommended:
        row[:step] = generator.permutation(CATALOGUE)[:step]
    return SessionObservation(
        step=jnp.full((B,), step, jnp.int32),
        recommended=jnp.asarray(recommended),
        last_item=jnp.full((B,), -1, jnp.int32),
        histories=Histories(*map(jnp.asarray, generator.integers(-1, ITEMS, (3, B, N)).astype(np.int32))),
        candidates=None if candidates is None else jnp.asarray(candidates, jnp.int32),
        hidden=(),
        row=jnp.asarray(generated_log().session_starts()[5 : 5 + B], jnp.int32),
    )


@functools.cache
def compiled(name: str) -> Any:
    """The carry, the decision and two rankings for an observation."""
    policy, params = make_agent(AGENTS[name], ItemIndex(jnp.asarray(EMBEDDING), CATALOGUE))
    acting = policy.as_policy()

    @jax.jit
    def both(carry: Any, observation: SessionObservation, available: jax.Array) -> Any:
        ranking = acting.rank(params, carry, observation, 3, available)
        whole = acting.rank(params, carry, observation, CATALOGUE + 2, jnp.ones(CATALOGUE, bool))
        carry, decision = acting.act(params, carry, observation, jax.random.key(0), False)
        return carry, decision.action, ranking, whole

    return acting.initial_carry(params, B), both


@pytest.mark.parametrize("name", AGENTS)
def test_the_first_item_is_the_decision_and_the_rest_follows_by_similarity(name: str) -> None:
    """The whole catalogue, best first; a mask leaves out of it what is not allowed, for all sessions or for each."""
    carry, both = compiled(name)
    generator = np.random.default_rng(1)
    different = set()
    for step in range(T):  # over the beginnings of windows
        available = generator.random((B, CATALOGUE) if step % 2 else (CATALOGUE,)) < (0.05 if step == 3 else 0.5)
        observation = observe(step)
        carry, action, ranking, whole = both(carry, observation, jnp.asarray(available))
        np.testing.assert_array_equal(whole.items[:, 0], action)
        for row in range(B):
            items, scores = np.asarray(whole.items[row]), np.asarray(whole.scores[row])
            left = CATALOGUE - step
            assert set(items[:left]) == set(range(CATALOGUE)) - set(np.asarray(observation.recommended[row]).tolist())
            assert (items[left:] == -1).all()
            assert (np.diff(scores[:left]) <= 1e-6).all()
            assert np.abs(scores[:left]).max() <= 1 + 1e-5
            # Cosines with one vector: differences of scores are products with differences of items.
            query, *_ = np.linalg.lstsq(EMBEDDING[items[:left]], scores[:left], rcond=None)
            np.testing.assert_allclose(EMBEDDING[items[:left]] @ query, scores[:left], atol=1e-4)
            assert np.linalg.norm(query) == pytest.approx(1, abs=1e-3)
            mask = available if available.ndim == 1 else available[row]
            allowed = [item for item in items[:left] if mask[item]][:3]
            assert ranking.items[row].tolist() == allowed + [-1] * (3 - len(allowed))
            different.add(int(action[row]))
    assert len(different) > 3


def test_only_candidates_of_a_logged_session_are_ranked() -> None:
    carry, both = compiled("ddpg")
    candidates = np.stack([np.random.default_rng(row).permutation(CATALOGUE)[:5] for row in range(B)])
    candidates[:, 4:] = -1
    observation = observe(0, candidates)
    _, action, ranking, whole = both(carry, observation, jnp.ones(CATALOGUE, bool))
    np.testing.assert_array_equal(ranking.items[:, 0], action)
    for row in range(B):
        assert set(whole.items[row].tolist()) == set(candidates[row].tolist())


def test_only_recalled_items_are_ranked() -> None:
    neighbours = jnp.asarray(np.random.default_rng(0).integers(0, CATALOGUE, (ITEMS, 2)), jnp.int32)
    index = ItemIndex(jnp.asarray(EMBEDDING), CATALOGUE, neighbours, jnp.arange(T + 1, dtype=jnp.int32))
    policy, params = make_agent(NO_GOALS, index)
    acting, observation = policy.as_policy(), observe(2)
    ranking = acting.rank(params, (), observation, CATALOGUE, jnp.ones(CATALOGUE, bool))
    _, decision = acting.act(params, (), observation, jax.random.key(0), False)
    np.testing.assert_array_equal(ranking.items[:, 0], decision.action)
    for row in range(B):
        known = np.concatenate([np.asarray(history[row]) for history in jax.tree.leaves(observation.histories)])
        recalled = {int(item) for place in known[known >= 0] for item in neighbours[place]} | set(range(T + 1))
        recalled -= set(np.asarray(observation.recommended[row]).tolist())
        assert set(ranking.items[row].tolist()) - {-1} == recalled

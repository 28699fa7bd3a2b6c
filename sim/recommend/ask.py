"""Asking a policy: histories are replayed through its own `act`, then it ranks; compiled once per size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sim.envs.policy import Path, Policy, Ranking, recommend
from sim.envs.rollout import Episodes
from sim.recommend.system import AnsweredEnvironment, Replay

_KEY = 0  # of policies that decide by chance: the same list for the same question


class Asked(NamedTuple):
    """What B users ask (traced).

    Attributes:
        replay: What they did.
        excluded: [B, E] int32 items, none twice and none that is replayed, that are not recommended; padded with -1.
        repeatable: [B] int32 how many of the replayed items, from the first, may be recommended again.
        available: [I] bool, items that may be recommended.
    """

    replay: Replay
    excluded: jax.Array
    repeatable: jax.Array
    available: jax.Array


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def best_items(
    env: AnsweredEnvironment, policy: Policy, k: int, with_path: bool, asked: Asked
) -> tuple[Ranking, Path | None]:
    """Returns what the policy would recommend to each user now: the k best items, and the paths to them.

    Args:
        k: Number of items.
        with_path: Whether paths are asked for (of a policy that has them).
    """
    episodes = _after_replay(env, policy, asked.replay)
    ranking = _rank(policy, k, asked, episodes)
    if not with_path or policy.path is None:
        return ranking, None
    observation = _with_excluded(asked, episodes.observation)
    params = asked.replay.policy_params
    return ranking, policy.path(params, episodes.carry, observation, ranking.items, asked.available)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def next_items(
    env: AnsweredEnvironment,
    policy: Policy,
    k: int,
    likely_answer: Callable[[Any, Any, Any, jax.Array], Any],
    likely_params: Any,
    asked: Asked,
) -> Ranking:
    """Returns what the policy would recommend to each user in the next k steps, if the likeliest answers came.

    Args:
        k: Number of steps; the replay leaves room for them in the episode.
        likely_answer: See `sim.recommend.system.System`.
    """
    replay = asked.replay

    def step(episodes: Episodes, _: None) -> tuple[Episodes, Ranking]:
        ranking = _rank(policy, 1, asked, episodes)
        item = jnp.maximum(ranking.items[:, 0], 0)  # where nothing is left, nothing will be
        carry, _decision = policy.act(
            replay.policy_params, episodes.carry, episodes.observation, jax.random.key(_KEY), False
        )
        answer = jax.vmap(likely_answer, (None, None, 0, 0))(likely_params, replay.env_params, episodes.state, item)
        observation, state = jax.vmap(env.answer, (0, 0, 0, None))(episodes.state, item, answer, replay.env_params)
        return Episodes(carry, observation, state), ranking

    _, rankings = jax.lax.scan(step, _after_replay(env, policy, replay), None, k)
    return jax.tree.map(lambda steps: steps[:, :, 0].T, rankings)


def _after_replay(env: AnsweredEnvironment, policy: Policy, replay: Replay) -> Episodes:
    """Plays the episodes with the answers given; the number of steps is traced, so that no length compiles anew."""
    number = replay.items.shape[0]  # an export's may be symbolic
    starts = jnp.arange(number, dtype=jnp.int32)
    observation, state = jax.vmap(env.reset_at, (0, None))(starts, replay.env_params)
    episodes = Episodes(policy.initial_carry(replay.policy_params, number), observation, state)
    if not replay.items.shape[1]:
        return episodes  # of one step: what was before does not count

    def step(t: jax.Array, before: Episodes) -> Episodes:
        carry, _ = policy.act(replay.policy_params, before.carry, before.observation, jax.random.key(_KEY), False)
        item, answer = jax.tree.map(lambda steps: steps[:, t], (replay.items, replay.answers))
        observation, state = jax.vmap(env.answer, (0, 0, 0, None))(before.state, item, answer, replay.env_params)
        goes_on = t < replay.length

        def continued(after: jax.Array, before: jax.Array) -> jax.Array:
            return jnp.where(goes_on.reshape(-1, *(1,) * (after.ndim - 1)), after, before)

        return jax.tree.map(continued, Episodes(carry, observation, state), before)

    return jax.lax.fori_loop(0, jnp.max(replay.length), step, episodes)


def _rank(policy: Policy, k: int, asked: Asked, episodes: Episodes) -> Ranking:
    params = asked.replay.policy_params
    if policy.rank is not None:
        observation = _with_excluded(asked, episodes.observation)
        return policy.rank(params, episodes.carry, observation, k, asked.available)
    # A policy with one decision cannot be told what else is excluded.
    key = jax.random.key(_KEY)
    items, scores = recommend(policy, params, episodes.carry, episodes.observation, key, k, asked.available)
    gone = jnp.any(items[:, :, None] == asked.excluded[:, None, :], -1)
    return Ranking(jnp.where(gone, -1, items), jnp.where(gone, -jnp.inf, scores))


def _with_excluded(asked: Asked, observation: Any) -> Any:
    """Adds the excluded items to those that the observation carries; takes replayed ones off if they may come again."""
    recommended = observation.recommended
    again = jnp.arange(recommended.shape[1]) < asked.repeatable[:, None]
    recommended = jnp.where(again, -1, recommended)
    return dataclasses.replace(observation, recommended=jnp.concatenate([recommended, asked.excluded], 1))

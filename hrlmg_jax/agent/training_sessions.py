"""The sessions that training plays side by side: how they begin, begin again, and what is reported of a step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from sim.envs.policy import Policy
from sim.envs.rollout import Episodes, begin
from sim.envs.session_env import SessionEnv, SessionParams, SessionTrajectory
from sim.tables.events import CLICK, ORDER


def begin_sessions(
    env: SessionEnv,
    env_params: SessionParams,
    policy: Policy,
    policy_params: Any,
    number: int,
    period: int,
    key: jax.Array,
) -> Episodes:
    """Begins sessions at different steps, multiples of a period, so that they do not all end together.

    Args:
        policy: Plays them.
        number: B, sessions.
        period: c.
    """
    episodes = begin(env, env_params, policy, policy_params, _draw_starts(key, number, env_params))
    phases = max(1, env.episode_length // period)
    step = jnp.arange(number, dtype=jnp.int32) * phases // number * period
    state = dataclasses.replace(episodes.state, step=step)
    observe = jax.vmap(env.observe, in_axes=(0, None))
    return Episodes(episodes.carry, observe(state, env_params), state)


def restarted(
    env: SessionEnv, env_params: SessionParams, episodes: Episodes, ended: jax.Array, key: jax.Array
) -> Episodes:
    """Replaces sessions that have ended, [B] bool, by new ones; the policy's carry stays."""

    def restart(episodes: Episodes) -> Episodes:
        starts = _draw_starts(key, ended.shape[0], env_params)
        observation, state = jax.vmap(env.reset_at, in_axes=(0, None))(starts, env_params)
        new = Episodes(episodes.carry, observation, state)
        return jax.tree.map(lambda a, b: jnp.where(ended.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, episodes)

    return jax.lax.cond(jnp.any(ended), restart, lambda episodes: episodes, episodes)


def play_metrics(played: SessionTrajectory, length: int) -> dict[str, jax.Array]:
    """Returns reward, clicks and orders per session of `length` steps at one step's rate, and its distinct items.

    Args:
        played: One step of B sessions.
        length: T.
    """
    items = jnp.sort(played.item)
    distinct = 1 + jnp.sum(items[1:] != items[:-1])
    return {
        "reward": length * jnp.mean(played.reward),
        "clicks": length * jnp.mean(played.feedback >= CLICK),
        "orders": length * jnp.mean(played.feedback >= ORDER),
        "distinct_items": distinct / played.item.shape[0],
    }


def _draw_starts(key: jax.Array, number: int, env_params: SessionParams) -> jax.Array:
    return jax.random.randint(key, (number,), 0, env_params.rows.shape[0])

"""Batches of running episodes: one compiled program per step, whatever their number.

Every episode has a key of its own, which alone decides what is random in it: environment i of a batch with seed s plays
exactly as a single environment with seed s + i.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from sim.gym.views import Observation, View, Viewed

_START = 0  # streams of an episode's key: its start, then its steps


class Reset(Enum):
    """When an episode that has ended starts anew: never, with the same step, or with the next one in place of it."""

    NEVER = 0
    SAME_STEP = 1
    NEXT_STEP = 2


@flax.struct.dataclass
class Running:
    """B episodes.

    Attributes:
        key: [B] keys of the environments.
        number: [B] int32 how many episodes each has had before this one.
        ended: [B] bool, whether the episode has ended.
        viewed: Their states.
    """

    key: jax.Array
    number: jax.Array
    ended: jax.Array
    viewed: Viewed


class Stepped(NamedTuple):
    """What a step of B episodes gives.

    Attributes:
        running: The episodes after it.
        observation: Of these.
        reward: [B] float32.
        truncated: [B] bool.
        info: Facts about the step by name, [B] each; where an episode was started in place of a step they mean nothing.
        start: [B] int32 numbers of the episodes that the step was taken in.
        playing: [B] int32 those of the episodes after it.
        final: Observations after the step, also of episodes that ended with it.
    """

    running: Running
    observation: Observation
    reward: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]
    start: jax.Array
    playing: jax.Array
    final: Observation


def keys_of(seeds: jax.Array) -> jax.Array:
    """Returns [B] keys of [B] uint32 seeds."""
    return jax.vmap(jax.random.key)(seeds)


@partial(jax.jit, static_argnums=0)
def begin(
    view: View, params: Any, starts: jax.Array, key: jax.Array, number: jax.Array, chosen: jax.Array
) -> tuple[Observation, Running]:
    """Starts an episode in each of B environments.

    Args:
        view: The functions of an episode.
        params: The simulator's tables.
        starts: [S] int32 episodes to draw from.
        key: [B] keys of the environments.
        number: [B] int32 how many episodes each has had.
        chosen: [B] int32 episodes to play; -1: drawn.
    """
    observation, viewed = jax.vmap(partial(_start, view, params, starts))(key, number, chosen)
    return observation, Running(key, number, jnp.zeros(number.shape, bool), viewed)


@partial(jax.jit, static_argnums=(0, 1))
def advance(view: View, reset: Reset, params: Any, starts: jax.Array, running: Running, action: jax.Array) -> Stepped:
    """Takes a step in each of B episodes; see `begin`.

    Args:
        action: [B] int32 items.
    """
    return jax.vmap(partial(_step, view, reset, params, starts))(running, action)


def _start(
    view: View, params: Any, starts: jax.Array, key: jax.Array, number: jax.Array, chosen: jax.Array
) -> tuple[Observation, Viewed]:
    key = jax.random.fold_in(jax.random.fold_in(key, number), _START)
    drawn = starts[jax.random.randint(key, (), 0, starts.shape[0])]
    return view.reset_at(jnp.where(chosen < 0, drawn, chosen), params)


def _step(view: View, reset: Reset, params: Any, starts: jax.Array, running: Running, action: jax.Array) -> Stepped:
    # The step itself.
    before = running.viewed
    key = jax.random.fold_in(jax.random.fold_in(running.key, running.number), 1 + before.state.step)
    stepped = view.step(key, before, action, params)
    result = Stepped(
        running=running.replace(ended=stepped.truncated, viewed=stepped.viewed),  # type: ignore[attr-defined]
        observation=stepped.observation,
        reward=stepped.reward,
        truncated=stepped.truncated,
        info=stepped.info,
        start=view.start_of(before),
        playing=view.start_of(before),
        final=stepped.observation,
    )
    if reset is Reset.NEVER:
        return result

    # Where an episode has ended, now or (NEXT_STEP) before, the first observation of the next one.
    number = running.number + 1
    observation, viewed = _start(view, params, starts, running.key, number, jnp.int32(-1))
    anew = result._replace(
        running=Running(running.key, number, jnp.bool_(False), viewed),
        observation=observation,
        playing=view.start_of(viewed),
    )
    if reset is Reset.NEXT_STEP:
        anew = anew._replace(reward=jnp.float32(0), truncated=jnp.bool_(False), start=view.start_of(viewed))
    ended = running.ended if reset is Reset.NEXT_STEP else stepped.truncated
    return _select(ended, anew, result)


def _select(condition: jax.Array, first: Stepped, second: Stepped) -> Stepped:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), first, second)

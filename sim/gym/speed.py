"""How fast the environments step, for benchmarks: in vectors, one by one, and within one program."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import numpy as np

from sim.gym.environment import RecommendationEnv
from sim.gym.gymnax_view import GymnaxView, Params
from sim.gym.vector_environment import RecommendationVectorEnv
from sim.gym.worlds import World


def vector_rate(world: World, number: int, seconds: float, masks: bool = True) -> float:
    """Returns environment steps per second of a vector of environments, with random actions."""
    envs = RecommendationVectorEnv(world, number, masks)
    actions = np.random.default_rng(0).integers(0, world.view.num_items, (64, number))
    envs.reset(seed=0)
    envs.step(actions[0])  # compiles
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        envs.step(actions[steps % len(actions)])
        steps += 1
    return steps * number / (time.perf_counter() - started)


def single_rate(world: World, seconds: float) -> float:
    """Returns steps per second of a single environment, with actions in order, resets included."""
    env = RecommendationEnv(world)
    env.reset(seed=0)
    env.step(0)  # compiles
    steps, started = 1, time.perf_counter()
    while time.perf_counter() - started < seconds:
        if env.step(steps % world.view.num_items)[3]:
            env.reset()
        steps += 1
    return steps / (time.perf_counter() - started)


def scanned_rate(world: World, number: int, steps: int, repeats: int) -> float:
    """Returns environment steps per second where random actions and steps are one compiled program (gymnax's way)."""
    env = GymnaxView(world)
    params, keys = env.default_params, jax.random.split(jax.random.key(0), number)
    play = jax.jit(partial(_play, env, steps))
    jax.block_until_ready(play(keys, params))
    started = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(play(keys, params))
    return repeats * steps * number / (time.perf_counter() - started)


def _play(env: GymnaxView, steps: int, keys: jax.Array, params: Params) -> jax.Array:
    """Returns [B] rewards of B environments, summed over the steps."""
    _, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)

    def step(state: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        now = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, t)
        actions = jax.vmap(env.action_space().sample)(now)
        _, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(now, state, actions, params)
        return state, reward

    return jax.lax.scan(step, state, jax.numpy.arange(steps))[1].sum(0)

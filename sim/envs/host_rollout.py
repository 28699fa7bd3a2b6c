"""The rollout of policies that are Python code: compiled steps of the environment, and the policy asked in between."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.compute.sharding import on_every_device, over_episodes
from harness.errors import UserError
from sim.envs.policy import Decision, Policy
from sim.envs.rollout import Environment, respond


def rollout_on_host(env: Environment, env_params: Any, policy: Policy, starts: jax.Array, key: jax.Array) -> Any:
    """Plays one episode from each of the given starts, as `sim.envs.rollout.rollout` does, with a policy `on_host`.

    The users answer as they answer compiled policies: with the same keys.

    Args:
        env_params: Parameters of the environment.
        starts: [B] int32, one episode each.
        key: Random key; step t uses `fold_in(key, t)`.

    Returns:
        What `env.record` returns, time first: arrays [T, B, ...].

    Raises:
        UserError: The policy has raised it; or the environment does not tell answers (`info.answer`).
    """
    decide, played = policy.on_host, np.asarray(starts)
    assert decide is not None
    items: list[np.ndarray] = []
    answers: list[np.ndarray] = []

    def act(params: Any, carry: Any, observation: Any, key: jax.Array, explore: bool) -> tuple[Any, Decision]:
        none = np.zeros((len(played), 0))
        history = [np.stack(columns, 1) if columns else none for columns in (items, answers)]
        action = jnp.asarray(decide(env_params, played, *history), jnp.int32)
        return carry, Decision(action, jnp.zeros(action.shape))

    prepared = env.prepare(policy._replace(act=act))  # the environment may choose the first item itself
    observation, state = _begin(env, env_params, starts)
    recorded = []
    for t in range(env.episode_length):
        step_key = jax.random.fold_in(key, t)
        _, decision = prepared.act(None, (), observation, step_key, False)
        observation, state, answer, record = _take_step(env, env_params, observation, state, decision, step_key)
        items.append(np.asarray(decision.action))
        answers.append(np.asarray(answer))
        recorded.append(record)
    return jax.tree.map(lambda *steps: jnp.stack(steps), *recorded)


@partial(jax.jit, static_argnums=0)
def _begin(env: Environment, env_params: Any, starts: jax.Array) -> tuple[Any, Any]:
    return over_episodes(jax.vmap(env.reset_at, in_axes=(0, None))(over_episodes(starts), env_params))


@partial(jax.jit, static_argnums=0)
def _take_step(
    env: Environment, env_params: Any, observation: Any, state: Any, decision: Decision, key: jax.Array
) -> tuple[Any, Any, jax.Array, Any]:
    next_observation, state, reward, info = respond(env, env_params, state, over_episodes(decision), key)
    if not hasattr(info, "answer"):
        raise UserError(
            f"the steps of {type(env).__name__} do not say what users answer, which a policy in Python is told",
            where="env.module",
            do="Give the info of its `step` an attribute `answer`, a number.",
        )
    record = env.record(observation, decision, reward, info)
    return next_observation, state, *on_every_device((info.answer, record))

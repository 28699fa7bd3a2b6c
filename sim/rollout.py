"""The one rollout: a batch of episodes under a policy, one compiled scan over time."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from sim.policy import Policy, with_random_first_item
from sim.rating_env import EnvParams, RatingEnv


@flax.struct.dataclass
class Trajectory:
    """What happened in B episodes of T steps, time first.

    Attributes:
        item: [T, B] int32 recommended items.
        reward: [T, B] float32 rewards R (Eq. 6).
        hit: [T, B] bool, the item is relevant to the user.
        repeated: [T, B] bool, the item had been recommended before in the episode.
        log_prob: [T, B] float32 log-probability of the item under the policy that acted.
        status: [T, B, 9] float32 user status before the step.
        user: [B] int32 the users.
    """

    item: jax.Array
    reward: jax.Array
    hit: jax.Array
    repeated: jax.Array
    log_prob: jax.Array
    status: jax.Array
    user: jax.Array


def rollout(
    env: RatingEnv,
    env_params: EnvParams,
    policy: Policy,
    policy_params: Any,
    users: jax.Array,
    key: jax.Array,
    explore: bool,
) -> Trajectory:
    """Plays one episode with each of the given users.

    Args:
        env: The simulator.
        env_params: Its tables.
        policy: Acts on the whole batch at once.
        policy_params: The policy's parameters.
        users: [B] int32, one episode each.
        key: Random key; step t uses `fold_in(key, t)`.
        explore: True samples, False decides greedily (static).
    """
    if env.cold_start == "random":
        policy = with_random_first_item(policy, env.num_items)
    observation, state = jax.vmap(env.reset_user)(users)
    carry = policy.initial_carry(policy_params, users.shape[0])

    def step(loop: tuple[Any, Any, Any], t: jax.Array) -> tuple[tuple[Any, Any, Any], tuple[jax.Array, ...]]:
        carry, observation, state = loop
        step_key = jax.random.fold_in(key, t)
        carry, decision = policy.act(policy_params, carry, observation, step_key, explore)
        env_step = jax.vmap(env.step, in_axes=(None, 0, 0, None))
        following, state, reward, _, _, info = env_step(step_key, state, decision.action, env_params)
        record = (decision.action, reward, info.hit, info.repeated, decision.log_prob, observation.status)
        return (carry, following, state), record

    _, (item, reward, hit, repeated, log_prob, status) = jax.lax.scan(
        step, (carry, observation, state), jnp.arange(env.episode_length)
    )
    return Trajectory(item, reward, hit, repeated, log_prob, status, users)

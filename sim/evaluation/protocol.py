"""The evaluation protocol: one episode with every test user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from harness.compute.sharding import num_shards, on_every_device
from sim.envs.host_rollout import rollout_on_host
from sim.envs.policy import Policy
from sim.envs.rollout import Environment, rollout
from sim.evaluation.user_metrics import UserMetrics, user_metrics
from sim.tables.ratings import RatingData

EpisodeBatch = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


@dataclass(frozen=True)
class Evaluation:
    """The result of a policy on U test users.

    Attributes:
        items: [U, T] int32 item indices in the order recommended.
        rewards: [U, T] float32 what they earned.
        metrics: Per-user metrics.
    """

    items: np.ndarray
    rewards: np.ndarray
    metrics: UserMetrics


def num_relevant_items(data: RatingData, relevant_above: float) -> np.ndarray:
    """Returns [U] the number of items that each user rated above `relevant_above`."""
    with np.errstate(invalid="ignore"):
        relevant = data.rating_values > relevant_above  # "not rated" is NaN
    return np.add.reduceat(relevant[data.codes], data.indptr[:-1], dtype=np.int64)  # every user has ratings


def make_episode_batch(env: Environment, policy: Policy, explore: bool) -> EpisodeBatch:
    """Returns the rollout of one batch of users, compiled once for equal environments and policies.

    A policy that is Python code is asked step by step, between compiled ones of the environment.

    Returns:
        `(env_params, policy_params, users [B], key) -> (items, rewards, hits)`, each [T, B].
    """
    if policy.on_host is not None:
        return partial(_episode_batch_on_host, env, policy)
    return partial(_episode_batch, env, policy, explore)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _episode_batch(
    env: Environment,
    policy: Policy,
    explore: bool,
    env_params: Any,
    policy_params: Any,
    users: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    trajectory = rollout(env, env_params, policy, policy_params, users, key, explore)
    return on_every_device((trajectory.item, trajectory.reward, trajectory.hit))


def _episode_batch_on_host(
    env: Environment, policy: Policy, env_params: Any, policy_params: Any, users: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    trajectory = rollout_on_host(env, env_params, policy, users, key)
    return trajectory.item, trajectory.reward, trajectory.hit


def compiled_rollout(
    env: Environment,
    policy: Policy,
    explore: bool,
    env_params: Any,
    policy_params: Any,
    starts: jax.Array,
    key: jax.Array,
) -> Any:
    """Returns the whole trajectory of `sim.envs.rollout.rollout`, compiled once for equal environments and policies.

    A policy that is Python code is asked step by step, between compiled ones of the environment.
    """
    if policy.on_host is not None:
        return rollout_on_host(env, env_params, policy, starts, key)
    return _compiled_rollout(env, policy, explore, env_params, policy_params, starts, key)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled_rollout(
    env: Environment,
    policy: Policy,
    explore: bool,
    env_params: Any,
    policy_params: Any,
    starts: jax.Array,
    key: jax.Array,
) -> Any:
    return on_every_device(rollout(env, env_params, policy, policy_params, starts, key, explore))


def evaluate_policy(
    episode_batch: EpisodeBatch,
    env_params: Any,
    policy_params: Any,
    users: np.ndarray,
    num_relevant: np.ndarray,
    key: jax.Array,
    users_per_batch: int,
) -> Evaluation:
    """Plays one episode with each user.

    Args:
        episode_batch: The result of `make_episode_batch`.
        env_params: The simulator's tables.
        policy_params: The policy's parameters.
        users: [n] users, in the order of the result's rows.
        num_relevant: [U] number of relevant items of all users.
        key: Random key; batch i uses `fold_in(key, i)`.
        users_per_batch: Users per batch, which bounds memory. The last batch is padded.
    """
    items, rewards, hits = play_all(episode_batch, env_params, policy_params, users, key, users_per_batch)
    return Evaluation(items, rewards, user_metrics(rewards, hits, num_relevant[users]))


def play_all(
    episode_batch: Callable[[Any, Any, jax.Array, jax.Array], Any],
    env_params: Any,
    policy_params: Any,
    starts: np.ndarray,
    key: jax.Array,
    at_a_time: int,
) -> Any:
    """Plays one episode from each start, in batches, and copies the results to the host.

    Args:
        episode_batch: `(env_params, policy_params, starts [B], key) -> arrays [T, B, ...]`, a pytree; compiled.
        env_params: The simulator's tables.
        policy_params: The policy's parameters.
        starts: [n] users or sessions to start from.
        key: Random key; batch i uses `fold_in(key, i)`.
        at_a_time: Batch size B, which bounds memory; rounded up to a multiple of the devices. The last batch is padded.

    Returns:
        The same pytree of NumPy arrays [n, T, ...].
    """
    chex.assert_rank(starts, 1)
    shards = num_shards()
    size = -(-min(at_a_time, len(starts)) // shards) * shards
    batches = []
    for number, first in enumerate(range(0, len(starts), size)):
        batch = starts[first : first + size]
        padded = jnp.asarray(np.resize(batch, size), jnp.int32)
        played = episode_batch(env_params, policy_params, padded, jax.random.fold_in(key, number))
        batches.append(jax.tree.map(lambda leaf: np.asarray(leaf).swapaxes(0, 1), played))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(starts)], *batches)

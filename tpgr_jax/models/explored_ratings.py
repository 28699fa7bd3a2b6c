"""What the simulator answers in random episodes with the training users, as a matrix of rewards."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from sim.envs.fixed_policies import random_policy
from sim.envs.rating_env import CONSECUTIVE_NEGATIVE, CONSECUTIVE_POSITIVE, EnvParams, RatingEnv, Trajectory
from sim.envs.rollout import rollout

_EPISODES_AT_A_TIME = 4096
_DECIMALS = 5  # of an empirical reward, after the sequential part is taken off again


class ExploredRatings(NamedTuple):
    """`rewards`: sparse [n, I] empirical rewards seen, 0 where none was; `seen`: the share of all answers seen."""

    rewards: scipy.sparse.csr_array
    seen: float


def explore_ratings(
    env: RatingEnv, env_params: EnvParams, users: np.ndarray, episodes_per_user: int, seed: int
) -> ExploredRatings:
    """Plays episodes that recommend uniformly at random, and notes every answer.

    Args:
        users: [n] whom to ask; row u of the result is users[u].
        episodes_per_user: How often.
    """
    # Random episodes, as many at a time as fit one compiled program.
    policy = random_policy(env.num_items)
    play = jax.jit(lambda env_params, users, key: rollout(env, env_params, policy, None, users, key, explore=True))
    rows = np.tile(np.arange(len(users)), episodes_per_user)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for number, first in enumerate(range(0, len(rows), _EPISODES_AT_A_TIME)):
        row = rows[first : first + _EPISODES_AT_A_TIME]
        padded = np.resize(row, _EPISODES_AT_A_TIME)  # one shape for all, compiled once
        key = jax.random.fold_in(jax.random.key(seed), number)
        trajectory = play(env_params, jnp.asarray(users[padded], jnp.int32), key)
        empirical = _empirical(trajectory, float(env_params.alpha))[:, : len(row)]
        rated = empirical != 0
        index = row[None].astype(np.int64) * env.num_items + np.asarray(trajectory.item)[:, : len(row)]
        seen.append((index[rated], empirical[rated]))

    # Each user's reward of each item once.
    index, first_seen = np.unique(np.concatenate([indices for indices, _ in seen]), return_index=True)
    values = np.concatenate([values for _, values in seen])[first_seen]
    shape = (len(users), env.num_items)
    rewards = scipy.sparse.csr_array((values, (index // env.num_items, index % env.num_items)), shape)
    length, items = env.episode_length, env.num_items
    missed = (1 - 1 / items) ** length if env.allow_repeats else 1 - length / items  # by one episode
    return ExploredRatings(rewards, 1 - missed**episodes_per_user)


def _empirical(trajectory: Trajectory, alpha: float) -> np.ndarray:
    """Returns [T, B] empirical rewards: R less alpha (c_p - c_n), which the user status tells (Eq. 6)."""
    status, steps = np.asarray(trajectory.status, np.float64), len(trajectory.reward)
    streak = np.round(steps * (status[:, :, CONSECUTIVE_POSITIVE] - status[:, :, CONSECUTIVE_NEGATIVE]))
    return np.round(np.asarray(trajectory.reward, np.float64) - alpha * streak, _DECIMALS)

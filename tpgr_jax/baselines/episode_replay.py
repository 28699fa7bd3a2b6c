"""A replay memory of whole episodes: the state is recurrent, so a sampled episode is encoded from its beginning."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from harness.training.replay import Replay, add_rows, make_replay, sample_rows
from sim.envs.rating_env import Trajectory, statuses


@flax.struct.dataclass
class StoredEpisode:
    """One episode as ids: 287 bytes for T = 32.

    Attributes:
        item: [..., T] int32 recommended items.
        reward: [..., T] float32 rewards R (Eq. 6).
        sign: [..., T - 1] int8 signs of the empirical rewards, from which the user status follows; the last one would
            matter only after the end.
    """

    item: jax.Array
    reward: jax.Array
    sign: jax.Array


@flax.struct.dataclass
class Episodes:
    """n episodes as the encoder reads them, time first.

    Attributes:
        item: [T, n] int32 recommended items.
        reward: [T, n] float32 rewards.
        status: [T, n, 9] float32 user status before each step.
    """

    item: jax.Array
    reward: jax.Array
    status: jax.Array


def make_episode_replay(episode_length: int, capacity: int) -> Replay:
    """Returns an empty memory of `capacity` episodes of T steps."""
    item = jnp.zeros((episode_length,), jnp.int32)
    sign = jnp.zeros((episode_length - 1,), jnp.int8)
    return make_replay(StoredEpisode(item, item.astype(jnp.float32), sign), capacity)


def add_episodes(replay: Replay, trajectory: Trajectory) -> Replay:
    """Adds the B episodes of a rollout; the oldest give way."""
    balance = trajectory.status[..., 1] - trajectory.status[..., 0]  # (positive - negative so far) / T
    sign = jnp.sign(jnp.diff(balance, axis=0)).astype(jnp.int8)
    rows = StoredEpisode(trajectory.item.T, trajectory.reward.T, sign.T)
    return add_rows(replay, rows, jnp.ones(trajectory.item.shape[1], bool))


def sample_episodes(replay: Replay, key: jax.Array, number: int) -> Episodes:
    """Draws n episodes uniformly, with replacement."""
    rows = sample_rows(replay, key, number)
    status = jax.vmap(statuses, out_axes=1)(rows.sign)
    return Episodes(rows.item.T, rows.reward.T, status)

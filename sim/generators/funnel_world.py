"""What a generated log is drawn from: items, users and their visits (`sim.generators.funnel` describes the truth)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sim.generators.funnel_users import FunnelParams, unit
from sim.generators.shop import Catalogue

GENERATOR_VERSION = 3
"""Increment when the same settings would give a different log; cached logs then expire."""

DIMENSION = 50
NUM_CLUSTERS = 25
MIN_SESSION, MAX_SESSION = 20, 60
DAY = 86_400
FIRST_DAY = 17_754 * DAY  # 2018-08-11
SECONDS_PER_IMPRESSION = 15
_TRAIN_SESSIONS, _TEST_SESSIONS = 1.5, 0.65  # Poisson means beyond the first of the training day
_MAX_SESSIONS_PER_DAY = 5
LOGGED, PLAYED = 1, 2  # streams of random numbers: curiosity in the log's sessions, and in those played later


class Interests(NamedTuple):
    """What curiosities are drawn from: centres [25, 50] of the clusters, and axes [50, 50] of the noise."""

    centres: jax.Array
    axes: jax.Array


class World(NamedTuple):
    """Items and users: the truth, with no curiosity yet; what curiosities are drawn from; the shop's catalogue."""

    params: FunnelParams
    interests: Interests
    catalogue: Catalogue


def draw_world(generator: np.random.Generator, users: int, items: int) -> World:
    """Draws so many items and users, kc and ko 0 as yet; equal generators in equal states give equal worlds."""
    scale = np.arange(1, DIMENSION + 1) ** -0.5
    rotation = np.linalg.qr(generator.normal(size=(DIMENSION, DIMENSION)))[0]

    def noise(*shape: int) -> np.ndarray:
        return generator.normal(size=(*shape, DIMENSION)) * scale

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    # Items: clusters, vectors and appeal.
    centres = unit(noise(NUM_CLUSTERS))
    cluster = generator.integers(NUM_CLUSTERS, size=items)
    vectors = unit(centres[cluster] + 0.5 * unit(noise(items)))
    mixing = np.linalg.cholesky([[1.0, 0.2], [0.2, 1.0]])
    of_cluster, of_item = generator.normal(size=(NUM_CLUSTERS, 2)), generator.normal(size=(items, 2))
    click_appeal, order_appeal = ((of_cluster[cluster] + of_item) / np.sqrt(2) @ mixing.T).T
    # Users: taste for two clusters.
    two = np.stack([generator.choice(NUM_CLUSTERS, 2, replace=False) for _ in range(users)])
    taste = unit(centres[two].sum(1) + 0.3 * unit(noise(users)))
    # Popularity: a long tail.
    rank = generator.permutation(items) + 1.0
    popularity = np.exp(0.5 * click_appeal + 0.3 * order_appeal) * rank**-0.7
    params = FunnelParams(
        item=jnp.asarray(vectors @ rotation, jnp.float32),
        click_appeal=jnp.asarray(click_appeal, jnp.float32),
        order_appeal=jnp.asarray(order_appeal, jnp.float32),
        taste=jnp.asarray(taste @ rotation, jnp.float32),
        curiosity=jnp.zeros((users, DIMENSION)),
        trust=jnp.zeros((users,)),
        length=jnp.full((users,), MAX_SESSION, jnp.int32),
        click_bias=jnp.float32(0),
        order_bias=jnp.float32(0),
    )
    return World(
        params,
        Interests(jnp.asarray(centres @ rotation, jnp.float32), jnp.asarray(scale[:, None] * rotation, jnp.float32)),
        Catalogue(params.item, jnp.asarray(np.cumsum(np.sqrt(popularity)), jnp.float32)),
    )


@jax.jit
def draw_curiosity(interests: Interests, key: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Draws [S, 50] curiosities about one cluster each; equal numbers, [S] int each, give equal ones."""

    def draw(first: jax.Array, second: jax.Array) -> jax.Array:
        cluster_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, first), second))
        centre = interests.centres[jax.random.randint(cluster_key, (), 0, NUM_CLUSTERS)]
        return unit(centre + 0.5 * unit(jax.random.normal(noise_key, (DIMENSION,)) @ interests.axes))

    return jax.vmap(draw)(first, second)


@dataclass(frozen=True)
class Schedule:
    """When users visit: `length` [U, S] impressions of each session in order (0: none) and their `start` times."""

    length: np.ndarray
    start: np.ndarray


def draw_sessions(generator: np.random.Generator, users: int) -> Schedule:
    """Draws each user's sessions; slots of the day keep them from overlapping."""
    counts = np.stack([1 + generator.poisson(_TRAIN_SESSIONS, users), generator.poisson(_TEST_SESSIONS, users)])
    train, test = np.minimum(counts, _MAX_SESSIONS_PER_DAY)[:, :, None]
    session = np.arange(2 * _MAX_SESSIONS_PER_DAY)
    second_day = session >= train
    of_day = np.where(second_day, session - train, session)
    slot = DAY // _MAX_SESSIONS_PER_DAY
    shape = (users, len(session))
    start = FIRST_DAY + second_day * DAY + of_day * slot
    start = start + generator.integers(0, slot - MAX_SESSION * SECONDS_PER_IMPRESSION, shape)
    length = generator.integers(MIN_SESSION, MAX_SESSION + 1, shape)
    return Schedule(np.where(session < train + test, length, 0), start)

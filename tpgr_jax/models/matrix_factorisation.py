"""Biased matrix factorisation (Koren, Bell and Volinsky 2009): r_ui ~ mean + b_u + b_i + p_u . q_i."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sim.files.cache import cached
from sim.tables.ratings import RatingData

LEARNING_RATE = 0.01
REGULARISATION = 0.02
_VERSION = 1  # of what `factor_vectors` computes; part of the key of stored ones


def factorise(data: RatingData, users: np.ndarray, size: int, epochs: int, seed: int) -> dict[str, np.ndarray]:
    """Fits the model to the ratings of the given users by Adam on random mini-batches of ratings.

    Args:
        data: Ratings.
        users: [n] (training) users, ascending.
        size: Factors K >= 0.
        epochs: How often each rating is drawn on average.

    Returns:
        "mean" scalar, "user_bias" [n], "item_bias" [I], "user_factors" [n, K], "item_factors" [I, K], in units of the
        rating scale divided by its largest value.
    """
    matrix = data.matrix(data.rating_values / data.rating_max, users)
    rows = np.repeat(np.arange(len(users), dtype=np.int32), np.diff(matrix.indptr))
    mean = float(matrix.data.mean(dtype=np.float64)) if matrix.nnz else 0.0
    batch_size = int(np.clip(matrix.nnz // 100, 256, 2**20))
    num_steps = max(1, epochs * matrix.nnz // batch_size)
    # The tag keeps these numbers apart from those of a learner with the same seed.
    init_key, key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    user_key, item_key = jax.random.split(init_key)
    params = {
        "user_bias": jnp.zeros(len(users)),
        "item_bias": jnp.zeros(data.num_items),
        "user_factors": 0.1 * jax.random.normal(user_key, (len(users), size)),
        "item_factors": 0.1 * jax.random.normal(item_key, (data.num_items, size)),
    }
    ratings = (jnp.asarray(rows), jnp.asarray(matrix.indices), jnp.asarray(matrix.data - np.float32(mean)))
    fitted = _fit(params, ratings, key, batch_size, num_steps)
    return {"mean": np.asarray(mean), **jax.device_get(fitted)}


@partial(jax.jit, static_argnums=(3, 4))
def _fit(params: Any, ratings: tuple[jax.Array, ...], key: jax.Array, batch_size: int, num_steps: int) -> Any:
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))

    def loss(params: Any, user: jax.Array, item: jax.Array, rating: jax.Array) -> jax.Array:
        user_bias, item_bias = params["user_bias"][user], params["item_bias"][item]
        user_factors, item_factors = params["user_factors"][user], params["item_factors"][item]
        predicted = user_bias + item_bias + jnp.sum(user_factors * item_factors, -1)
        size = user_bias**2 + item_bias**2 + jnp.sum(user_factors**2, -1) + jnp.sum(item_factors**2, -1)
        return jnp.mean((rating - predicted) ** 2 + REGULARISATION * size)

    def step(carry: tuple[Any, Any], number: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, opt_state = carry
        drawn = jax.random.randint(jax.random.fold_in(key, number), (batch_size,), 0, ratings[0].shape[0])
        gradient = jax.grad(loss)(params, *(column[drawn] for column in ratings))
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(num_steps))
    return params


@dataclass(frozen=True)
class ItemFactors:
    """[I, E] float32 item vectors of `factor_vectors`, as they are kept on disk."""

    vectors: np.ndarray


def stored_factor_vectors(
    cache: Path, data: RatingData, users: np.ndarray, size: int, epochs: int, seed: int
) -> np.ndarray:
    """Returns `factor_vectors` from the cache folder, or computes and stores them there."""
    key = {
        "factors": _VERSION,
        "data": [data.name, data.table_hash, data.checksum, data.num_users, data.num_items, data.num_ratings],
        "users": zlib.crc32(np.ascontiguousarray(users, np.int64).tobytes()),
        "settings": [size, epochs, seed],
        "computed": [jax.__version__, jax.default_backend()],
    }
    return cached(ItemFactors, cache, key, lambda: ItemFactors(factor_vectors(data, users, size, epochs, seed))).vectors


def factor_vectors(data: RatingData, users: np.ndarray, size: int, epochs: int, seed: int) -> np.ndarray:
    """Returns [I, size] float32 item vectors: size - 1 factors and the item bias, each column scaled to unit spread."""
    model = factorise(data, users, size - 1, epochs, seed)
    vectors = np.concatenate([model["item_factors"], model["item_bias"][:, None]], axis=1)
    spread = vectors.std(axis=0)
    return (vectors / np.where(spread > 0, spread, 1)).astype(np.float32)

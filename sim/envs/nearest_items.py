"""Exact nearest items of vectors, among those that can still be recommended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sim.envs.available_items import hide_recommended

NUMBERS_AT_A_TIME = 2**21  # of an intermediate array [rows, ...]; larger ones leave a processor's cache


def unit(vector: jax.Array) -> jax.Array:
    """Returns vectors scaled to norm 1 along the last axis; zero stays zero, with a finite gradient."""
    return vector * jax.lax.rsqrt(jnp.maximum(jnp.sum(vector**2, -1, keepdims=True), 1e-12))


def similarity(query: jax.Array, vectors: jax.Array, measure: str) -> jax.Array:
    """Returns [..., I] how near each item is to each query, the nearest highest.

    Args:
        query: [..., E].
        vectors: [I, E] items.
        measure: "inner" (product) or "euclidean": q.e - |e|^2 / 2, which orders items as -|q - e| does.
    """
    product = query @ vectors.T
    return product if measure == "inner" else product - 0.5 * jnp.sum(vectors**2, -1)


def best_available(scores: jax.Array, recommended: jax.Array) -> jax.Array:
    """Returns the int32 item of the highest score [I] among those not in `recommended` ([T] int32, -1 = none)."""
    return jnp.argmax(hide_recommended(scores, recommended)).astype(jnp.int32)


def best_candidate(scores: jax.Array, candidates: jax.Array, recommended: jax.Array) -> jax.Array:
    """Returns the int32 candidate of the highest score among those not in `recommended`.

    Args:
        scores: [L] of the candidates.
        candidates: [L] int32 items, padded with -1.
        recommended: [T] int32 items, padded with -1.
    """
    taken = jnp.any(candidates[:, None] == recommended, -1)
    return candidates[jnp.argmax(jnp.where(taken | (candidates < 0), -jnp.inf, scores))]


def map_rows(function: Callable[[Any], Any], rows: Any, numbers_per_row: int) -> Any:
    """Returns `vmap(function)(rows)`, as many rows at a time as keep the intermediate arrays small.

    Args:
        function: Of one row.
        rows: Arrays [S, ...], a pytree.
        numbers_per_row: Size of the largest intermediate array of one row.
    """
    number = jax.tree.leaves(rows)[0].shape[0]
    at_a_time = max(1, NUMBERS_AT_A_TIME // max(1, numbers_per_row))
    # Equal parts: a remainder would be compiled once more.
    parts = math.ceil(number / at_a_time)
    at_a_time = math.ceil(number / parts)
    return jax.vmap(function)(rows) if parts == 1 else jax.lax.map(function, rows, batch_size=at_a_time)

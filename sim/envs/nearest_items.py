"""Exact nearest items of vectors, among those not yet recommended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from sim.envs.available_items import hide_recommended
from sim.envs.fast_argmax import fast_argmax

NUMBERS_AT_A_TIME = 2**21  # in an intermediate array [rows, ...]; larger ones exceed a processor's cache


def unit(vector: jax.Array) -> jax.Array:
    """Returns vectors scaled to norm 1 along the last axis; zero stays zero, with a finite gradient."""
    return vector * jax.lax.rsqrt(jnp.maximum(jnp.sum(vector**2, -1, keepdims=True), 1e-12))


def similarity(query: jax.Array, vectors: jax.Array, measure: str) -> jax.Array:
    """Returns [..., I] the similarity of each item to each query, highest for the nearest.

    A zero vector stands for an item of which nothing is known, which is near to nothing: it comes last.

    Args:
        query: [..., E] queries.
        vectors: [I, E] item vectors.
        measure: "inner" (product) or "euclidean": q.e - |e|^2 / 2, which orders items as -|q - e| does.
    """
    chex.assert_axis_dimension(vectors, 1, query.shape[-1])
    product = query @ vectors.T
    scores = product if measure == "inner" else product - 0.5 * jnp.sum(vectors**2, -1)
    return unknown_last(scores, is_known(vectors))


def is_known(vectors: jax.Array) -> jax.Array:
    """Returns [I] bool which item vectors [I, E] are not zero, as those of items without training ratings are."""
    return jnp.any(vectors != 0, -1)


def unknown_last(scores: jax.Array, known: jax.Array) -> jax.Array:
    """Returns scores [..., n] in which items that are not `known` ([n] bool) are below all others, yet not excluded."""
    below = jnp.min(scores, -1, keepdims=True, initial=0.0, where=known) - 1
    return jnp.where(known, scores, below)


def best_available(scores: jax.Array, recommended: jax.Array) -> jax.Array:
    """Returns the int32 item with the highest score [I] that is not in `recommended` ([T] int32, -1 = none)."""
    return fast_argmax(hide_recommended(scores, recommended))


def best_candidate(scores: jax.Array, candidates: jax.Array, recommended: jax.Array) -> jax.Array:
    """Returns the int32 candidate with the highest score that is not in `recommended`.

    Args:
        scores: [L] score of each candidate.
        candidates: [L] int32 items, padded with -1.
        recommended: [T] int32 items, padded with -1.
    """
    chex.assert_rank([scores, candidates, recommended], 1)
    chex.assert_equal_shape([scores, candidates])
    taken = jnp.any(candidates[:, None] == recommended, -1)
    return candidates[fast_argmax(jnp.where(taken | (candidates < 0), -jnp.inf, scores))]


def k_largest(scores: jax.Array, k: int) -> jax.Array:
    """Returns [k] int32 positions of the k largest scores, ascending; among equal ones the first are taken.

    A partition rather than a sort, which is what takes the time in `jax.lax.top_k` on a CPU: the k-th largest score is
    found bit by bit, by counting. Counts are sums of floats, exact up to 2^24: XLA vectorises those of integers less.

    Args:
        scores: [I] float32, no NaN, at most 2^24.
        k: 1 to I (static).
    """
    chex.assert_rank(scores, 1)
    assert len(scores) <= 2**24, "counts are exact up to 2^24"
    # Floats as integers of the same order.
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32)
    ordered = bits ^ (jax.lax.shift_right_arithmetic(bits, 31) & jnp.int32(0x7FFFFFFF))

    def with_next_bit(place: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold + jax.lax.shift_left(jnp.int32(1), 31 - place)  # from the least integer up; the first wraps
        return jnp.where(jnp.sum(ordered >= higher, dtype=jnp.float32) >= k, higher, threshold)

    kth = jax.lax.fori_loop(0, 32, with_next_bit, jnp.int32(jnp.iinfo(jnp.int32).min))
    # What is above it, and as many of its equals as there is room for.
    above, equal = ordered > kth, ordered == kth
    room = k - jnp.sum(above, dtype=jnp.float32)
    taken = above | (equal & (_count_up_to(equal) <= room))
    # Each to its place; the others beyond the end, where they are dropped.
    places = jnp.where(taken, _count_up_to(taken) - 1, k)
    return jnp.zeros(k, jnp.int32).at[places].set(jnp.arange(len(scores), dtype=jnp.int32), mode="drop")


def _count_up_to(chosen: jax.Array) -> jax.Array:
    """Returns [I] int32, how many of `chosen` [I] bool stand up to each place: `cumsum`, which is slow on a CPU."""
    width = 64
    blocks = jnp.pad(chosen, (0, -len(chosen) % width)).reshape(-1, width).astype(jnp.float32)
    within = jnp.dot(blocks, jnp.triu(jnp.ones((width, width))), precision="highest")
    before = jnp.cumsum(within[:, -1]) - within[:, -1]
    return (within + before[:, None]).reshape(-1)[: len(chosen)].astype(jnp.int32)


def map_rows(function: Callable[[Any], Any], rows: Any, numbers_per_row: int) -> Any:
    """Returns `vmap(function)(rows)`, computed for as many rows at a time as keep intermediate arrays small.

    Args:
        function: A function of one row.
        rows: Arrays [S, ...], a pytree.
        numbers_per_row: Size of the largest intermediate array of one row.
    """
    number = jax.tree.leaves(rows)[0].shape[0]
    at_a_time = max(1, NUMBERS_AT_A_TIME // max(1, numbers_per_row))
    # Parts of equal size: a remainder would have to be compiled as well.
    parts = math.ceil(number / at_a_time)
    at_a_time = math.ceil(number / parts)
    return jax.vmap(function)(rows) if parts == 1 else jax.lax.map(function, rows, batch_size=at_a_time)

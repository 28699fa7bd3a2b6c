"""Grouping samples by tree node, so that each node's weights are read once per tile and not once per sample.

A sample at a node needs that node's own weights. Gathering them per sample moves [samples, in, out] numbers; here the
samples are sorted by node and laid out in tiles of P rows that share a node, [tiles, P, features]. The number of tiles
has a static bound that always suffices, so that no sample is ever dropped, however unevenly the nodes are visited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

_GATHERED_BYTES = 2**22
"""Of kernels gathered at a time on CPU."""


class TilePlan(NamedTuple):
    """Where each of S samples goes.

    Attributes:
        source: [tiles * P] int32 sample in each row, S = padding.
        row: [S] int32 row of each sample.
        tile_node: [tiles] int32 node whose weights a tile uses (0 for unused tiles).
    """

    source: jax.Array
    row: jax.Array
    tile_node: jax.Array


def tile_rows(num_samples: int, num_nodes: int) -> int:
    """Returns P, a power of two near the mean number of samples per node (at most 128)."""
    mean = num_samples // max(1, num_nodes)
    return 1 << max(0, min(128, mean).bit_length() - 1)


def num_tiles(num_samples: int, num_nodes: int, rows: int) -> int:
    """Returns the largest number of tiles that any distribution of the samples over the nodes can need.

    g groups of sizes n_i >= 1 need sum ceil(n_i / P) <= (S - g) / P + g tiles, which grows with g <= min(S, N).
    """
    groups = min(num_samples, num_nodes)
    return (num_samples - groups) // rows + groups


def plan_tiles(node: jax.Array, num_nodes: int) -> TilePlan:
    """Plans the layout for samples at the given nodes.

    Args:
        node: [S] int32 in [0, num_nodes).
        num_nodes: Static number of nodes.
    """
    chex.assert_rank(node, 1)
    num_samples = node.shape[0]
    rows = tile_rows(num_samples, num_nodes)
    tiles = num_tiles(num_samples, num_nodes, rows)

    # Samples in the order of their nodes; the n-th of a node goes to row n mod P of its tile n div P.
    position = jnp.arange(num_samples, dtype=jnp.int32)
    sorted_node, order = sorted_nodes(node, position, num_nodes)
    first = jnp.concatenate([jnp.ones((1,), bool), sorted_node[1:] != sorted_node[:-1]])
    rank = position - jax.lax.cummax(jnp.where(first, position, 0))
    tile = jnp.cumsum(rank % rows == 0, dtype=jnp.int32) - 1
    row_of_sorted = tile * rows + rank % rows

    # The layout in both directions.
    source = jnp.full((tiles * rows,), num_samples, jnp.int32)
    source = source.at[row_of_sorted].set(order, unique_indices=True)
    row = jnp.zeros((num_samples,), jnp.int32).at[order].set(row_of_sorted, unique_indices=True)
    tile_node = jnp.zeros((tiles,), jnp.int32).at[tile].set(sorted_node)
    return TilePlan(source, row, tile_node)


def sorted_nodes(node: jax.Array, position: jax.Array, num_nodes: int) -> tuple[jax.Array, jax.Array]:
    """Returns the nodes in ascending order and the positions that they come from, equal nodes in order of position."""
    num_samples = node.shape[0]
    if num_nodes * num_samples >= 2**31:
        sorted_node, order = jax.lax.sort((node, position), num_keys=1, is_stable=True)
        return sorted_node, order
    # One number that holds both is sorted several times as fast as a pair.
    both = jnp.sort(node * num_samples + position)
    return both // num_samples, both % num_samples


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def pack(rows: jax.Array, plan: TilePlan, each: int = 1) -> jax.Array:
    """Lays [R, F] rows out as [tiles, P, F]; padding is zero. Inverse of `unpack` (`each` = 1), and its transpose.

    Args:
        plan: For S = R * each samples.
        each: Samples that share a row: those of row r are r * each, r * each + 1, ...
    """
    chex.assert_rank(rows, 2)
    padded = jnp.concatenate([rows, jnp.zeros((1, rows.shape[1]), rows.dtype)])
    return padded[plan.source // each].reshape(plan.tile_node.shape[0], -1, rows.shape[1])


@jax.custom_vjp
def unpack(tiles: jax.Array, plan: TilePlan) -> jax.Array:
    """Takes the samples back out of [tiles, P, F] as [S, F]."""
    chex.assert_rank(tiles, 3)
    return tiles.reshape(-1, tiles.shape[-1])[plan.row]


def _pack_backward(each: int, plan: TilePlan, cotangent: jax.Array) -> tuple[jax.Array, None]:
    return unpack(cotangent, plan).reshape(-1, each, cotangent.shape[-1]).sum(1), None


# Each sample has exactly one row, so the transpose of one gather is the other gather: no scatter is needed.
pack.defvjp(lambda rows, plan, each: (pack(rows, plan, each), plan), _pack_backward)
unpack.defvjp(lambda tiles, plan: (unpack(tiles, plan), plan), lambda plan, cotangent: (pack(cotangent, plan), None))


@jax.custom_vjp
def tile_products(tiles: jax.Array, kernel: jax.Array, tile_node: jax.Array) -> jax.Array:
    """Returns [tiles, P, G]: [tiles, P, F] rows times the kernel [N, F, G] of their tile's node.

    On CPU, where large kernels are gathered for some tiles at a time, the gathered copies stay in the cache.
    """
    chex.assert_rank([tiles, kernel, tile_node], [3, 3, 1])
    return in_parts(lambda tiles, tile_node: _products(tiles, kernel, tile_node), kernel, tiles, tile_node)


def _products(tiles: jax.Array, kernel: jax.Array, tile_node: jax.Array) -> jax.Array:
    return jnp.einsum("npf,nfg->npg", tiles, kernel[tile_node])


def in_parts(function: Callable[..., Any], tables: Any, *tiles: jax.Array) -> Any:
    """Returns `function(*tiles)`, on CPU computed for as many tiles at a time as gather 4 MiB of the tables.

    Args:
        function: From arrays of [n, ...], n of the tiles, to a pytree of [n, ...].
        tables: What it gathers from for each tile; a pytree of [N, ...].
        tiles: [tiles, ...].
    """
    gathered = sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tables))
    at_a_time, number = max(1, _GATHERED_BYTES // gathered), tiles[0].shape[0]
    if at_a_time >= number:
        return function(*tiles)

    def parts(*tiles: jax.Array) -> Any:
        padding = -number % at_a_time
        padded = (jnp.pad(part, ((0, padding), *[(0, 0)] * (part.ndim - 1))) for part in tiles)
        split = tuple(part.reshape(-1, at_a_time, *part.shape[1:]) for part in padded)
        results = jax.lax.map(lambda part: function(*part), split)
        return jax.tree.map(lambda result: result.reshape(-1, *result.shape[2:])[:number], results)

    return jax.lax.platform_dependent(*tiles, cpu=parts, default=function)


def _products_forward(tiles: jax.Array, kernel: jax.Array, tile_node: jax.Array) -> tuple[jax.Array, Any]:
    return tile_products(tiles, kernel, tile_node), (tiles, kernel, tile_node)


def _products_backward(kept: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    # That of the whole: in parts, every part would add to all nodes' kernels.
    tiles, kernel, tile_node = kept
    gradient = jax.vjp(lambda tiles, kernel: _products(tiles, kernel, tile_node), tiles, kernel)[1]
    return *gradient(cotangent), None


tile_products.defvjp(_products_forward, _products_backward)

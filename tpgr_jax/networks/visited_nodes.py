"""The gradients of visited nodes' networks, some nodes at a time, from the factors of all samples' gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from tpgr_jax.networks.grouped_matmul import sorted_nodes
from tpgr_jax.networks.stale_heads import Factors

_NODES, _SAMPLES = 16, 16  # at a time
Carry = TypeVar("Carry")


class Visits(NamedTuple):
    """S samples in the order of their nodes, of which there are N; V = min(S, N).

    Attributes:
        nodes: [V] int32 visited nodes, ascending; then numbers from N on, ascending.
        number: int32 how many were visited.
        first: [V + 1] int32 first sample of each visited node; then S.
        rank: [S] int32 index of each sample's node in `nodes`.
        factors: Of the samples.
    """

    nodes: jax.Array
    number: jax.Array
    first: jax.Array
    rank: jax.Array
    factors: Factors


def group_by_node(node: jax.Array, num_nodes: int, factors: Factors) -> Visits:
    """Sorts samples by their nodes, [S] int32 in [0, N)."""
    samples, most = node.shape[0], min(node.shape[0], num_nodes)
    position = jnp.arange(samples, dtype=jnp.int32)
    ordered, order = sorted_nodes(node, position, num_nodes)
    is_first = jnp.concatenate([jnp.ones((1,), bool), ordered[1:] != ordered[:-1]])
    rank = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    nodes = (num_nodes + jnp.arange(most, dtype=jnp.int32)).at[rank].set(ordered)
    first = jnp.full((most + 1,), samples, jnp.int32).at[rank].min(position)
    return Visits(nodes, rank[-1] + 1, first, rank, jax.tree.map(lambda values: values[order], factors))


def over_visited(visits: Visits, function: Callable[[Carry, jax.Array, Any], Carry], carry: Carry) -> Carry:
    """Passes over the visited nodes, some at a time.

    Args:
        visits: Grouped samples.
        function: From the carry, [R] nodes (`Visits.nodes`, or more numbers like those behind the visited) and the
            gradient of each layer's kernel [R, F, G] and bias [R, G] to the next carry.
        carry: At first.
    """
    most = visits.nodes.shape[0]
    blocks = -(-most // _NODES)
    padding = blocks * _NODES - most
    nodes = jnp.concatenate([visits.nodes, jnp.iinfo(jnp.int32).max - padding + jnp.arange(padding, dtype=jnp.int32)])
    first = jnp.pad(visits.first, (0, padding), mode="edge")
    padded = jax.tree.map(lambda values: jnp.pad(values, ((0, _SAMPLES), *[(0, 0)] * (values.ndim - 1))), visits)

    def pass_block(block: jax.Array, carry: Carry) -> Carry:
        start = block * _NODES
        index = jax.lax.dynamic_slice(nodes, (start,), (_NODES,))
        samples = first[start], first[start + _NODES]
        return function(carry, index, _block_gradient(padded.factors, padded.rank - start, *samples))

    # A bound that depends on the data would make a batch of seeds select between whole tables in every iteration.
    on_cpu = jax.default_backend() == "cpu"
    return jax.lax.fori_loop(0, -(-visits.number // _NODES) if on_cpu else blocks, pass_block, carry)


def _block_gradient(factors: Factors, rank: jax.Array, start: jax.Array, end: jax.Array) -> list[tuple[Any, Any]]:
    """Returns the gradients of nodes 0 to R - 1 by [S] rank, whose samples are those from `start` to `end`."""

    def add(part: jax.Array, sums: list[tuple[jax.Array, jax.Array]]) -> list[tuple[jax.Array, jax.Array]]:
        # Products with the slopes, each in the column of its sample's node.
        begin = start + part * _SAMPLES
        inside = begin + jnp.arange(_SAMPLES) < end
        of_node = jax.lax.dynamic_slice(rank, (begin,), (_SAMPLES,))[:, None] == jnp.arange(_NODES)
        column = (of_node & inside[:, None])[..., None]
        added = []
        for (kernel, bias), inputs, slopes in zip(sums, *factors, strict=True):
            inputs, slopes = (jax.lax.dynamic_slice_in_dim(values, begin, _SAMPLES) for values in (inputs, slopes))
            spread = jnp.where(column, slopes[:, None], 0.0)
            product = inputs.T @ spread.reshape(_SAMPLES, -1)
            added.append((kernel + product.reshape(kernel.shape), bias + jnp.sum(spread, 0)))
        return added

    zeros = [
        (jnp.zeros((inputs.shape[1], _NODES, slopes.shape[1])), jnp.zeros((_NODES, slopes.shape[1])))
        for inputs, slopes in zip(*factors, strict=True)
    ]
    sums = jax.lax.fori_loop(0, -(-(end - start) // _SAMPLES), add, zeros)
    return [(jnp.swapaxes(kernel, 0, 1), bias) for kernel, bias in sums]

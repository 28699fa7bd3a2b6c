"""The gradients of visited nodes' networks, some nodes at a time, from the factors of all samples' gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from tpgr_jax.networks.grouped_matmul import sorted_nodes
from tpgr_jax.networks.stale_heads import Factors

_NODES, _SAMPLES = 16, 4  # nodes at a time, and samples of each
Carry = TypeVar("Carry")


class Visits(NamedTuple):
    """S samples in the order of their nodes, of which there are N; V = min(S, N).

    Attributes:
        nodes: [V] int32 visited nodes, ascending; then numbers from N on, ascending.
        number: int32 how many were visited.
        first: [V + 1] int32 first sample of each visited node; then S.
        factors: Of the samples.
    """

    nodes: jax.Array
    number: jax.Array
    first: jax.Array
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
    return Visits(nodes, rank[-1] + 1, first, jax.tree.map(lambda values: values[order], factors))


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

    def pass_block(block: jax.Array, carry: Carry) -> Carry:
        start = block * _NODES
        index = jax.lax.dynamic_slice(nodes, (start,), (_NODES,))
        bounds = jax.lax.dynamic_slice(first, (start,), (_NODES + 1,))
        gradient = _block_gradient(visits.factors, bounds[:-1], bounds[1:])
        return function(carry, index, jax.lax.optimization_barrier(gradient))  # fused, it would be computed many times

    # A bound that depends on the data would make a batch of seeds select between whole tables in every iteration.
    on_cpu = jax.default_backend() == "cpu"
    return jax.lax.fori_loop(0, -(-visits.number // _NODES) if on_cpu else blocks, pass_block, carry)


def sum_of_squares(visits: Visits) -> jax.Array:
    """Returns the squared norm of the whole gradient of the visited nodes' networks."""

    def add(sums: Any, nodes: jax.Array, gradient: Any) -> Any:
        return jax.tree.map(lambda total, leaf: total + leaf**2, sums, gradient)

    zeros = [
        (jnp.zeros((_NODES, inputs.shape[1], slopes.shape[1])), jnp.zeros((_NODES, slopes.shape[1])))
        for inputs, slopes in zip(*visits.factors, strict=True)
    ]
    # One sum for each place in a block: a single one would be added to number by number on CPU.
    total: jax.Array = optax.tree.sum(over_visited(visits, add, zeros))
    return total


def _block_gradient(factors: Factors, start: jax.Array, end: jax.Array) -> list[tuple[Any, Any]]:
    """Returns the gradients of R nodes, each with the samples from `start` to before `end`, [R] each."""

    def part(number: jax.Array | int) -> list[tuple[jax.Array, jax.Array]]:
        at = start[:, None] + number * _SAMPLES + jnp.arange(_SAMPLES)
        inside = (at < end[:, None])[..., None]
        sums = []
        for inputs, slopes in zip(*factors, strict=True):
            x, d = (values.at[at].get(mode="clip") for values in (inputs, slopes))
            d = jnp.where(inside, d, 0.0)
            sums.append((jnp.einsum("rsf,rsg->rfg", x, d), jnp.sum(d, 1)))
        return sums

    def add(number: jax.Array, sums: Any) -> Any:
        return jax.tree.map(jnp.add, sums, part(number))

    return jax.lax.fori_loop(1, -(-jnp.max(end - start) // _SAMPLES), add, part(0))

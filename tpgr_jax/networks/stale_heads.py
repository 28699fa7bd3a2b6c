"""Networks of a level's nodes that are brought up to date as they are read, and the factors of their gradient.

The gradient of a layer's kernel at a node is the sum of outer(inputs, slopes) over the samples there. The factors of
all samples are a few hundred numbers each, the gradients of all nodes gigabytes; so the backward pass gives factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from harness.training.lazy_adam import Stale
from tpgr_jax.networks.grouped_matmul import TilePlan, in_parts, pack, plan_tiles, unpack

Layers = Sequence[tuple[Any, Any]]
"""A kernel and a bias of each layer, or what belongs to them."""


class Factors(NamedTuple):
    """Of the gradient with respect to the network that each of S samples used.

    Attributes:
        inputs: Of each layer, [S, F].
        slopes: Derivatives with respect to each layer's outputs before the activation, [S, G].
    """

    inputs: list[jax.Array]
    slopes: list[jax.Array]


def no_factors(layers: Layers, samples: int) -> Factors:
    """Returns zeros in the place of the factors for [N, F, G] kernels, to differentiate with respect to them."""
    shapes = [kernel.shape for kernel, _ in layers]
    return Factors(*([jnp.zeros((samples, shape[axis])) for shape in shapes] for axis in (1, 2)))


def stale_logits(stale: Stale, state: jax.Array, node: jax.Array, factors: Factors | None = None) -> jax.Array:
    """Returns [S, C] logits of nodes [S] (or [S, P], several for each state: [S, P, C]) at states [S, F].

    Args:
        stale: Kernels [N, F, G] and biases [N, G] of each layer.
        state: States.
        node: Their nodes.
        factors: Zeros; the "gradient" with respect to them are the factors of the networks' gradient. None: nothing is
            differentiated.
    """
    if factors is not None:
        return _differentiable(stale, state, node, factors)
    plan = plan_tiles(node.reshape(-1), _num_nodes(stale))
    logits = _tile_logits(stale, pack(state, plan, math.prod(node.shape[1:])), plan)
    return unpack(logits, plan).reshape(*node.shape, -1)


def _num_nodes(stale: Stale) -> int:
    number: int = stale.rest[0][0].shape[0]
    return number


def _tile_logits(stale: Stale, rows: jax.Array, plan: TilePlan) -> jax.Array:
    def logits(rows: jax.Array, tile_node: jax.Array) -> jax.Array:
        return _forward(stale.at(tile_node), rows)[-1]

    return in_parts(logits, stale.rest, rows, plan.tile_node)


def _forward(layers: Layers, rows: jax.Array) -> list[jax.Array]:
    """Returns the inputs of each layer and the outputs of the last, [tiles, P, F] each."""
    values = [rows]
    for number, (kernel, bias) in enumerate(layers):
        outputs = jnp.einsum("npf,nfg->npg", values[-1], kernel) + bias[:, None]
        values.append(outputs if number == len(layers) - 1 else nn.relu(outputs))
    return values


@jax.custom_vjp
def _differentiable(stale: Stale, state: jax.Array, node: jax.Array, factors: Factors) -> jax.Array:
    return stale_logits(stale, state, node)


def _differentiable_forward(stale: Stale, state: jax.Array, node: jax.Array, factors: Factors) -> tuple[jax.Array, Any]:
    plan = plan_tiles(node, _num_nodes(stale))
    return unpack(_tile_logits(stale, pack(state, plan), plan), plan), (stale, state, plan)


def _differentiable_backward(kept: Any, cotangent: jax.Array) -> tuple[None, jax.Array, None, Factors]:
    stale, state, plan = kept

    def backward(rows: jax.Array, slope: jax.Array, tile_node: jax.Array) -> Any:
        layers = stale.at(tile_node)
        *inputs, _ = _forward(layers, rows)
        slopes = [slope]
        for number in reversed(range(1, len(layers))):
            below = jnp.einsum("npg,nfg->npf", slopes[0], layers[number][0])
            slopes.insert(0, jnp.where(inputs[number] > 0, below, 0.0))
        return inputs[1:], slopes[:-1], jnp.einsum("npg,nfg->npf", slopes[0], layers[0][0])

    tiles = pack(state, plan), pack(cotangent, plan), plan.tile_node
    hidden, slopes, d_state = jax.tree.map(lambda part: unpack(part, plan), in_parts(backward, stale.rest, *tiles))
    return None, d_state, None, Factors([state, *hidden], [*slopes, cotangent])


_differentiable.defvjp(_differentiable_forward, _differentiable_backward)

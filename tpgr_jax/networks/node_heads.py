"""The policy networks of all nodes of a level as one batched array each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from harness.compute.sharding import EPISODES, EVERYWHERE, NODES, parts_here, per_device
from harness.training.lazy_adam import Stale
from tpgr_jax.networks.grouped_matmul import in_parts, pack, plan_tiles, tile_products, unpack

Layers = Sequence[tuple[Any, Any]]
"""A kernel and a bias of each layer, or what an optimiser keeps for them."""

SOME, STALE = "some", "stale"
"""Collections beside `params`: which nodes' networks there are, and what brings networks up to date (`NodeHeads`)."""


class NodeHeads(nn.Module):
    """The policy networks of all nodes of one level as one batched array each.

    With a variable `nodes` in the collection `SOME`, [V] int32 ascending, the parameters are those of these nodes
    alone, and no others may be asked for. With `layers` in the collection `STALE`, a `Stale` whose `rest` is not read, the
    parameters are points of rest.

    Attributes:
        num_nodes: N of this level.
        hidden: Widths of the hidden layers (ReLU); empty for linear heads.
        num_children: C outputs.
        shards: Devices that the nodes can be spread over. The parameters have room for a multiple of it (the networks
            behind the last node are never used), whether or not they are spread.
    """

    num_nodes: int
    hidden: Sequence[int]
    num_children: int
    shards: int = 1

    @nn.compact
    def __call__(self, state: jax.Array, node: jax.Array) -> jax.Array:
        """Returns [S, C] logits of each sample's node.

        Args:
            state: [S, F] states.
            node: [S] int32 index of the node within its level.
        """
        chex.assert_rank([state, node], [2, 1])
        # Networks stored here: all, or this device's share, or some nodes' alone.
        some: jax.Array | None = self.get_variable(SOME, "nodes")
        stored = 1 if self.num_nodes == 1 else -(-self.num_nodes // self.shards) * self.shards
        spread = stored > 1 and self.shards > 1 and some is None
        here = stored // parts_here(NODES) if spread else stored
        if some is not None:
            here, node = some.shape[0], jnp.searchsorted(some, node)

        layers, size = [], state.shape[-1]
        for layer, width in enumerate((*self.hidden, self.num_children)):
            last = layer == len(self.hidden)
            # Zero output layers make the untrained policy follow its prior exactly.
            kernel_init = nn.initializers.zeros if last else nn.initializers.lecun_normal(batch_axis=(0,))
            kernel = self.param(f"kernel_{layer}", kernel_init, (here, size, width))
            layers.append((kernel, self.param(f"bias_{layer}", nn.initializers.zeros, (here, width))))
            size = width

        behind: Stale | None = self.get_variable(STALE, "layers")
        episodes, held = PartitionSpec(EPISODES), PartitionSpec(NODES) if spread else EVERYWHERE
        logits = per_device(
            _spread_logits if spread else node_logits,
            (held if behind is None else Stale(held, held, EVERYWHERE, EVERYWHERE), episodes, episodes),
            episodes,
            state.shape[0],
        )
        return logits(layers if behind is None else behind._replace(rest=layers), state, node)


def as_layers(head: Mapping[str, Any]) -> Layers:
    """Returns what belongs to the parameters of `NodeHeads`, by their names, by layer."""
    return [(head[f"kernel_{layer}"], head[f"bias_{layer}"]) for layer in range(len(head) // 2)]


def node_logits(layers: Layers | Stale, state: jax.Array, node: jax.Array) -> jax.Array:
    """Returns [S, C] logits from kernels [N, F, G] and biases [N, G] of each layer, states [S, F] and nodes [S].

    With nodes [S, P], several for each state, [S, P, C].
    """
    chex.assert_equal_shape_prefix([state, node], 1)
    # Samples of one node together, in tiles.
    num_nodes = _num_nodes(layers)
    if num_nodes == 1:
        rows, tile_node = state[None], jnp.zeros((1,), jnp.int32)
    else:
        plan = plan_tiles(node.reshape(-1), num_nodes)
        rows, tile_node = pack(state, plan, math.prod(node.shape[1:])), plan.tile_node

    # The layers, on whole tiles.
    if isinstance(layers, Stale):
        rows = in_parts(lambda rows, tile_node: _stale_tiles(layers, rows, tile_node), rows, tile_node, layers.rest)
    else:
        for number, (kernel, bias) in enumerate(layers):
            rows = tile_products(rows, kernel, tile_node) + bias[tile_node][:, None]
            rows = rows if number == len(layers) - 1 else nn.relu(rows)
    if num_nodes == 1:
        logits = rows.reshape(-1, *(1,) * (node.ndim - 1), rows.shape[-1])
        return jnp.broadcast_to(logits, (*node.shape, rows.shape[-1]))
    return unpack(rows, plan).reshape(*node.shape, -1)


def _num_nodes(layers: Layers | Stale) -> int:
    number: int = (layers.rest if isinstance(layers, Stale) else layers)[0][0].shape[0]
    return number


def _stale_tiles(stale: Stale, rows: jax.Array, tile_node: jax.Array) -> jax.Array:
    layers = stale.at(tile_node)
    for number, (kernel, bias) in enumerate(layers):
        rows = jnp.einsum("npf,nfg->npg", rows, kernel) + bias[:, None]
        rows = rows if number == len(layers) - 1 else nn.relu(rows)
    return rows


def _spread_logits(layers: Layers | Stale, state: jax.Array, node: jax.Array) -> jax.Array:
    """As `node_logits` where each device holds the networks of some nodes: states travel, not weights."""
    if parts_here(NODES) == 1:
        return node_logits(layers, state, node)
    states, nodes = jax.lax.all_gather((state, node), NODES, tiled=True)
    held = _num_nodes(layers)
    index = nodes - jax.lax.axis_index(NODES) * held
    is_local = (index >= 0) & (index < held)
    logits = node_logits(layers, states, jnp.clip(index, 0, held - 1))
    # Exactly one device has each sample's logits; the others add zeros.
    return jax.lax.psum_scatter(jnp.where(is_local[:, None], logits, 0.0), NODES, tiled=True)

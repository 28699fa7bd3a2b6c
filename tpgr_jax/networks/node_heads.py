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
from tpgr_jax.networks.drawing import in_rows
from tpgr_jax.networks.grouped_matmul import pack, plan_tiles, tile_products, unpack
from tpgr_jax.networks.stale_heads import Factors, Layers, stale_logits

STALE = "stale"
"""A collection beside `params` (see `NodeHeads`)."""


class NodeHeads(nn.Module):
    """The policy networks of all nodes of one level as one batched array each.

    With a variable `layers` in the collection `STALE`, a `Stale` whose `rest` is not read, the parameters are points of
    rest, and a variable `factors` makes the networks' gradient one of its factors (`stale_logits`).

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
        # Networks stored here: all, or this device's share.
        stored = 1 if self.num_nodes == 1 else -(-self.num_nodes // self.shards) * self.shards
        spread = stored > 1 and self.shards > 1
        here = stored // parts_here(NODES) if spread else stored

        layers, size = [], state.shape[-1]
        for layer, width in enumerate((*self.hidden, self.num_children)):
            last = layer == len(self.hidden)
            # Zero output layers make the untrained policy follow its prior exactly.
            kernel_init = nn.initializers.zeros if last else in_rows(nn.initializers.lecun_normal(batch_axis=(0,)))
            kernel = self.param(f"kernel_{layer}", kernel_init, (here, size, width))
            layers.append((kernel, self.param(f"bias_{layer}", nn.initializers.zeros, (here, width))))
            size = width

        behind: Stale | None = self.get_variable(STALE, "layers")
        factors: Factors | None = self.get_variable(STALE, "factors")
        if behind is not None and factors is not None:
            return stale_logits(behind._replace(rest=layers), state, node, factors)
        episodes = PartitionSpec(EPISODES)
        logits = per_device(
            _spread_logits if spread else node_logits,
            (PartitionSpec(NODES) if spread else EVERYWHERE, episodes, episodes),
            episodes,
            state.shape[0],
        )
        return logits(layers if behind is None else behind._replace(rest=layers), state, node)


def as_layers(head: Mapping[str, Any]) -> Layers:
    """Returns what belongs to the parameters of `NodeHeads`, by their names, by layer."""
    return [(head[f"kernel_{layer}"], head[f"bias_{layer}"]) for layer in range(len(head) // 2)]


def by_name(layers: Layers) -> dict[str, Any]:
    """The inverse of `as_layers`."""
    kernels = {f"kernel_{layer}": kernel for layer, (kernel, _) in enumerate(layers)}
    return kernels | {f"bias_{layer}": bias for layer, (_, bias) in enumerate(layers)}


def node_logits(layers: Layers | Stale, state: jax.Array, node: jax.Array) -> jax.Array:
    """Returns [S, C] logits from kernels [N, F, G] and biases [N, G] of each layer, states [S, F] and nodes [S].

    With nodes [S, P], several for each state, [S, P, C].
    """
    chex.assert_equal_shape_prefix([state, node], 1)
    if isinstance(layers, Stale):
        return stale_logits(layers, state, node)
    # Samples of one node together, in tiles.
    num_nodes = layers[0][0].shape[0]
    if num_nodes == 1:
        rows, tile_node = state[None], jnp.zeros((1,), jnp.int32)
    else:
        plan = plan_tiles(node.reshape(-1), num_nodes)
        rows, tile_node = pack(state, plan, math.prod(node.shape[1:])), plan.tile_node

    # The layers, on whole tiles.
    for number, (kernel, bias) in enumerate(layers):
        rows = tile_products(rows, kernel, tile_node) + bias[tile_node][:, None]
        rows = rows if number == len(layers) - 1 else nn.relu(rows)
    if num_nodes == 1:
        logits = rows.reshape(-1, *(1,) * (node.ndim - 1), rows.shape[-1])
        return jnp.broadcast_to(logits, (*node.shape, rows.shape[-1]))
    return unpack(rows, plan).reshape(*node.shape, -1)


def _spread_logits(layers: Layers, state: jax.Array, node: jax.Array) -> jax.Array:
    """As `node_logits` where each device holds the networks of some nodes: states travel, not weights."""
    if parts_here(NODES) == 1:
        return node_logits(layers, state, node)
    states, nodes = jax.lax.all_gather((state, node), NODES, tiled=True)
    held = layers[0][0].shape[0]
    index = nodes - jax.lax.axis_index(NODES) * held
    is_local = (index >= 0) & (index < held)
    logits = node_logits(layers, states, jnp.clip(index, 0, held - 1))
    # Exactly one device has each sample's logits; the others add zeros.
    return jax.lax.psum_scatter(jnp.where(is_local[:, None], logits, 0.0), NODES, tiled=True)

"""The tree-structured policy: a softmax over the children at every internal node, masked to what is available."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from sim.policy import Decision, Policy
from sim.rating_env import STATUS_SIZE, Observation, Trajectory
from sim.settings import Count, CountOrZero
from sim.sharding import EPISODES, EVERYWHERE, NODES, parts_here, per_device
from tpgr_jax.encoder import Encoder, EncoderConfig, make_encoder
from tpgr_jax.node_batching import pack, plan_tiles, tile_products, unpack
from tpgr_jax.tree import ItemTree

MASKED_LOGIT = -1e30
NO_LEAF = -1


@dataclass(frozen=True)
class PolicyConfig(EncoderConfig):
    """Networks of the tree policy (`conf/agent/tpgr.yaml`)."""

    hidden: list[Count]
    count_prior: bool
    encoder_pretrain_steps: CountOrZero
    head_shards: Count = 1


@flax.struct.dataclass
class TreeTables:
    """The tree on the device.

    Attributes:
        leaf_items: [C^D] int32 item of each leaf slot, -1 = empty.
        item_leaf: [I] int32 leaf slot of each item.
        sizes: Per level [C^level, C] int32 items below each child.
    """

    leaf_items: jax.Array
    item_leaf: jax.Array
    sizes: tuple[jax.Array, ...]


@flax.struct.dataclass
class PolicyParams:
    """What the tree policy reads: `network` is learned, `tables` is the tree."""

    network: Any
    tables: TreeTables


def make_tree_tables(tree: ItemTree) -> TreeTables:
    """Puts a tree on the device."""
    return TreeTables(
        jnp.asarray(tree.leaf_items),
        jnp.asarray(tree.item_leaf),
        tuple(jnp.asarray(tree.level_sizes(level)) for level in range(tree.depth)),
    )


class NodeHeads(nn.Module):
    """The policy networks of all nodes of one level as one batched array each.

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
        """Returns [S, C] logits of each sample's own node.

        Args:
            state: [S, F] states.
            node: [S] int32 index of the node within its level.
        """
        stored = 1 if self.num_nodes == 1 else -(-self.num_nodes // self.shards) * self.shards
        spread = stored > 1 and self.shards > 1
        here = stored // parts_here(NODES) if spread else stored
        layers, size = [], state.shape[-1]
        for layer, width in enumerate((*self.hidden, self.num_children)):
            last = layer == len(self.hidden)
            # Zero output layers make the untrained policy follow its prior exactly.
            kernel_init = nn.initializers.zeros if last else nn.initializers.lecun_normal(batch_axis=(0,))
            kernel = self.param(f"kernel_{layer}", kernel_init, (here, size, width))
            layers.append((kernel, self.param(f"bias_{layer}", nn.initializers.zeros, (here, width))))
            size = width
        own = PartitionSpec(EPISODES)
        logits = per_device(
            _spread_logits if spread else node_logits,
            (PartitionSpec(NODES) if spread else EVERYWHERE, own, own),
            own,
            state.shape[0],
        )
        return logits(layers, state, node)


def node_logits(layers: Sequence[tuple[jax.Array, jax.Array]], state: jax.Array, node: jax.Array) -> jax.Array:
    """Returns [S, C] logits from kernels [N, F, G] and biases [N, G] of each layer, states [S, F] and nodes [S].

    With nodes [S, P], several for each state, [S, P, C].
    """
    num_nodes = layers[0][0].shape[0]
    if num_nodes == 1:
        rows, tile_node = state[None], jnp.zeros((1,), jnp.int32)
    else:
        plan = plan_tiles(node.reshape(-1), num_nodes)
        rows, tile_node = pack(state, plan, math.prod(node.shape[1:])), plan.tile_node
    for number, (kernel, bias) in enumerate(layers):
        rows = tile_products(rows, kernel, tile_node) + bias[tile_node][:, None]
        rows = rows if number == len(layers) - 1 else nn.relu(rows)
    if num_nodes == 1:
        own = rows.reshape(-1, *(1,) * (node.ndim - 1), rows.shape[-1])
        return jnp.broadcast_to(own, (*node.shape, rows.shape[-1]))
    return unpack(rows, plan).reshape(*node.shape, -1)


def _spread_logits(layers: Sequence[tuple[jax.Array, jax.Array]], state: jax.Array, node: jax.Array) -> jax.Array:
    """As `node_logits` where each device holds the networks of some nodes: states travel, not weights."""
    if parts_here(NODES) == 1:
        return node_logits(layers, state, node)
    states, nodes = jax.lax.all_gather((state, node), NODES, tiled=True)
    held = layers[0][0].shape[0]
    place = nodes - jax.lax.axis_index(NODES) * held
    mine = (place >= 0) & (place < held)
    logits = node_logits(layers, states, jnp.clip(place, 0, held - 1))
    # Exactly one device has each sample's logits; the others add zeros.
    return jax.lax.psum_scatter(jnp.where(mine[:, None], logits, 0.0), NODES, tiled=True)


class TreePolicyNetwork(nn.Module):
    """The encoder and the heads of every level.

    Attributes:
        encoder: Turns interactions into states.
        hidden: Widths of the heads' hidden layers.
        num_children: C.
        depth: D.
        head_shards: Devices that the heads of a level can be spread over.
    """

    encoder: Encoder
    hidden: Sequence[int]
    num_children: int
    depth: int
    head_shards: int = 1

    def setup(self) -> None:
        """Declares the heads of each level."""
        self.heads = [
            NodeHeads(self.num_children**level, self.hidden, self.num_children, self.head_shards)
            for level in range(self.depth)
        ]

    def encode_step(
        self, cell: jax.Array, item: jax.Array, reward: jax.Array, status: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `Encoder.step`."""
        return self.encoder.step(cell, item, reward, status)

    def encode(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> jax.Array:
        """See `Encoder.__call__`."""
        return self.encoder(item, reward, status)

    def logits(self, level: int, state: jax.Array, node: jax.Array) -> jax.Array:
        """Returns [S, C] logits of nodes [S] of a level at states [S, F]."""
        return self.heads[level](state, node)

    def __call__(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> list[jax.Array]:
        """Touches every parameter (for initialisation)."""
        state = self.encode(item, reward, status).reshape(-1, self.encoder.state_size)
        node = jnp.zeros(state.shape[:1], jnp.int32)
        return [self.logits(level, state, node) for level in range(self.depth)]


@dataclass(frozen=True)
class TreePolicy:
    """The tree policy as pure functions of `PolicyParams`.

    Attributes:
        network: The Linen module.
        count_prior: Whether log(number of available items) is added to each child's logit, which makes the untrained
            policy uniform over items (official code).
        mask_recommended: False only where repeats are allowed (the timing study).
    """

    network: TreePolicyNetwork
    count_prior: bool
    mask_recommended: bool

    def init(self, key: jax.Array) -> Any:
        """Draws initial network parameters."""
        item, reward = jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1))
        return self.network.init(key, item, reward, jnp.zeros((2, 1, STATUS_SIZE)))["params"]

    def trainable(self, network: Any) -> Any:
        """Returns the network parameters that gradients reach (without a frozen item embedding)."""
        if self.network.encoder.train_embedding:
            return network
        encoder = {name: value for name, value in network["encoder"].items() if name != "item_embedding"}
        return {**network, "encoder": encoder}

    def with_trainable(self, network: Any, trainable: Any) -> Any:
        """Returns network parameters with those that gradients reach replaced; the inverse of `trainable`."""
        return {**trainable, "encoder": {**network["encoder"], **trainable["encoder"]}}

    def partition(self, tree: Any) -> Any:
        """Says how parameters, or a learner's state with them, lie on many devices: a tree of `PartitionSpec`."""
        spread = {f"heads_{level}" for level in range(1, self.network.depth)} if self.network.head_shards > 1 else set()

        def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
            names = {key.key for key in path if isinstance(key, jax.tree_util.DictKey)}
            return PartitionSpec(NODES) if names & spread else EVERYWHERE

        return jax.tree_util.tree_map_with_path(spec, tree)

    def as_policy(self) -> Policy:
        """Returns the two functions that the rollout needs; the carry is the SRU's cell [B, H]."""
        return Policy(self._initial_cell, self._act)

    def _initial_cell(self, params: PolicyParams, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, self.network.encoder.hidden_size))

    def _act(
        self, params: PolicyParams, cell: jax.Array, observation: Observation, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        tables = params.tables
        branching, depth = self.network.num_children, self.network.depth
        cell, state = self._apply(
            TreePolicyNetwork.encode_step,
            params,
            cell,
            observation.last_item,
            observation.last_reward,
            observation.status,
        )
        batch_size = state.shape[0]
        uniform = jax.random.uniform(key, (depth, batch_size))
        past_leaves = past_leaves_of(tables, observation.recommended)
        node = jnp.zeros((batch_size,), jnp.int32)
        log_prob = jnp.zeros((batch_size,))
        for level in range(depth):
            logits = self._apply(TreePolicyNetwork.logits, params, level, state, node)
            masked = self._mask(logits, self._available(tables, level, node, past_leaves))
            choice = sample_child(masked, uniform[level]) if explore else place_of_largest(masked)
            log_prob += chosen(jax.nn.log_softmax(masked), choice)
            node = node * branching + choice
        return cell, Decision(tables.leaf_items[node], log_prob)

    def path_log_probs(
        self, params: PolicyParams, trajectory: Trajectory, steps: jax.Array | None = None
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Recomputes log pi of recommendations and the masked distributions on their paths, for the update.

        Args:
            params: Parameters; `params.network` is what the update differentiates.
            trajectory: [T, B] episodes.
            steps: [n] int32 time steps to recompute; None for all T.

        Returns:
            [n, B] log-probability of each item and, per level, [n * B, C] log-probabilities of the visited node's
            children (about `MASKED_LOGIT` where unavailable).
        """
        tables = params.tables
        branching, depth = self.network.num_children, self.network.depth
        state = self._apply(TreePolicyNetwork.encode, params, trajectory.item, trajectory.reward, trajectory.status)
        length, batch_size = trajectory.item.shape
        past = leaf = tables.item_leaf[trajectory.item]
        now = jnp.arange(length)
        if steps is not None:
            state, leaf, now = state[steps], leaf[steps], now[steps]
        samples = leaf.size
        state, leaf = state.reshape(samples, -1), leaf.reshape(samples)
        earlier = now[:, None] > jnp.arange(length)
        # [n, B, T] leaves recommended before each step.
        past_leaves = jnp.where(earlier[:, None, :], past.T[None], NO_LEAF).reshape(samples, length)
        total = jnp.zeros((samples,))
        levels = []
        for level in range(depth):
            node, below = leaf // branching ** (depth - level), leaf // branching ** (depth - level - 1)
            logits = self._apply(TreePolicyNetwork.logits, params, level, state, node)
            log_probs = jax.nn.log_softmax(self._mask(logits, self._available(tables, level, node, past_leaves)))
            total += chosen(log_probs, below % branching)
            levels.append(log_probs)
        return total.reshape(-1, batch_size), levels

    def _apply(self, method: Callable[..., Any], params: PolicyParams, *arguments: Any) -> Any:
        return self.network.apply({"params": params.network}, *arguments, method=method)

    def _available(self, tables: TreeTables, level: int, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
        """Returns [S, C] int32 items below each child that may be recommended, from [S, T] past leaves."""
        if not self.mask_recommended:
            return tables.sizes[level][node]
        return available_items(tables, level, node, past_leaves)

    def _mask(self, logits: jax.Array, available: jax.Array) -> jax.Array:
        if self.count_prior:
            logits = logits + jnp.log(jnp.maximum(available, 1).astype(jnp.float32))
        return jnp.where(available > 0, logits, MASKED_LOGIT)


def available_items(tables: TreeTables, level: int, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
    """Returns [S, C] int32 items below each child of a node that were not recommended yet.

    Args:
        tables: The tree.
        level: Of the nodes.
        node: [S] int32 index of each node within its level.
        past_leaves: [S, T] int32 leaf slots recommended so far, `NO_LEAF` where there is none.
    """
    branching = tables.sizes[level].shape[1]
    leaves_per_child = tables.leaf_items.shape[0] // branching ** (level + 1)

    def count(sizes: jax.Array, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
        # Child of this node that each past leaf lies under; anything outside [0, C) lies elsewhere in the tree.
        child = jnp.where(past_leaves >= 0, past_leaves // leaves_per_child - (node * branching)[:, None], -1)
        elsewhere = (child < 0) | (child >= branching)
        rows = jnp.arange(child.shape[0])[:, None]
        return sizes[node].at[rows, jnp.where(elsewhere, branching, child)].add(-1, mode="drop")

    own = PartitionSpec(EPISODES)
    spread = per_device(count, (EVERYWHERE, own, own), own, node.shape[0])
    return spread(tables.sizes[level], node, past_leaves)


def past_leaves_of(tables: TreeTables, recommended: jax.Array) -> jax.Array:
    """Returns the leaf slot of each recommended item, `NO_LEAF` where the item is -1 (not recommended yet)."""
    return jnp.where(recommended >= 0, tables.item_leaf[jnp.maximum(recommended, 0)], NO_LEAF)


def chosen(values: jax.Array, choice: jax.Array) -> jax.Array:
    """Returns [S] the entry of each row of [S, C] that `choice` [S] names."""
    return jnp.take_along_axis(values, choice[:, None], -1)[:, 0]


def place_of_largest(values: jax.Array) -> jax.Array:
    """Returns [S] int32 argmax of [S, n], n < 2^24.

    On CPU a maximum and a minimum are faster than argmax, and of floats faster than of integers.
    """
    # Computed once: a compiler that fuses them into both uses may round them differently, and then none is the largest.
    values = jax.lax.optimization_barrier(values)
    last = float(values.shape[1] - 1)
    places = jnp.arange(values.shape[1], dtype=jnp.float32)
    largest = jnp.max(values, -1, keepdims=True)
    return jnp.min(jnp.where(values == largest, places, last), -1).astype(jnp.int32)


def sample_child(masked_logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Draws from softmax(masked_logits) by inverse CDF, one uniform per decision; never a masked child.

    First the block of children that the uniform number falls into, then the child in it: cumulative sums stay short.
    """
    weights = jnp.exp(masked_logits - jnp.max(masked_logits, -1, keepdims=True))
    samples, size = weights.shape
    width = max(16, 1 << (size.bit_length() // 2))  # near the square root of a large number
    blocks = jnp.pad(weights, ((0, 0), (0, -size % width))).reshape(samples, -1, width)
    totals = jnp.sum(blocks, -1)
    before = _cumulative(totals) - totals
    target = uniform * jnp.sum(totals, -1)
    block = _first_beyond(totals, target)
    inside = jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0]
    return block * width + _first_beyond(inside, target - chosen(before, block))


def _first_beyond(weights: jax.Array, target: jax.Array) -> jax.Array:
    """Returns [S] int32 where the cumulative sum of weights [S, n] first exceeds the target [S].

    Rounding may make the sums dip, or miss the end: only positive weights count, and the last one is the fallback.
    """
    index = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    positive = weights > 0
    beyond = positive & (_cumulative(weights) > target[:, None])
    # Minimum and maximum of numbers are several times as fast as argmax on CPU.
    last = jnp.max(jnp.where(positive, index, 0), -1)
    return jnp.minimum(jnp.min(jnp.where(beyond, index, weights.shape[-1]), -1), last)


def _cumulative(weights: jax.Array) -> jax.Array:
    """Returns cumulative sums of [S, n], n small, by a product with a triangular matrix: on CPU faster than a scan."""
    upper = jnp.triu(jnp.ones((weights.shape[-1], weights.shape[-1])))
    return jnp.matmul(weights, upper, precision="highest")  # never in reduced precision, whatever the device


def make_tree_policy(
    config: PolicyConfig, num_items: int, num_children: int, depth: int, allow_repeats: bool
) -> TreePolicy:
    """Builds the policy for a tree of the given shape.

    Args:
        config: Networks.
        num_items: I.
        num_children: C.
        depth: D.
        allow_repeats: Whether items may be recommended again.
    """
    encoder = make_encoder(config, num_items)
    network = TreePolicyNetwork(encoder, tuple(config.hidden), num_children, depth, config.head_shards)
    return TreePolicy(network, config.count_prior, not allow_repeats)


def with_item_embedding(params: Any, embedding: np.ndarray) -> Any:
    """Returns network parameters with the encoder's item embedding replaced by a pre-trained [I, E] table."""
    encoder = {**params["encoder"], "item_embedding": jnp.asarray(embedding, jnp.float32)}
    return {**params, "encoder": encoder}

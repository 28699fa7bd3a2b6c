"""Operations on the tree's tables: availability counts, sampling and arg max over children."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from harness.sharding import EPISODES, EVERYWHERE, per_device
from tpgr_jax.tree.item_tree import ItemTree

MASKED_LOGIT = -1e30
NO_LEAF = -1


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


def make_tree_tables(tree: ItemTree) -> TreeTables:
    """Puts a tree on the device."""
    return TreeTables(
        jnp.asarray(tree.leaf_items),
        jnp.asarray(tree.item_leaf),
        tuple(jnp.asarray(tree.level_sizes(level)) for level in range(tree.depth)),
    )


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

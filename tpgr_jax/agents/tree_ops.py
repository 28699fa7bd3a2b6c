"""Operations on the tree's tables: walking down, availability counts, sampling and arg max over children.

`node` is always the index of a node within its level. In a regular tree everything follows from it: child k of node j
is node C j + k of the next level, and the leaves are the slots of level D. An irregular tree looks its children up; a
leaf that a path reaches above level D goes on, at every level below, as the node after that level's internal nodes,
with itself as the only child.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from harness.compute.sharding import EPISODES, EVERYWHERE, per_device
from sim.envs.policy import Ranking
from tpgr_jax.tree.item_tree import ItemTree

MASKED_LOGIT = -1e30
NO_LEAF = -1


@flax.struct.dataclass
class Lookups:
    """What has to be looked up in an irregular tree; arrays per level, of N_l internal nodes.

    Attributes:
        children: [N_l, C] int32 index of each child within the next level (0 where there is none).
        leaf_nodes: [L] int32 node on the way to each leaf; N_l + j once leaf j has been reached.
        leaf_choices: [L] int32 child taken there; 0 once the leaf has been reached.
    """

    children: tuple[jax.Array, ...]
    leaf_nodes: tuple[jax.Array, ...]
    leaf_choices: tuple[jax.Array, ...]


@flax.struct.dataclass
class TreeTables:
    """The tree on the device.

    Attributes:
        leaf_items: [L] int32 item of each leaf, -1 = empty.
        item_leaf: [I] int32 leaf of each item.
        sizes: Per level [N_l, C] int32 items below each child; or [B, N_l, C], of each episode (`allowed_tables`).
        lookups: None for a regular tree, where N_l = C^l and L = C^D.
    """

    leaf_items: jax.Array
    item_leaf: jax.Array
    sizes: tuple[jax.Array, ...]
    lookups: Lookups | None = None

    @property
    def depth(self) -> int:
        """D."""
        return len(self.sizes)

    @property
    def num_children(self) -> int:
        """C."""
        return self.sizes[0].shape[-1]


def make_tree_tables(tree: ItemTree) -> TreeTables:
    """Puts a tree on the device."""
    sizes = tuple(jnp.asarray(tree.level_sizes(level)) for level in range(tree.depth))
    lookups = None if tree.regular else _make_lookups(tree)
    return TreeTables(jnp.asarray(tree.leaf_items), jnp.asarray(tree.item_leaf), sizes, lookups)


def _make_lookups(tree: ItemTree) -> Lookups:
    """Turns node numbers into indices within levels."""
    first = np.cumsum([0, *tree.level_nodes])
    nodes_at = (*tree.level_nodes, 0)

    def within(level: int, number: np.ndarray) -> jax.Array:
        start = np.where(number < tree.num_internal, first[level], tree.num_internal - nodes_at[level])
        return jnp.asarray(number - start, jnp.int32)

    levels = range(tree.depth)
    nodes, choices = tree.item_nodes[tree.leaf_items], tree.item_paths[tree.leaf_items]
    below = [tree.children[tree.level_slice(level)] for level in levels]
    return Lookups(
        tuple(jnp.where(below[level] >= 0, within(level + 1, below[level]), 0) for level in levels),
        tuple(within(level, nodes[:, level]) for level in levels),
        tuple(jnp.asarray(choices[:, level]) for level in levels),
    )


def next_node(tables: TreeTables, level: int, node: jax.Array, choice: jax.Array) -> jax.Array:
    """Returns the child of each node of a level that is chosen, its index within the next level; any shape."""
    if tables.lookups is None:
        return node * tables.num_children + choice
    num_nodes = _num_nodes(tables, level)
    child = tables.lookups.children[level][jnp.minimum(node, num_nodes - 1), choice]
    return jnp.where(node < num_nodes, child, node - num_nodes + _num_nodes(tables, level + 1))


def step_to_leaf(tables: TreeTables, level: int, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the node of a level on the way to each leaf, and the child to take there; any shape."""
    if tables.lookups is not None:
        return tables.lookups.leaf_nodes[level][leaf], tables.lookups.leaf_choices[level][leaf]
    branching, depth = tables.num_children, tables.depth
    node, child = leaf // branching ** (depth - level), leaf // branching ** (depth - level - 1)
    return node, child % branching


def head_of(tables: TreeTables, level: int, node: jax.Array) -> jax.Array:
    """Returns which of the level's N_l networks each node uses; a leaf reached above, which has none, uses any."""
    return node if tables.lookups is None else jnp.minimum(node, _num_nodes(tables, level) - 1)


def _num_nodes(tables: TreeTables, level: int) -> int:
    """Returns N_l, 0 for the leaves' level."""
    return tables.sizes[level].shape[-2] if level < tables.depth else 0


def available_items(tables: TreeTables, level: int, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
    """Returns [S, C] int32 items below each child of a node that were not recommended yet.

    Args:
        node: [S] int32 index of each node within its level.
        past_leaves: [S, T] int32 leaves recommended so far, `NO_LEAF` where there is none. Where the tables have sizes
            of each of B episodes, the samples are S / B consecutive ones of each.
    """
    chex.assert_rank([node, past_leaves], [1, 2])
    chex.assert_equal_shape_prefix([node, past_leaves], 1)
    # Static shapes, and how paths lead to leaves.
    num_samples, per_episode = node.shape[0], tables.sizes[level].ndim == 3
    num_nodes, branching = tables.sizes[level].shape[-2:]
    leaves_per_child = tables.leaf_items.shape[0] // branching ** (level + 1)
    lookups = tables.lookups
    leaf_paths = None if lookups is None else (lookups.leaf_nodes[level], lookups.leaf_choices[level])

    def count(sizes: jax.Array, leaf_paths: Any, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
        if leaf_paths is None:
            # Child of this node that each past leaf lies under; anything outside [0, C) lies elsewhere in the tree.
            child = jnp.where(past_leaves >= 0, past_leaves // leaves_per_child - (node * branching)[:, None], -1)
            elsewhere = (child < 0) | (child >= branching)
        else:
            leaf_nodes, leaf_choices = leaf_paths
            child = leaf_choices[past_leaves]
            elsewhere = (past_leaves < 0) | (leaf_nodes[past_leaves] != node[:, None])
        rows = jnp.arange(child.shape[0])[:, None]
        of_node = sizes[rows[:, 0] // (len(rows) // len(sizes)), node] if per_episode else sizes[node]
        available = of_node.at[rows, jnp.where(elsewhere, branching, child)].add(-1, mode="drop")
        if leaf_paths is None:
            return available
        # Whoever follows a path to a leaf that was reached above has found it available.
        return jnp.where((node < num_nodes)[:, None], available, jnp.arange(branching) == 0)

    episodes = PartitionSpec(EPISODES)
    in_specs = (episodes if per_episode else EVERYWHERE, EVERYWHERE, episodes, episodes)
    batch_size = tables.sizes[level].shape[0] if per_episode else num_samples
    return per_device(count, in_specs, episodes, batch_size)(tables.sizes[level], leaf_paths, node, past_leaves)


def available_leaves(tables: TreeTables, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
    """Returns [S, W, C] int32: 1 where the leaf below a node of the deepest level was not recommended yet, else 0.

    As `available_items` for each of W nodes of a sample, which looks at each past leaf once for all of them.

    Args:
        node: [S, W] int32 nodes; of one that a sample has twice only the first counts.
        past_leaves: [S, T] int32 leaves recommended so far, `NO_LEAF` where there is none.
    """
    chex.assert_rank([node, past_leaves], 2)
    chex.assert_equal_shape_prefix([node, past_leaves], 1)
    level, branching, (samples, width) = tables.depth - 1, tables.num_children, node.shape
    sizes, rows = tables.sizes[level], jnp.arange(samples)[:, None]
    within = head_of(tables, level, node)
    available = sizes[rows, within] if sizes.ndim == 3 else sizes[within]
    # Where each past leaf is among those below the nodes; past the end if it is not.
    past_node, child = step_to_leaf(tables, level, past_leaves)
    here = (past_node[..., None] == node[:, None]) & (past_leaves >= 0)[..., None]
    place = jnp.min(jnp.where(here, jnp.arange(width), width), -1) * branching + child
    flat = available.reshape(samples, -1).at[rows, place].add(-1, mode="drop")
    available = flat.reshape(available.shape)
    if tables.lookups is None:
        return available
    # Whoever follows a path to a leaf that was reached above has found it available.
    return jnp.where((node < _num_nodes(tables, level))[..., None], available, jnp.arange(branching) == 0)


def past_leaves_of(tables: TreeTables, recommended: jax.Array) -> jax.Array:
    """Returns the leaf slot of each recommended item, `NO_LEAF` where the item is -1 (not recommended yet)."""
    return jnp.where(recommended >= 0, tables.item_leaf[jnp.maximum(recommended, 0)], NO_LEAF)


def allowed_only(tables: TreeTables, available: jax.Array, recommended: jax.Array) -> tuple[TreeTables, jax.Array]:
    """Restricts a tree to the items that a caller allows.

    Args:
        available: [I] or [B, I] bool, the items allowed.
        recommended: [B, T] int32 items recommended so far, -1 where there is none.

    Returns:
        The tables with sizes that count allowed items only (for [I] once, for [B, I] of each episode), and the [B, T]
        leaves of recommended items to take off them, `NO_LEAF` for an item that is not allowed anyway.
    """
    chex.assert_rank([available, recommended], [{1, 2}, 2])

    def counted(available: jax.Array) -> tuple[jax.Array, ...]:
        """Allowed leaves below each child of each node."""
        allowed = (available[..., jnp.maximum(tables.leaf_items, 0)] & (tables.leaf_items >= 0)).astype(jnp.int32)
        leading, branching, sizes = available.shape[:-1], tables.num_children, []
        for level in range(tables.depth):
            shape = (*leading, _num_nodes(tables, level), branching)
            if tables.lookups is None:
                sizes.append(jnp.sum(allowed.reshape(*shape, -1), -1))
            else:
                path = tables.lookups.leaf_nodes[level], tables.lookups.leaf_choices[level]
                sizes.append(jnp.zeros(shape, jnp.int32).at[..., *path].add(allowed, mode="drop"))
        return tuple(sizes)

    # Where everything is allowed, the tree's own counts do: over 10^6 items counting takes longer than deciding.
    if available.ndim == 1 and tables.sizes[0].ndim == 2:
        sizes = jax.lax.cond(jnp.all(available), lambda _: tables.sizes, counted, available)
    else:
        sizes = counted(available)

    # Of the recommended items only those count that are in these sizes.
    item = jnp.maximum(recommended, 0)
    is_allowed = available[item] if available.ndim == 1 else jnp.take_along_axis(available, item, 1)
    tables = dataclasses.replace(tables, sizes=sizes)
    return tables, past_leaves_of(tables, jnp.where(is_allowed, recommended, -1))


def no_ranking(batch_size: int, k: int) -> Ranking:
    """Returns a ranking of nothing: [B, k] items -1 with scores -inf."""
    return Ranking(jnp.full((batch_size, k), -1, jnp.int32), jnp.full((batch_size, k), -jnp.inf))


def merge_best(best: Ranking, items: jax.Array, scores: jax.Array) -> Ranking:
    """Returns the k best of the k items so far and [B, n] others, a score of -inf standing for no item."""
    scores, index = jax.lax.top_k(jnp.concatenate([best.scores, scores], 1), best.scores.shape[1])
    items = jnp.take_along_axis(jnp.concatenate([best.items, items], 1), index, 1)
    return Ranking(jnp.where(scores > -jnp.inf, items, -1), scores)


def chosen(values: jax.Array, choice: jax.Array) -> jax.Array:
    """Returns [S] the entry of each row of [S, C] that `choice` [S] names."""
    chex.assert_rank([values, choice], [2, 1])
    return jnp.take_along_axis(values, choice[:, None], -1)[:, 0]


def sample_child(masked_logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Draws from softmax(masked_logits) by inverse CDF, one uniform per decision; never a masked child.

    First the block of children that the uniform number falls into, then the child in it: cumulative sums stay short.

    Args:
        masked_logits: [S, C], `MASKED_LOGIT` where a child is not available.
        uniform: [S] in [0, 1).

    Returns:
        [S] int32.
    """
    chex.assert_rank([masked_logits, uniform], [2, 1])
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

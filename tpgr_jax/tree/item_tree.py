"""The tree over the items as padded child-index arrays (Eq. 5 of the TPGR paper): perfectly regular, or of any shape.

A tree is two arrays: `children` [N, C] holds the node number of each child of each internal node, -1 where there is
none; the internal nodes are 0 (the root) to N - 1, the leaves N, N + 1, ..., and `leaf_items` [L] holds the item of
leaf N + j. Leaves may lie at different depths, and nodes may have different numbers of children.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import UserError
from harness.runs.run_folder import read_arrays
from harness.settings import Count, NotNegative, Seed

NO_CHILD = -1
MAX_DEPTH = 32
MAX_LEAF_SLOTS = 2**31 - 1
MAX_PADDED_SLOTS = 2**24  # of an irregular tree in the regular layout; a policy keeps some hundred bytes for each
_DERIVED = ("num_children", "depth", "item_leaf", "sizes", "item_paths", "item_nodes")  # stored too, as a check


@dataclass(frozen=True)
class TreeConfig:
    """How the tree is built, or where it is read from (`conf/tree/*.yaml`)."""

    depth: Count
    clustering: Literal["pca", "kmeans", "random"]
    vectors: Literal["rating", "mf", "vae"]
    vector_size: Count
    vector_epochs: Count
    seed: Seed
    path: str | None = None
    spare: NotNegative = 0.0


@dataclass(frozen=True)
class ItemTree:
    """A tree over I items of depth D with at most C children per node; see the module on how nodes are numbered.

    A regular tree has C^l nodes at level l, whether or not there is anything below them: child k of node i is
    C * i + 1 + k (1-based, the paper's (i - 1) * C + k + 1), the leaves are the C^D slots of level D, and -1 in
    `leaf_items` is an empty slot. A path shorter than D goes on with single children. Any other tree has its nodes in
    level order, each node's children before its -1, and an item at every leaf.

    Attributes:
        children: [N, C] int32 node number of each child, -1 where there is none.
        leaf_items: [L] int32 item of leaf N + j, -1 = empty.
        level_nodes: Number of internal nodes of each of the D levels; their sum is N.
        regular: Whether nodes are numbered as in a regular tree, so that children need not be looked up.
    """

    children: np.ndarray
    leaf_items: np.ndarray
    level_nodes: tuple[int, ...]
    regular: bool

    @property
    def num_children(self) -> int:
        """C."""
        return self.children.shape[1]

    @property
    def num_internal(self) -> int:
        """N; of a regular tree 1 + C + ... + C^(D-1) (Eq. 5)."""
        return self.children.shape[0]

    @property
    def depth(self) -> int:
        """D, the longest path (of a tree that was built: at most the depth asked for)."""
        return len(self.level_nodes)

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_leaf)

    @cached_property
    def item_leaf(self) -> np.ndarray:
        """[I] int32 index into `leaf_items` of each item's leaf."""
        occupied = np.flatnonzero(self.leaf_items >= 0)
        item_leaf = np.empty(len(occupied), np.int32)
        item_leaf[self.leaf_items[occupied]] = occupied
        return item_leaf

    @property
    def item_paths(self) -> np.ndarray:
        """[I, D] int32 child index taken at each level to reach each item, 0 beyond its leaf."""
        return self._paths[0]

    @property
    def item_nodes(self) -> np.ndarray:
        """[I, D] int32 node at each level on the way to each item, beyond its leaf the leaf's own number."""
        return self._paths[1]

    @cached_property
    def _paths(self) -> tuple[np.ndarray, np.ndarray]:
        """Climbs from all leaves to the root at once."""
        row, column = np.nonzero(self.children >= 0)
        parent, choice = np.zeros((2, self.num_internal + len(self.leaf_items)), np.int32)
        parent[self.children[row, column]], choice[self.children[row, column]] = row, column
        level_of_node = np.repeat(np.arange(self.depth), self.level_nodes)
        leaf = self.num_internal + self.item_leaf
        node, depth = leaf.copy(), level_of_node[parent[leaf]] + 1
        paths, nodes = np.zeros((2, self.num_items, self.depth), np.int32)
        for level in reversed(range(self.depth)):
            there = depth > level
            paths[:, level] = np.where(there, choice[node], 0)
            node = np.where(there, parent[node], leaf)
            nodes[:, level] = node
        return paths, nodes

    @cached_property
    def sizes(self) -> np.ndarray:
        """[N, C] int32 items below each child of each internal node, 0 for a child that does not exist."""
        internal = self.item_nodes < self.num_internal
        child = self.item_nodes[internal].astype(np.int64) * self.num_children + self.item_paths[internal]
        return np.bincount(child, minlength=self.children.size).astype(np.int32).reshape(self.children.shape)

    def level_sizes(self, level: int) -> np.ndarray:
        """Returns [N_l, C] int32: the number of items below each child of each internal node of a level."""
        return self.sizes[self.level_slice(level)]

    def level_slice(self, level: int) -> slice:
        """Returns the numbers of the internal nodes of a level."""
        first = sum(self.level_nodes[:level])
        return slice(first, first + self.level_nodes[level])

    def in_regular_layout(self) -> ItemTree:
        """Returns the same tree with regular numbering; short paths go on with single children.

        Raises:
            UserError: That takes too many leaf slots.
        """
        if self.regular:
            return self
        branching, depth = self.num_children, self.depth
        if branching**depth > MAX_PADDED_SLOTS:
            raise UserError(
                f"the tree has up to {branching:,} children per node and {depth} levels: padded to a regular tree it "
                f"has {branching**depth:,} leaf slots, more than {MAX_PADDED_SLOTS:,}",
                do="Use agent=tpgr, which reads trees of any shape, or a tree with fewer children or levels.",
            )
        powers = branching ** np.arange(depth - 1, -1, -1)
        leaf_items = np.full(branching**depth, NO_CHILD, np.int32)
        leaf_items[self.item_paths @ powers] = np.arange(self.num_items)
        return regular_tree(branching, depth, leaf_items)

    def save(self, path: Path) -> None:
        """Writes every array (also those that follow from the others) as an .npz without pickles."""
        with path.open("wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in ("children", "leaf_items", *_DERIVED)})


def regular_tree(num_children: int, depth: int, leaf_items: np.ndarray) -> ItemTree:
    """Returns the regular tree with the given leaf slots.

    Args:
        num_children: C.
        depth: D.
        leaf_items: [C^D] int32 item of each leaf slot, -1 = empty.
    """
    level_nodes = tuple(num_children**level for level in range(depth))
    occupied = [(leaf_items.reshape(nodes * num_children, -1) >= 0).any(1) for nodes in level_nodes]
    children = np.where(np.concatenate(occupied), _regular_numbers(sum(level_nodes), num_children), NO_CHILD)
    return ItemTree(children.reshape(-1, num_children), leaf_items, level_nodes, True)


def tree_from_children(children: np.ndarray, leaf_items: np.ndarray, prune: bool = False) -> ItemTree:
    """Checks the two arrays of a tree and returns it: as it is if it is regular, otherwise in level order.

    Args:
        children: [N, C] integers; see the module.
        leaf_items: [L] integers, -1 = empty.
        prune: Leaves out whatever has no items below; otherwise it is refused.

    Raises:
        ValueError: They are no tree with every item exactly once; the message says why.
    """
    _check_arrays(children, leaf_items)
    children, leaf_items = children.astype(np.int32), leaf_items.astype(np.int32)
    num_internal = len(children)
    if prune:
        children = _without_empty(children, leaf_items, _levels(children))
    levels = _levels(children)
    internal = np.concatenate([numbers[numbers < num_internal] for numbers in levels])
    leaves = np.concatenate([numbers[numbers >= num_internal] for numbers in levels]) - num_internal

    # Every node is reached from the root, and leads to items.
    if len(barren := internal[(children[internal] < 0).all(1)]):
        raise ValueError(f"node {barren[0]} has no children")
    unreached = np.setdiff1d(np.arange(num_internal), internal)
    if len(lost := unreached[(children[unreached] >= 0).any(1)]):
        raise ValueError(f"node {lost[0]} cannot be reached from the root")
    if len(empty := leaves[leaf_items[leaves] < 0]):
        raise ValueError(f"leaf node {num_internal + empty[0]} has no item")

    # Every item has one leaf, and is reached.
    held = leaf_items[leaf_items >= 0]
    leaves_of_item = np.bincount(held)
    if (leaves_of_item != 1).any():
        item = np.argmax(leaves_of_item != 1)
        raise ValueError(f"item {item} has {leaves_of_item[item]} leaves")
    if len(lost := np.setdiff1d(held, leaf_items[leaves])):
        raise ValueError(f"the leaf of item {lost[0]} cannot be reached from the root")

    depth = len(levels) - 1
    if _is_regular(children, len(leaf_items), depth):
        level_nodes = tuple(children.shape[1] ** level for level in range(depth))
        return ItemTree(children, leaf_items, level_nodes, True)
    return _in_level_order(children, leaf_items, internal, leaves, [int((n < num_internal).sum()) for n in levels[:-1]])


def load_tree(path: Path) -> ItemTree:
    """Reads a tree written by `ItemTree.save`; whatever follows from its children must agree with them.

    Raises:
        UserError: The file is missing, damaged or inconsistent.
    """
    arrays = read_arrays(path, None)
    try:
        for name in ("children", "leaf_items"):
            if name not in arrays:
                raise ValueError(f"it has no array {name}")
        tree = tree_from_children(arrays["children"], arrays["leaf_items"])
        for name in _DERIVED:
            stored = arrays.get(name)
            if stored is not None and not (stored.dtype.kind == "i" and np.array_equal(stored, getattr(tree, name))):
                raise ValueError(f"{name} contradicts children")
    except ValueError as error:
        raise UserError(f"the tree is inconsistent ({error})", where=str(path), do="Restore the file.") from None
    return tree


def read_own_tree(path: Path, item_ids: np.ndarray) -> ItemTree:
    """Reads a tree that a user made, by genres for instance (`tree.path`).

    Args:
        path: An .npz with `children` [N, C] as described above, and either `leaf_ids` [L], the original id of each
            leaf's item, or `leaf_items` [L], its index. Items that nobody rated are left out, and so is whatever holds
            no others.
        item_ids: [I] original ids of the items that were rated.

    Raises:
        UserError: The file is missing or damaged, or is no tree over these items.
    """
    if not path.is_file():
        raise UserError("there is no such file", where=str(path), do="Set tree.path to an .npz file, or to null.")
    arrays = read_arrays(path, lambda name: name in ("children", "leaf_ids", "leaf_items"))
    try:
        if "children" not in arrays or len(arrays) == 1:
            raise ValueError(f"it has no array {'leaf_ids' if 'children' in arrays else 'children'}")
        leaf_items = arrays["leaf_items"] if "leaf_items" in arrays else _items_of(arrays["leaf_ids"], item_ids)
        _check_arrays(arrays["children"], leaf_items)
        if leaf_items.max() >= len(item_ids):
            raise ValueError(f"leaf_items has item {leaf_items.max()}, the data {len(item_ids):,} items")
        leaves_of_item = np.bincount(leaf_items[leaf_items >= 0], minlength=len(item_ids))
        if (leaves_of_item != 1).any():
            item = np.argmax(leaves_of_item != 1)
            raise ValueError(f"item {item_ids[item]} has {leaves_of_item[item]} leaves")
        return tree_from_children(arrays["children"], leaf_items, prune=True)
    except ValueError as error:
        do = "It needs children [N, C] and leaf_ids [L], as tpgr_jax/tree/item_tree.py says."
        raise UserError(f"is no tree over the items ({error})", where=str(path), do=do) from None


def _items_of(leaf_ids: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """Returns [L] the index of each leaf's item, -1 where nobody rated it."""
    index = {str(item_id): item for item, item_id in enumerate(item_ids)}
    return np.array([index.get(str(item_id), NO_CHILD) for item_id in leaf_ids.ravel()], np.int32)


def _check_arrays(children: np.ndarray, leaf_items: np.ndarray) -> None:
    """Raises ValueError if two arrays cannot be children and items of a tree, or a node has several parents."""
    if children.ndim != 2 or leaf_items.ndim != 1 or not children.size or not leaf_items.size:
        raise ValueError(f"children has shape {children.shape} and leaf_items {leaf_items.shape}, not [N, C] and [L]")
    if children.dtype.kind not in "iu" or leaf_items.dtype.kind not in "iu":
        raise ValueError("children and leaf_items must be integers")
    total = len(children) + len(leaf_items)
    if max(total, children.size) > MAX_LEAF_SLOTS:
        raise ValueError("there are too many nodes")
    if children.min() < NO_CHILD or children.max() >= total:
        raise ValueError(f"children must lie between -1 and {total - 1}, the last leaf")
    if leaf_items.min() < NO_CHILD or leaf_items.max() >= len(leaf_items):
        raise ValueError("the items are not numbered 0, 1, ...")
    parents = np.bincount(children[children >= 0], minlength=total)
    if parents[0]:
        raise ValueError("the root, node 0, is a child")
    if (parents > 1).any():
        raise ValueError(f"node {np.argmax(parents > 1)} is a child twice")


def _levels(children: np.ndarray) -> list[np.ndarray]:
    """Returns the nodes of each level, internal nodes and leaves, from the root to the deepest leaves.

    No node has two parents, and the root has none: what is reached is a tree.
    """
    levels = [np.zeros(1, np.int32)]
    while len(internal := levels[-1][levels[-1] < len(children)]):
        if len(levels) > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_DEPTH} levels")
        below = children[internal]
        levels.append(below[below >= 0])
    return [numbers for numbers in levels if len(numbers)]


def _without_empty(children: np.ndarray, leaf_items: np.ndarray, levels: list[np.ndarray]) -> np.ndarray:
    """Returns children without those that have no items below."""
    num_internal = len(children)
    full = np.concatenate([np.zeros(num_internal, bool), leaf_items >= 0])
    for numbers in reversed(levels):
        internal = numbers[numbers < num_internal]
        full[internal] = (full[children[internal]] & (children[internal] >= 0)).any(1)
    return np.where(full[children] & (children >= 0), children, NO_CHILD)


def _regular_numbers(num_internal: int, num_children: int) -> np.ndarray:
    """Returns [N * C] int32 numbers of the children in a regular tree: C * i + 1 + k."""
    return np.arange(1, num_internal * num_children + 1, dtype=np.int32)


def _is_regular(children: np.ndarray, num_leaves: int, depth: int) -> bool:
    """Says whether children are numbered as in a regular tree with a slot for every possible leaf."""
    num_internal, branching = children.shape
    return (
        num_leaves == branching**depth
        and num_internal == sum(branching**level for level in range(depth))
        and bool(((children.ravel() == _regular_numbers(num_internal, branching)) | (children.ravel() < 0)).all())
    )


def _in_level_order(
    children: np.ndarray, leaf_items: np.ndarray, internal: np.ndarray, leaves: np.ndarray, level_nodes: list[int]
) -> ItemTree:
    """Renumbers nodes in level order, moves each node's children before its -1, and leaves out what is not reached."""
    new_number = np.full(len(children) + len(leaf_items), NO_CHILD, np.int32)
    new_number[internal] = np.arange(len(internal))
    new_number[len(children) + leaves] = len(internal) + np.arange(len(leaves))
    rows = np.where(children[internal] >= 0, new_number[children[internal]], NO_CHILD)
    rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), 1)
    rows = rows[:, : max(1, int((rows >= 0).sum(1).max()))]
    regular = _is_regular(rows, len(leaves), len(level_nodes))
    return ItemTree(np.ascontiguousarray(rows), leaf_items[leaves], tuple(level_nodes), regular)

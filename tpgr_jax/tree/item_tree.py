"""The balanced clustering tree over the items (Eq. 2 and 5, Algorithms 3 and 4), as padded arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.errors import UserError
from harness.runs.run_folder import read_arrays
from harness.settings import Count, Seed
from tpgr_jax.tree.clustering import Vectors, kmeans_clusters, pca_clusters, random_clusters

NO_CHILD = -1
MAX_LEAF_SLOTS = 2**31 - 1


@dataclass(frozen=True)
class TreeConfig:
    """How the tree is built (`conf/tree/*.yaml`)."""

    depth: Count
    clustering: Literal["pca", "kmeans", "random"]
    vectors: Literal["rating", "mf", "vae"]
    vector_size: Count
    vector_epochs: Count
    seed: Seed


@dataclass(frozen=True)
class ItemTree:
    """A tree over I items of depth D with at most C children per node.

    Nodes are numbered from the root 0; child k of node i is C * i + 1 + k, so that the j-th node of level l is
    (C^l - 1) / (C - 1) + j. The slots of level D are the leaves. A path shorter than D goes on with single children.

    Attributes:
        num_children: C.
        depth: D, the depth reached (at most the depth asked for).
        leaf_items: [C^D] int32 item of each leaf slot, -1 = empty.
        item_leaf: [I] int32 leaf slot of each item.
    """

    num_children: int
    depth: int
    leaf_items: np.ndarray
    item_leaf: np.ndarray

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_leaf)

    @property
    def num_internal(self) -> int:
        """Number of internal nodes, 1 + C + ... + C^(D-1) (Eq. 5)."""
        return sum(self.num_children**level for level in range(self.depth))

    def level_sizes(self, level: int) -> np.ndarray:
        """Returns [C^level, C] int32: the number of items below each child of each node of a level."""
        return (
            (self.leaf_items.reshape(self.num_children ** (level + 1), -1) >= 0)
            .sum(1, dtype=np.int32)
            .reshape(-1, self.num_children)
        )

    @property
    def sizes(self) -> np.ndarray:
        """[num_internal, C] int32 items below each child of each internal node, 0 for a child that does not exist."""
        return np.concatenate([self.level_sizes(level) for level in range(self.depth)])

    @property
    def children(self) -> np.ndarray:
        """[num_internal, C] int32 node number of each child, -1 where there is none."""
        numbers = np.arange(1, self.num_internal * self.num_children + 1, dtype=np.int32)
        return np.where(self.sizes > 0, numbers.reshape(-1, self.num_children), NO_CHILD)

    @property
    def item_paths(self) -> np.ndarray:
        """[I, D] int32 child index taken at each level to reach each item."""
        powers = self.num_children ** np.arange(self.depth - 1, -1, -1)
        return (self.item_leaf[:, None] // powers % self.num_children).astype(np.int32)

    @property
    def item_nodes(self) -> np.ndarray:
        """[I, D] int32 internal node at each level on the way to each item."""
        nodes = np.zeros((self.num_items, self.depth), np.int32)
        for level in range(1, self.depth):
            nodes[:, level] = self.num_children * nodes[:, level - 1] + 1 + self.item_paths[:, level - 1]
        return nodes

    def save(self, path: Path) -> None:
        """Writes every array (also those that follow from the others) as an .npz without pickles."""
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                num_children=self.num_children,
                depth=self.depth,
                leaf_items=self.leaf_items,
                item_leaf=self.item_leaf,
                children=self.children,
                sizes=self.sizes,
                item_paths=self.item_paths,
                item_nodes=self.item_nodes,
            )


def load_tree(path: Path) -> ItemTree:
    """Reads a tree written by `ItemTree.save`.

    Raises:
        UserError: The file is missing, damaged or inconsistent.
    """
    arrays = read_arrays(path, ("num_children", "depth", "leaf_items", "item_leaf"))
    leaf_items, item_leaf = arrays["leaf_items"], arrays["item_leaf"]
    if arrays["num_children"].shape or arrays["depth"].shape:
        raise UserError("the tree is inconsistent", where=str(path), do="Restore the file.")
    branching, depth = int(arrays["num_children"]), int(arrays["depth"])
    consistent = (
        leaf_items.dtype == item_leaf.dtype == np.int32
        and leaf_items.ndim == item_leaf.ndim == 1
        and branching >= 1
        and 1 <= depth <= 32
        and len(leaf_items) == branching**depth
        and np.array_equal(np.flatnonzero(leaf_items >= 0), np.sort(item_leaf))
        and np.array_equal(leaf_items[item_leaf], np.arange(len(item_leaf)))
    )
    if not consistent:
        raise UserError("the tree is inconsistent", where=str(path), do="Restore the file.")
    return ItemTree(branching, depth, leaf_items, item_leaf)


def smallest_branching(num_items: int, depth: int) -> int:
    """Returns c = ceil(I^(1/d)) in integer arithmetic: the smallest c with c^d >= I (Eq. 2)."""
    branching = max(1, round(num_items ** (1 / depth)))
    while branching**depth < num_items:
        branching += 1
    while branching > 1 and (branching - 1) ** depth >= num_items:
        branching -= 1
    return branching


Clustering = Callable[[np.ndarray, int], list[np.ndarray]]


def build_tree(num_items: int, depth: int, cluster: Clustering) -> ItemTree:
    """Divides the items again and again until one is left (section "Balanced Hierarchical Clustering").

    Args:
        num_items: I >= 1.
        depth: Depth asked for; a small catalogue may need less (e.g. two items never need more than one level).
        cluster: `(items, c) -> parts`: divides item indices into min(len(items), c) balanced parts.

    Raises:
        UserError: The padded tree does not fit into 32-bit indices.
    """
    branching = smallest_branching(num_items, depth)
    reached = 1
    while branching**reached < num_items:
        reached += 1
    if branching**reached > MAX_LEAF_SLOTS:
        raise UserError(f"{num_items:,} items at tree.depth={depth} need too many leaf slots", do="Use another depth.")
    leaf_items = np.full(branching**reached, NO_CHILD, np.int32)
    pending = [(np.arange(num_items), 0, 0)]
    while pending:
        items, level, position = pending.pop()
        if len(items) == 1:
            leaf_items[position * branching ** (reached - level)] = items[0]
            continue
        parts = cluster(items, branching)
        if level == reached - 1:
            first = position * branching
            leaf_items[first : first + len(items)] = items[np.concatenate(parts)]
            continue
        pending.extend((items[part], level + 1, position * branching + k) for k, part in enumerate(parts))
    occupied = np.flatnonzero(leaf_items >= 0)
    item_leaf = np.empty(num_items, np.int32)
    item_leaf[leaf_items[occupied]] = occupied
    return ItemTree(branching, reached, leaf_items, item_leaf)


def make_clustering(method: str, vectors: Vectors | None, seed: int) -> Clustering:
    """Returns the `cluster` argument of `build_tree`.

    Args:
        method: "pca", "kmeans" or "random".
        vectors: [I, F] item vectors, dense or sparse; not needed for "random".
        seed: Of k-means and of the random tree.
    """
    if method == "random":
        generator = np.random.default_rng(seed)
        return lambda items, count: random_clusters(len(items), count, generator)
    assert vectors is not None
    if method == "pca":
        return lambda items, count: pca_clusters(vectors[items], count)
    return lambda items, count: kmeans_clusters(vectors[items], count, seed)

"""Balanced hierarchical clustering (Eq. 2, Algorithms 3 and 4 of the TPGR paper): from items to a regular tree."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

from harness.errors import UserError
from tpgr_jax.tree.clustering import Vectors, kmeans_clusters, pca_clusters, random_clusters
from tpgr_jax.tree.item_tree import MAX_LEAF_SLOTS, NO_CHILD, ItemTree, regular_tree

Clustering = Callable[[np.ndarray, int], list[np.ndarray]]


def smallest_branching(num_items: int, depth: int) -> int:
    """Returns c = ceil(I^(1/d)) in integer arithmetic: the smallest c with c^d >= I (Eq. 2)."""
    branching = max(1, round(num_items ** (1 / depth)))
    while branching**depth < num_items:
        branching += 1
    while branching > 1 and (branching - 1) ** depth >= num_items:
        branching -= 1
    return branching


def build_tree(num_items: int, depth: int, cluster: Clustering, spare: float = 0.0) -> ItemTree:
    """Divides the items again and again until one is left (section "Balanced Hierarchical Clustering").

    Args:
        num_items: I >= 1.
        depth: Depth asked for; a small catalogue may need less (e.g. two items never need more than one level).
        cluster: `(items, c) -> parts`: divides item indices into min(len(items), c) balanced parts.
        spare: Share of the number of items for which there are to be free leaves, at least; they are spread evenly.

    Raises:
        UserError: The padded tree does not fit into 32-bit indices.
    """
    wanted = math.ceil(num_items * (1 + spare))
    branching = smallest_branching(wanted, depth)
    reached = 1
    while branching**reached < wanted:
        reached += 1
    if reached < depth:
        print(f"tree.depth is {depth}: {num_items:,} items need no more than {reached} levels", file=sys.stderr)
    if branching**reached > MAX_LEAF_SLOTS:
        raise UserError(f"{num_items:,} items at tree.depth={depth} need too many leaf slots", do="Use another depth.")

    # Each entry: items still together, at the j-th node of a level.
    leaf_items = np.full(branching**reached, NO_CHILD, np.int32)
    pending = [(np.arange(num_items), 0, 0)]
    while pending:
        items, level, position = pending.pop()
        if len(items) == 1:  # goes on with single children
            leaf_items[position * branching ** (reached - level)] = items[0]
            continue
        parts = cluster(items, branching)
        if level == reached - 1:
            first = position * branching
            leaf_items[first : first + len(items)] = items[np.concatenate(parts)]
            continue
        pending.extend((items[part], level + 1, position * branching + k) for k, part in enumerate(parts))
    return regular_tree(branching, reached, leaf_items)


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

"""New items in a tree that is there already: each goes to a free leaf near the items that it is most like."""

from __future__ import annotations

import numpy as np

from sim.tables.ratings import RatingData
from tpgr_jax.tree.item_tree import NO_CHILD, ItemTree, regular_tree

NUM_NEIGHBOURS = 5


def most_similar(data: RatingData, users: np.ndarray, known: np.ndarray, number: int) -> np.ndarray:
    """Returns the known items whose ratings are most like those of each new one, by the cosine of rating columns.

    Items that no training user has rated are like the most rated ones.

    Args:
        data: Ratings.
        users: [n] training users, ascending.
        known: [I] bool, at least one True.
        number: k.

    Returns:
        [new, min(k, known items)] int64, the most similar first, ties to the lower index.
    """
    columns = data.matrix(data.rating_values, users).T.tocsr()
    old, new = np.flatnonzero(known), np.flatnonzero(~known)
    counts = np.diff(columns.indptr)[old]
    length = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=1), np.float64).ravel())
    length[length == 0] = 1.0
    number = min(number, len(old))
    similar = np.empty((len(new), number), np.int64)
    for first in range(0, len(new), 256):  # bounds memory
        rows = new[first : first + 256]
        cosine = (columns[rows] @ columns[old].T).toarray() / length[rows, None] / length[None, old]
        cosine[np.diff(columns.indptr)[rows] == 0] = counts  # nothing is known of them
        similar[first : first + 256] = old[np.argsort(-cosine, axis=1, kind="stable")[:, :number]]
    return similar


def with_new_items(tree: ItemTree, source: np.ndarray, nearest: np.ndarray) -> ItemTree | None:
    """Returns a regular tree with present items in place of those that it was made for.

    Known items keep their leaves, those of vanished ones become free. A new item takes a free leaf under the lowest
    node above its nearest item that has one.

    Args:
        tree: Over the earlier items.
        source: [I] index of each present item among the earlier ones, -1 for new ones.
        nearest: [new] known present item that each new one is most like, in the order of the new ones.

    Returns:
        The tree; None if there are fewer free leaves than new items, or the tree is not regular.
    """
    if not tree.regular or len(source) > len(tree.leaf_items):
        return None
    leaf_items = np.full(len(tree.leaf_items), NO_CHILD, np.int32)
    known, new = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
    leaf = np.empty(len(source), np.int64)
    leaf[known] = tree.item_leaf[source[known]]
    leaf_items[leaf[known]] = known
    # Leaves below a node are consecutive: free ones are counted per node of each level, and searched from below.
    free = leaf_items == NO_CHILD
    spans = [tree.num_children**height for height in range(1, tree.depth + 1)]
    left = [free.reshape(-1, span).sum(1) for span in spans]
    for item, beside in zip(new, leaf[nearest], strict=True):
        height = next(height for height, span in enumerate(spans) if left[height][beside // span])
        first = beside // spans[height] * spans[height]
        place = first + int(np.argmax(free[first : first + spans[height]]))
        leaf_items[place], free[place] = item, False
        for count, span in zip(left, spans, strict=True):
            count[place // span] -= 1
    return regular_tree(tree.num_children, tree.depth, leaf_items)

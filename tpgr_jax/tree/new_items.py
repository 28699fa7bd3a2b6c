"""New items in a tree that is there already: each goes to a free leaf near the items that it is most like."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from sim.tables.items import ItemTable
from sim.tables.ratings import RatingData
from tpgr_jax.tree.item_tree import NO_CHILD, ItemTree, regular_tree

NUM_NEIGHBOURS = 5


def most_similar(
    data: RatingData, users: np.ndarray, known: np.ndarray, number: int, table: ItemTable | None = None
) -> np.ndarray:
    """Returns the known items that are most like each new one, by the cosine of rating columns.

    Items that no training user has rated are like those with the same categories, again by cosine; without a category
    they are like the most rated ones.

    Args:
        data: Ratings.
        users: [n] training users, ascending.
        known: [I] bool, at least one True.
        number: k.
        table: Categories of the items; None: unknown.

    Returns:
        [new, min(k, known items)] int64, the most similar first, ties to the more rated one, then to the lower index.
    """
    columns = data.matrix(data.rating_values, users).T.tocsr()
    counts = np.diff(columns.indptr)
    rated = _unit_rows(columns)
    categories = None if table is None else _unit_rows(table.category_matrix())
    old, new = np.flatnonzero(known), np.flatnonzero(~known)
    old = old[np.argsort(-counts[old], kind="stable")]
    number = min(number, len(old))
    similar = np.empty((len(new), number), np.int64)
    for first in range(0, len(new), 256):  # bounds memory
        rows = new[first : first + 256]
        cosine = (rated[rows] @ rated[old].T).toarray()
        if categories is not None:
            cosine += np.where(counts[rows, None] == 0, (categories[rows] @ categories[old].T).toarray(), 0.0)
        similar[first : first + 256] = old[np.argsort(-cosine, axis=1, kind="stable")[:, :number]]
    return similar


def _unit_rows(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Returns the rows at norm 1; empty ones stay empty."""
    rows = matrix.astype(np.float64)
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / np.where(length == 0, 1.0, length)) @ rows)


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

"""Small rating tables and trees made by hand, for tests of every package."""

import numpy as np

from sim.tables.ratings import RatingData, build_rating_data
from tpgr_jax.tree.item_tree import ItemTree, tree_from_children


def hand_made_ratings(users, items, ratings, low=1, high=5) -> RatingData:
    """A table of the given ratings (three columns of equal length) on the scale low to high."""
    return build_rating_data(
        name="hand-made",
        users=np.asarray(users),
        items=np.asarray(items),
        ratings=np.asarray(ratings),
        timestamps=None,
        rating_min=low,
        rating_max=high,
        checksum="none",
        source="hand-made",
        synthetic=True,
    )


def hand_made_tree() -> ItemTree:
    """Seven items on leaves 4 to 10: one below the root, four below nodes 1 and 2, two below node 3, a child of 1."""
    children = [[1, 4, 2], [3, 5, -1], [6, 7, 8], [9, 10, -1]]
    return tree_from_children(np.array(children), np.array([3, 0, 6, 1, 5, 2, 4]))

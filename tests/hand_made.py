"""Small tables and trees made by hand, for tests of every package."""

import numpy as np

from sim.tables.events import CLICK, ORDER, EventLog
from sim.tables.items import ALWAYS, ItemTable
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


def hand_made_log(user, item, feedback, num_users=None, num_items=None) -> EventLog:
    """A log of rows in the order shown (users ascending), one session per user, each answered at once.

    Other than in a built log, an item may come several times.
    """
    user, item, feedback = np.asarray(user, np.int32), np.asarray(item, np.int32), np.asarray(feedback, np.int8)
    place = (np.arange(len(user)) - np.searchsorted(user, user)).astype(np.int32)
    session = np.unique(user, return_inverse=True)[1].astype(np.int32)
    return EventLog(
        name="hand-made",
        user=user,
        session=session,
        time=np.arange(len(user)),
        item=item,
        feedback=feedback,
        shown_at=place,
        clicked_at=np.where(feedback >= CLICK, place, -1).astype(np.int32),
        ordered_at=np.where(feedback >= ORDER, place, -1).astype(np.int32),
        is_test=np.zeros(session[-1] + 1, bool),
        user_ids=np.arange(user.max() + 1 if num_users is None else num_users),
        item_ids=np.arange(item.max() + 1 if num_items is None else num_items),
        checksum="none",
        source="hand-made",
        synthetic=True,
        synthetic_skips=False,
    )


def hand_made_items(category_names, categories) -> ItemTable:
    """A table of items with the given categories, as indices of their names, and nothing else."""
    count = len(categories)
    return ItemTable(
        item_ids=np.arange(count),
        titles=[""] * count,
        category_names=category_names,
        category_starts=np.append(0, np.cumsum([len(each) for each in categories])),
        categories=np.array([index for each in categories for index in each], np.int32),
        available_from=np.full(count, -ALWAYS),
        available_until=np.full(count, ALWAYS),
        has_row=np.ones(count, bool),
        source="hand-made",
        rows=count,
        other_rows=0,
        repeated_rows=0,
    )


def hand_made_tree() -> ItemTree:
    """Seven items on leaves 4 to 10: one below the root, four below nodes 1 and 2, two below node 3, a child of 1."""
    children = [[1, 4, 2], [3, 5, -1], [6, 7, 8], [9, 10, -1]]
    return tree_from_children(np.array(children), np.array([3, 0, 6, 1, 5, 2, 4]))

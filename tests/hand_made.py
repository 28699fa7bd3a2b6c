"""Small rating tables made by hand, for tests of every package."""

import numpy as np

from sim.tables.ratings import RatingData, build_rating_data


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

"""A data set from outside the package: generated ratings, the higher the lower an item's number is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.settings import Count
from sim.datasets.rating_settings import DataConfig
from sim.tables.ratings import RatingData, build_rating_data


@dataclass(frozen=True, kw_only=True)
class Settings(DataConfig):
    """What `conf/data/toy.yaml` holds beside what all data sets share."""

    users: Count
    items: Count


def load(settings: Settings) -> RatingData:
    """Returns the ratings: everybody rates about half of all items, with 1 to 5."""
    generator = np.random.default_rng(settings.seed)
    user, item = np.nonzero(generator.random((settings.users, settings.items)) < 0.5)
    liked = generator.random(len(user)) < 1 - item / settings.items
    ratings = np.where(liked, generator.integers(4, 6, len(user)), generator.integers(1, 4, len(user)))
    return build_rating_data(
        name=settings.name,
        users=user,
        items=item,
        ratings=ratings.astype(float),
        timestamps=None,
        rating_min=1.0,
        rating_max=5.0,
        checksum=f"generated from seed {settings.seed}",
        source=__name__,
        synthetic=True,
    )

"""Ratings that a server collected (`data=served_ratings`); of several of a user for an item the last one counts."""

from __future__ import annotations

from sim.datasets.ratings import DataConfig
from sim.files.locate import bad_setting
from sim.files.served_log import read_served_ratings
from sim.formats.sources import checksum, describe_sources
from sim.tables.ratings import RatingData, build_rating_data

Settings = DataConfig


def load(settings: DataConfig) -> RatingData:
    """Returns the ratings.

    Raises:
        UserError: No files, damaged ones, or no ratings in them.
    """
    if not settings.path:
        raise bad_setting("path", "is not set", "Set it to a server's log, as in 'data.path=served/*.jsonl'.")
    sources = settings.stored_sources()
    return build_rating_data(
        name=settings.name,
        **vars(read_served_ratings(sources)),
        rating_min=settings.rating_min,
        rating_max=settings.rating_max,
        checksum=checksum([source.path for source in sources]),
        source=describe_sources(sources),
        synthetic=False,
        duplicates="last",
    )

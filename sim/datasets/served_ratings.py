"""Ratings that a server collected (`data=served_ratings`); of several of a user for an item the last one counts."""

from __future__ import annotations

from sim.datasets.ratings import DataConfig
from sim.files.log_parts import checksum_of_parts, log_parts, log_sources
from sim.files.served_log import read_served_ratings
from sim.formats.sources import describe_sources
from sim.tables.ratings import RatingData, build_rating_data

Settings = DataConfig


def load(settings: DataConfig) -> RatingData:
    """Returns the ratings.

    Raises:
        UserError: No files, damaged ones, or no ratings in them.
    """
    sources = log_sources(settings.path)
    parts = log_parts(sources, settings.log_parts)
    return build_rating_data(
        name=settings.name,
        **vars(read_served_ratings(parts)),
        rating_min=settings.rating_min,
        rating_max=settings.rating_max,
        checksum=checksum_of_parts(parts),
        source=describe_sources(sources),
        synthetic=False,
        duplicates="last",
    )

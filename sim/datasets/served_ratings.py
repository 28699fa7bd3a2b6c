"""Ratings that a server collected (`data=served_ratings`), alone or added to those that the served run learned from.

Of several ratings of a user for an item the last one counts, and any in the log more than what the run learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.runs.run_folder import RunFolder
from harness.runs.seeds import read_single_run
from harness.settings import read_settings
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import AnyDataConfig, load_dataset
from sim.files.log_parts import checksum_of_parts, log_parts, log_sources
from sim.files.served_log import ServedRatings, read_served_ratings
from sim.formats.sources import describe_sources
from sim.tables.ratings import RatingData, build_rating_data


@dataclass(frozen=True)
class Settings(DataConfig):
    """Settings of ratings, and the run folder whose ratings these are added to (None: they are alone)."""

    added_to: str | None = None


def load(settings: Settings) -> RatingData:
    """Returns the ratings.

    Raises:
        UserError: No files, damaged ones, or no ratings in them; no such run, or its data are gone.
    """
    sources = log_sources(settings.path)
    parts = log_parts(sources, settings.log_parts)
    served, checksum, source = read_served_ratings(parts), checksum_of_parts(parts), describe_sources(sources)
    if settings.added_to is not None:
        earlier = _ratings_of(settings.added_to)
        served = together(earlier, served)
        checksum, source = f"{earlier.checksum}+{checksum}", f"{earlier.source} and {source}"
    return build_rating_data(
        name=settings.name,
        **vars(served),
        rating_min=settings.rating_min,
        rating_max=settings.rating_max,
        checksum=checksum,
        source=source,
        synthetic=False,
        duplicates="last",
    )


@dataclass(frozen=True)
class _Run:
    """Of a run's configuration what says where its ratings are."""

    data: AnyDataConfig


def _ratings_of(run: str) -> RatingData:
    """Returns the ratings of training and test users of a run, read again."""
    values = read_single_run(RunFolder(Path(run).expanduser()))
    return load_dataset(read_settings(_Run, {"data": values.get("data")}, where=f"{run}/config.yaml").data)


def together(earlier: RatingData, served: ServedRatings) -> ServedRatings:
    """Returns the earlier ratings and then, in order of time, those of a log; without times unless both have them."""
    users = np.repeat(np.arange(earlier.num_users), np.diff(earlier.indptr))
    assert served.timestamps is not None
    order = np.argsort(served.timestamps, kind="stable")
    times = None
    if earlier.timestamps is not None:
        times = np.concatenate([earlier.timestamps, served.timestamps[order]])
    return ServedRatings(
        _ids_of_both(earlier.user_ids[users], served.users[order]),
        _ids_of_both(earlier.item_ids[earlier.items], served.items[order]),
        np.concatenate([np.asarray(earlier.rating_values)[earlier.codes], served.ratings[order]]),
        times,
    )


def _ids_of_both(earlier: np.ndarray, served: np.ndarray) -> np.ndarray:
    """Returns ids behind one another: as text if either is, but for clients who wrote whole numbers as text."""
    if earlier.dtype.kind in "iu" and served.dtype.kind == "U":
        numbers = np.array([int(text) if text.isascii() and text.isdecimal() else -1 for text in served], np.int64)
        if (numbers.astype(str) == served).all():
            return np.concatenate([earlier, numbers])
    if earlier.dtype.kind != served.dtype.kind:
        earlier, served = earlier.astype(str), served.astype(str)
    return np.concatenate([earlier, served])

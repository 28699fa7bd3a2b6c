"""Rating data sets by configuration: finds, downloads or generates ratings, checks their counts, caches the table.

`sim.files.locate` describes where files are searched; if there are none, `data.url` is downloaded to `data.archive`.
The counts must equal `expected_*`, so that the file of another data set is never used by mistake.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np

from harness.extensions import SETTINGS, ByModule, load_module
from sim.datasets.rating_settings import DataConfig
from sim.files.cache import cached, notice
from sim.files.download import DownloadError, download
from sim.files.locate import STORE_THEM, bad_setting, check_count, fingerprint
from sim.files.rating_readers import PARSER_VERSION, read_ratings
from sim.formats.sources import Source, checksum, describe_sources
from sim.tables.ratings import HASHED, RatingData, build_rating_data, hide_ratings
from sim.tables.table_hash import hashed

LOAD = "load"
"""Name of the function of a data set's own module (`data.module`): `settings -> RatingData`."""
_CACHED_FROM = ("movielens_1m", "movielens_10m", "netflix")
_CACHED_FROM_RATINGS = 1_000_000


Settings = DataConfig
"""The name by which settings are looked for in a data set's module."""

AnyDataConfig = Annotated[DataConfig, ByModule("data", DataConfig, (LOAD,), default=__name__)]
"""`DataConfig`, or the `Settings` of a data set's own module."""


def load_dataset(config: DataConfig, keep_source_rows: bool = False) -> RatingData:
    """Returns the configured ratings, from the cache if possible.

    Args:
        config: The data settings.
        keep_source_rows: Whether to fill `RatingData.source_rows`, which only studies of the order in time need.
            Generated ratings have no ties in time and do without.

    Raises:
        UserError: The files are damaged or of another data set; or they are missing, cannot be downloaded, and must
            not be replaced by generated data (`offline_fallback`).
    """
    data = _load(config, keep_source_rows)
    if not config.hidden_share:
        return data
    users = np.arange(data.num_users) if config.hidden_users == "all" else config.split(data.num_users)[0]
    return hashed(hide_ratings(data, users, config.hidden_share, config.split_seed), HASHED)


def _load(config: DataConfig, keep_source_rows: bool) -> RatingData:
    if config.module is not None:
        data: RatingData = hashed(load_module(config.module, "data.module", (SETTINGS, LOAD)).load(config), HASHED)
        _check_counts(config, data)
        return data
    if config.reader == "synthetic":
        return _load_synthetic(config)
    try:
        sources = _find_sources(config)
    except DownloadError as error:
        return _fall_back(config, error)
    data = _load_sources(config, sources, keep_source_rows)
    _check_counts(config, data)
    return data


# Real data


def _find_sources(config: DataConfig) -> list[Source]:
    """Returns the files of the data set in a fixed order, downloading them if necessary."""
    if sources := config.stored_sources():
        return sources
    looked, archive = config.what_was_missed(), config.archive_path
    if config.url is None or config.checksum is None or archive is None:
        do = f"{config.obtain} {STORE_THEM}" if config.obtain else STORE_THEM
        raise DownloadError(looked, where=config.name, do=do)
    try:
        download(config.url, config.checksum, archive)
    except DownloadError as error:
        raise DownloadError(f"{looked}; {error.where} {error.what}", where=config.name, do=error.do) from None
    return config.members(archive)


def _load_sources(config: DataConfig, sources: list[Source], keep_source_rows: bool) -> RatingData:
    paths = list(dict.fromkeys(source.path for source in sources))
    layout = config.table_layout() if config.reader == "table" else None

    def build() -> RatingData:
        columns = read_ratings(config.reader, sources, layout=layout, limits=config.limits)
        data = build_rating_data(
            name=config.name,
            **vars(columns),
            rating_min=config.rating_min,
            rating_max=config.rating_max,
            checksum=checksum(paths),
            source=describe_sources(sources),
            synthetic=False,
            keep_source_rows=keep_source_rows,
            duplicates=config._what_counts,
            missing_ratings=config.missing_ratings,
            missing_values=config.missing_values,
        )
        return hashed(data, HASHED)

    # The cache key: everything that determines the table.
    key = {
        "name": config.name,
        "files": [fingerprint(source) for source in sources],
        "reader": config.reader,
        "layout": None if layout is None else dataclasses.asdict(layout),
        "scale": [config.rating_min, config.rating_max],
        "duplicates": config._what_counts,
        "parser": PARSER_VERSION,
        **({"source_rows": True} if keep_source_rows else {}),
    }
    return cached(RatingData, config.cache_folder, key, build)


def _check_counts(config: DataConfig, data: RatingData) -> None:
    for what, count, expected in (
        ("users", data.num_users, config.expected_users),
        ("items", data.num_items, config.expected_items),
        ("ratings", data.num_ratings, config.expected_ratings),
    ):
        check_count(config.name, data.source, what, count, expected)


# Generated data


def _load_synthetic(config: DataConfig) -> RatingData:
    data = _generate(config, config.size or "small", config.num_users, config.num_items, config.num_ratings)
    for key, value in (("rating_min", config.rating_min), ("rating_max", config.rating_max)):
        if value is not None and value != getattr(data, key):
            raise bad_setting(key, f"{value:g} differs from the generator's {getattr(data, key):g}", "Set it to null.")
    return dataclasses.replace(data, name=config.name)


def _generate(
    config: DataConfig, size: str, users: int | None = None, items: int | None = None, ratings: int | None = None
) -> RatingData:
    """Generates ratings; large tables are cached."""
    from sim.generators import ratings as synthetic

    def build() -> RatingData:
        counts = {"num_users": users, "num_items": items, "num_ratings": ratings}
        return hashed(synthetic.generate(size=size, seed=config.seed, **counts), HASHED)

    if (ratings or 0) < _CACHED_FROM_RATINGS and (ratings is not None or size not in _CACHED_FROM):
        return build()
    drawn = {"size": size, "seed": config.seed, "counts": [users, items, ratings]}
    key = {"generator": synthetic.GENERATOR_VERSION, **drawn}
    return cached(RatingData, config.cache_folder, key, build)


def _fall_back(config: DataConfig, error: DownloadError) -> RatingData:
    """Returns generated ratings in place of missing ones, with a warning, if that is allowed."""
    if not config.offline_fallback:
        raise error
    size = config.fallback_size
    data = _generate(config, size)
    notice(
        f"WARNING: {config.name} is not available: {error.what}. Using SYNTHETIC ratings of size {size} instead, whose "
        f"results say nothing about the real data (data.offline_fallback=false makes this an error). {error.do}"
    )
    return dataclasses.replace(data, name=f"synthetic_{size}")


# Statistics


def statistics(data: RatingData) -> dict[str, Any]:
    """Returns the statistics of the paper's Table 1 and more, as JSON values.

    Returns:
        name, users, items, ratings, density (R / (U * I)), ratings_per_user and ratings_per_item (min, median, mean,
        max), rating_mean, rating_scale, rating_distribution (rating -> count), timestamps ([first, last] in seconds, or
        None), checksum, source and synthetic.
    """
    counts = np.bincount(data.codes, minlength=len(data.rating_values))[1:]
    values = np.asarray(data.rating_values[1:])
    timestamps = data.timestamps
    return {
        "name": data.name,
        "users": data.num_users,
        "items": data.num_items,
        "ratings": data.num_ratings,
        "density": data.num_ratings / (data.num_users * data.num_items),
        "ratings_per_user": spread(np.diff(data.indptr)),
        "ratings_per_item": spread(np.bincount(data.items, minlength=data.num_items)),
        "rating_mean": float(counts @ values / data.num_ratings),
        "rating_scale": [data.rating_min, data.rating_max],
        "rating_distribution": {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)},
        "timestamps": None if timestamps is None else [int(timestamps.min()), int(timestamps.max())],
        "checksum": data.checksum,
        "source": data.source,
        "synthetic": data.synthetic,
    }


def spread(counts: np.ndarray) -> dict[str, float]:
    """Returns minimum, median, mean and maximum of some counts, as JSON values."""
    return {
        "min": int(counts.min()),
        "median": float(np.median(counts)),
        "mean": float(counts.mean()),
        "max": int(counts.max()),
    }

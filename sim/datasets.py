"""Data sets by configuration: finds, downloads or generates the ratings, checks their counts and caches the table.

Where the files of a data set are looked for, first match wins (`data.root` is the folder; if null, the environment
variable TPGR_JAX_DATA; if unset, the user's cache folder):

1. each entry of `data.files` in order, as it is and with `.gz`; `*` matches any characters (several files then);
2. the archive `data.archive` with its member `data.member`;
3. only if `data.root` itself is set: the bare names of `data.files` in the root (it may be the data set's own folder);
4. `data.url`, downloaded to `data.archive`.

Whatever is found must have the counts `expected_*`, so that another data set's file is never taken by mistake.
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim.download import DownloadError, check_address, check_checksum, download
from sim.errors import UserError
from sim.ratings import RatingData, build_rating_data
from sim.readers import PARSER_VERSION, READERS, TableLayout, read_ratings
from sim.sources import SizeLimits, Source, checksum, find_members, natural_order
from sim.table_cache import cached, notice

ROOT_VARIABLE = "TPGR_JAX_DATA"
CACHE_VARIABLE = "TPGR_JAX_CACHE"
SYNTHETIC_SIZES = ("tiny", "small", "movielens_1m", "movielens_10m", "netflix")
_CACHED_FROM = ("movielens_1m", "movielens_10m", "netflix")
_CACHED_FROM_RATINGS = 1_000_000


@dataclass(frozen=True)
class DataConfig:
    """Everything that decides which ratings an experiment sees; `conf/data/*.yaml` hold the values and say more.

    Raises:
        UserError: A value is out of range; the message names its key.
    """

    name: str
    reader: str
    root: str | None
    cache: str | None
    offline_fallback: bool
    fallback_size: str
    relevant_above: float
    rating_min: float | None
    rating_max: float | None
    split_seed: int
    test_fraction: float
    max_unpacked_gib: float
    files: list[str]
    archive: str | None
    member: str | None
    url: str | None
    checksum: str | None
    expected_users: int | None
    expected_items: int | None
    expected_ratings: int | None
    path: str | None
    user_column: str | None
    item_column: str | None
    rating_column: str | None
    timestamp_column: str | None
    separator: str | None
    size: str | None
    num_users: int | None
    num_items: int | None
    num_ratings: int | None
    seed: int

    def __post_init__(self) -> None:
        """Checks all values."""
        self._check_choices()
        self._check_ranges()
        if self.reader == "table":
            self._check_table()
        if self.url is not None:
            check_address(self.url, "data.url")
            if self.checksum is None or self.archive is None:
                raise _bad("url", "is set without data.checksum and data.archive", "Set all three, or none.")
        if self.checksum is not None:
            check_checksum(self.checksum, "data.checksum")
        if (self.archive is None) != (self.member is None) and self.reader not in ("table", "synthetic"):
            raise _bad("archive", "and data.member go together", "Set both, or none.")

    def _check_choices(self) -> None:
        for key, value, choices in (
            ("reader", self.reader, ("synthetic", *READERS)),
            ("fallback_size", self.fallback_size, SYNTHETIC_SIZES),
            ("size", self.size, (None, *SYNTHETIC_SIZES)),
        ):
            if value not in choices:
                names = ", ".join("null" if choice is None else choice for choice in choices)
                raise _bad(key, f"unknown value {value!r}", f"Choose one of: {names}.")
        counts = (self.num_users, self.num_items, self.num_ratings)
        if self.reader == "synthetic" and self.size is None and None in counts:
            do = "Set data.size, or all of data.num_users, data.num_items and data.num_ratings."
            raise _bad("size", "is null, but not all counts are set", do)

    def _check_ranges(self) -> None:
        if not self.name.strip():
            raise _bad("name", "is empty", "Name the data set.")
        if not 0 < self.test_fraction < 1:
            raise _bad("test_fraction", f"{self.test_fraction:g} is out of range", "Set it between 0 and 1, exclusive.")
        for key in ("relevant_above", "rating_min", "rating_max"):
            value = getattr(self, key)
            if value is not None and not math.isfinite(value):
                raise _bad(key, f"{value} is not finite", "Set a number.")
        if self.rating_min is not None and self.rating_max is not None and self.rating_min >= self.rating_max:
            problem = f"{self.rating_min:g} is not below data.rating_max {self.rating_max:g}"
            raise _bad("rating_min", problem, "Set the scale's ends.")
        if not 0 < self.max_unpacked_gib < math.inf:
            raise _bad("max_unpacked_gib", f"{self.max_unpacked_gib:g} is out of range", "Set a positive number.")
        for key in ("split_seed", "seed"):
            if getattr(self, key) < 0:
                raise _bad(key, f"{getattr(self, key)} is negative", "Set 0 or more.")
        for side in ("users", "items", "ratings"):
            for key in (f"num_{side}", f"expected_{side}"):
                value = getattr(self, key)
                if value is not None and value < 1:
                    raise _bad(key, f"{value} is not positive", "Set 1 or more, or null.")

    def _check_table(self) -> None:
        if not self.path:
            raise _bad("path", "is not set", "Set it to a .csv, .tsv or .parquet file, as in data.path=ratings.csv.")
        for key in ("user_column", "item_column", "rating_column"):
            if not getattr(self, key):
                raise _bad(key, "is not set", "Set it to the column's name.")
        names = self.table_layout().names
        if len(set(names)) != len(names):
            raise _bad("user_column", f"one column has two roles: {', '.join(names)}", "Name different columns.")
        separator = self.table_layout().separator
        if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\n\r\0'):
            raise _bad("separator", f"{separator!r} cannot be used", "Set one ASCII character, 'tab', or null.")

    def table_layout(self) -> TableLayout:
        """Returns the columns of a generic table."""
        return TableLayout(
            user_column=self.user_column or "",
            item_column=self.item_column or "",
            rating_column=self.rating_column or "",
            timestamp_column=self.timestamp_column or None,
            separator="\t" if self.separator == "tab" else self.separator or None,
        )


def _bad(key: str, problem: str, do: str) -> UserError:
    return UserError(problem, where=f"data.{key}", do=do)


def load_dataset(config: DataConfig) -> RatingData:
    """Returns the ratings that the configuration names, from the cache where it has them.

    Raises:
        UserError: The files are damaged, of another data set, or neither found, nor downloadable, nor to be replaced
            by generated data (`offline_fallback`).
    """
    if config.reader == "synthetic":
        return _load_synthetic(config)
    try:
        sources = _find_sources(config)
    except DownloadError as error:
        return _fall_back(config, error)
    data = _load_sources(config, sources)
    _check_counts(config, data)
    return data


# Real data


def _find_sources(config: DataConfig) -> list[Source]:
    """Returns the files of the data set in a fixed order, downloading them if need be."""
    if config.reader == "table":
        return [_named_source(config)]
    root = _folder(config.root, ROOT_VARIABLE, "data", "data.root")
    archive = root / config.archive if config.archive else None
    for entry in config.files:
        if found := _matches(root, entry):
            return found
    if archive is not None and (archive.is_file() or archive.is_dir()):
        return _members(archive, config)
    if config.root:
        for entry in config.files:
            if found := _matches(root, Path(entry).name):
                return found
    places = [f"{entry}[.gz]" for entry in config.files] + ([config.archive] if config.archive else [])
    looked = f"no files of this data set under {root} (looked for {', '.join(places)})"
    if config.url is None or config.checksum is None or archive is None:
        do = f"Store its files there, or set data.root or {ROOT_VARIABLE} to the folder that holds them."
        if config.reader == "netflix":
            do = f"It cannot be downloaded without an account (kaggle.com, netflix-inc/netflix-prize-data). {do}"
        raise DownloadError(looked, where=config.name, do=do)
    try:
        download(config.url, config.checksum, archive)
    except DownloadError as error:
        raise DownloadError(f"{looked}; {error.where} {error.what}", where=config.name, do=error.do) from None
    return _members(archive, config)


def _named_source(config: DataConfig) -> Source:
    path = Path(config.path or "").expanduser()
    if path.suffix.lower() != ".zip":
        return Source(path)
    members = find_members(path, config.member or "*")
    if len(members) > 1:
        do = "Set data.member to the one that holds the ratings."
        raise UserError(f"holds {len(members)} files: {', '.join(members[:5])}", where=str(path), do=do)
    return Source(path, members[0])


def _matches(root: Path, entry: str) -> list[Source]:
    """Returns the existing files that an entry of `data.files` names, plain before gzip."""
    for pattern in (entry, f"{entry}.gz"):
        if "*" not in pattern:
            # A folder or a dangling link of this name is reported when it is read, rather than passed over.
            if os.path.lexists(root / pattern):
                return [Source(root / pattern)]
        elif found := sorted(root.glob(pattern), key=lambda path: natural_order(path.name)):
            return [Source(path) for path in found]
    return []


def _members(archive: Path, config: DataConfig) -> list[Source]:
    return [Source(archive, member) for member in find_members(archive, config.member or "*")]


def _folder(configured: str | None, variable: str, default: str, key: str) -> Path:
    """Returns the folder that is configured, else named by the environment, else in the user's cache folder."""
    named = configured or os.environ.get(variable)
    if named:
        folder = Path(named).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is not a folder", where=key if configured else variable, do="Name a folder.")
        return folder
    import pooch

    return Path(pooch.os_cache("tpgr_jax")) / default


def _load_sources(config: DataConfig, sources: list[Source]) -> RatingData:
    paths = list(dict.fromkeys(source.path for source in sources))
    layout = config.table_layout() if config.reader == "table" else None
    limits = SizeLimits(max_bytes=int(config.max_unpacked_gib * 2**30))

    def build() -> RatingData:
        columns = read_ratings(config.reader, sources, layout=layout, limits=limits)
        return build_rating_data(
            name=config.name,
            users=columns.users,
            items=columns.items,
            ratings=columns.ratings,
            timestamps=columns.timestamps,
            rating_min=config.rating_min,
            rating_max=config.rating_max,
            checksum=checksum(paths),
            source=_described(sources),
            synthetic=False,
        )

    key = {
        "name": config.name,
        "files": [_fingerprint(source) for source in sources],
        "reader": config.reader,
        "layout": None if layout is None else dataclasses.asdict(layout),
        "scale": [config.rating_min, config.rating_max],
        "parser": PARSER_VERSION,
    }
    return cached(_cache_root(config), key, build)


def _fingerprint(source: Source) -> list[Any]:
    """Returns what tells one version of a file from another; a missing file is reported when it is read."""
    try:
        status = source.path.stat()
    except OSError:
        return [str(source.path), source.member]
    return [str(source.path.resolve()), source.member, status.st_size, status.st_mtime_ns]


def _described(sources: list[Source]) -> str:
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    return f"{sources[0]}{more}"


def _cache_root(config: DataConfig) -> Path:
    return _folder(config.cache, CACHE_VARIABLE, "tables", "data.cache")


def _check_counts(config: DataConfig, data: RatingData) -> None:
    """Refuses a table with other counts than the data set is known to have."""
    for what, found, expected in (
        ("users", data.num_users, config.expected_users),
        ("items", data.num_items, config.expected_items),
        ("ratings", data.num_ratings, config.expected_ratings),
    ):
        if expected is not None and found != expected:
            raise UserError(
                f"holds {found:,} {what} where {config.name} has {expected:,}: another data set, or an incomplete file",
                where=data.source,
                do=f"Get the right file, or set data.expected_{what}=null (and the other expected_*) to take it.",
            )


# Generated data


def _load_synthetic(config: DataConfig) -> RatingData:
    data = _generate(
        config, config.size or "small", config.seed, config.num_users, config.num_items, config.num_ratings
    )
    for key, value in (("rating_min", config.rating_min), ("rating_max", config.rating_max)):
        if value is not None and value != getattr(data, key):
            raise _bad(key, f"{value:g} differs from the generator's {getattr(data, key):g}", "Set it to null.")
    return dataclasses.replace(data, name=config.name)


def _generate(
    config: DataConfig, size: str, seed: int, users: int | None, items: int | None, ratings: int | None
) -> RatingData:
    """Generates ratings; large tables go through the cache."""
    from sim import synthetic

    def build() -> RatingData:
        return synthetic.generate(size=size, seed=seed, num_users=users, num_items=items, num_ratings=ratings)

    if (ratings or 0) < _CACHED_FROM_RATINGS and (ratings is not None or size not in _CACHED_FROM):
        return build()
    key = {"generator": synthetic.GENERATOR_VERSION, "size": size, "seed": seed, "counts": [users, items, ratings]}
    return cached(_cache_root(config), key, build)


def _fall_back(config: DataConfig, error: DownloadError) -> RatingData:
    """Returns generated ratings in place of those that could not be found, saying so, if that is allowed."""
    if not config.offline_fallback:
        raise error
    size = config.fallback_size
    data = _generate(config, size, config.seed, None, None, None)
    notice(
        f"WARNING: {config.name} is not available: {error.what}. Using GENERATED ratings of size {size} instead, whose "
        f"results say nothing about the real data (data.offline_fallback=false makes this an error). {error.do}"
    )
    return dataclasses.replace(data, name=f"synthetic_{size}")


# Statistics


def statistics(data: RatingData) -> dict[str, Any]:
    """Returns the paper's Table 1 for a data set and more, as JSON values.

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
        "ratings_per_user": _spread(np.diff(data.indptr)),
        "ratings_per_item": _spread(np.bincount(data.items, minlength=data.num_items)),
        "rating_mean": float(counts @ values / data.num_ratings),
        "rating_scale": [data.rating_min, data.rating_max],
        "rating_distribution": {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)},
        "timestamps": None if timestamps is None else [int(timestamps.min()), int(timestamps.max())],
        "checksum": data.checksum,
        "source": data.source,
        "synthetic": data.synthetic,
    }


def _spread(counts: np.ndarray) -> dict[str, float]:
    return {
        "min": int(counts.min()),
        "median": float(np.median(counts)),
        "mean": float(counts.mean()),
        "max": int(counts.max()),
    }

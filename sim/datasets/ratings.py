"""Rating data sets by configuration: finds, downloads or generates ratings, checks their counts, caches the table.

`sim.files.locate` describes where files are searched; if there are none, `data.url` is downloaded to `data.archive`.
The counts must equal `expected_*`, so that the file of another data set is never used by mistake.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from harness.extensions import SETTINGS, ByModule, load_module
from harness.settings import PAIRS, Count, CountOrZero, Finite, Otherwise, ShareBelowOne
from sim.files.cache import cached, notice
from sim.files.download import DownloadError, check_address, check_checksum, download
from sim.files.locate import NOT_AUTO, STORE_THEM, FilesConfig, bad_setting, check_count, fingerprint
from sim.files.rating_readers import PARSER_VERSION, READERS, read_ratings
from sim.files.rows import TableLayout, TimeFormat
from sim.files.unknown_names import IGNORE
from sim.formats.sources import Source, checksum, describe_sources
from sim.tables.ratings import HASHED, Duplicates, RatingData, build_rating_data, hide_ratings, scaled_by_users
from sim.tables.split import fold_users, split_users
from sim.tables.table_hash import hashed

SyntheticSize = Literal["tiny", "small", "movielens_1m", "movielens_10m", "netflix"]
OWN_READER = "module"
LOAD = "load"
"""Name of the function of a data set's own module (`data.module`): `settings -> RatingData`."""
_CACHED_FROM = ("movielens_1m", "movielens_10m", "netflix")
_CACHED_FROM_RATINGS = 1_000_000


RatingOfEvent = Annotated[Finite | None, BeforeValidator(lambda value: None if value == IGNORE else value)]
"""What an event counts; None: its rows are left out."""
VALIDATION_FRACTION = 0.1  # of the training users, with data.validation or data.selection


class UserGroups(NamedTuple):
    """Indices of users, each ascending.

    Attributes:
        train: [n] who train.
        test: [m] who test; empty where everybody trains.
        held_out: [v] training users who train nothing; empty without data.validation and data.selection.
    """

    train: np.ndarray
    test: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class DataConfig(FilesConfig):
    """Everything that determines the ratings of an experiment; `conf/data/*.yaml` contain and explain the values.

    Raises:
        UserError: A value is out of range; the message names its key.
    """

    offline_fallback: bool
    fallback_size: SyntheticSize
    relevant_above: Finite
    rating_min: Finite | None
    rating_max: Finite | None
    split_seed: CountOrZero
    test_fraction: ShareBelowOne
    url: str | None
    checksum: str | None
    expected_users: Count | None
    expected_items: Count | None
    expected_ratings: Count | None
    user_column: str | None
    item_column: str | None
    rating_column: str | None
    timestamp_column: str | None
    size: SyntheticSize | None
    num_users: Count | None
    num_items: Count | None
    num_ratings: Count | None
    kind: Annotated[
        Literal["ratings"],
        Otherwise(
            "This learns from ratings: choose data=synthetic, movielens_1m, movielens_10m, netflix, ratings_file or "
            "another data set of ratings.",
            NOT_AUTO,
        ),
    ] = "ratings"
    validation: bool = False
    fold: CountOrZero | None = None
    folds: Count = 5
    selection: bool | None = None
    module: str | None = None
    time_format: TimeFormat = "auto"
    implicit_rating: Finite = 1.0
    scale_users: Literal["training", "all"] = "all"
    rating_of_event: Annotated[dict[str, RatingOfEvent], PAIRS] = dataclasses.field(default_factory=dict)
    rating_steps: list[Finite] = dataclasses.field(default_factory=list)
    missing_ratings: list[Finite] = dataclasses.field(default_factory=list)
    duplicates: Duplicates = "error"
    obtain: str | None = None
    hidden_share: ShareBelowOne = 0.0
    hidden_users: Literal["training", "all"] = "training"

    def __post_init__(self) -> None:
        """Checks settings against each other, and the reader's name."""
        self.check_files()
        self._check_choices()
        if self.reader == "table":
            self._check_table()
        if self.url is not None:
            check_address(self.url, "data.url")
            if self.checksum is None or self.archive is None:
                raise bad_setting("url", "is set without data.checksum and data.archive", "Set all three, or none.")
        if self.checksum is not None:
            check_checksum(self.checksum, "data.checksum")
        if (self.archive is None) != (self.member is None) and self.reader not in ("table", "synthetic"):
            raise bad_setting("archive", "and data.member go together", "Set both, or none.")

    @property
    def falls_back(self) -> bool:
        """Whether generated ratings that were loaded stand in for these, instead of being what was asked for."""
        return self.reader not in ("synthetic", OWN_READER)

    def _check_choices(self) -> None:
        self.check_choice("reader", ("synthetic", *READERS) if self.module is None else (OWN_READER,))
        counts = (self.num_users, self.num_items, self.num_ratings)
        if self.reader == "synthetic" and self.size is None and None in counts:
            do = "Set data.size, or all of data.num_users, data.num_items and data.num_ratings."
            raise bad_setting("size", "is null, but not all counts are set", do)
        if self.rating_min is not None and self.rating_max is not None and self.rating_min >= self.rating_max:
            problem = f"{self.rating_min:g} is not below data.rating_max {self.rating_max:g}"
            raise bad_setting("rating_min", problem, "Set the scale's ends.")
        if self.fold is not None and self.fold >= self.folds:
            problem = f"{self.fold} is not one of data.folds={self.folds}"
            raise bad_setting("fold", problem, f"Set 0 to {self.folds - 1}, or null.")

    def split(self, num_users: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the training users and the test users among users 0 to U - 1 (`sim.tables.split`).

        A `test_fraction` of 0 makes everybody a training user, for runs that are to be used rather than measured.

        Raises:
            UserError: One side would be empty.
        """
        if self.for_use:
            return np.arange(num_users), np.arange(0)
        if self.fold is None:
            return split_users(num_users, self.test_fraction, self.split_seed)
        return fold_users(num_users, self.folds, self.fold, self.split_seed)

    def user_groups(self, num_users: int) -> UserGroups:
        """Returns who trains, who tests and who is held out of training, among users 0 to U - 1.

        Raises:
            UserError: A group would be empty.
        """
        train, test = self.split(num_users)
        if not self.validation and not self.selection:
            return UserGroups(train, test, train[:0])
        kept, held_out = split_users(len(train), VALIDATION_FRACTION, self.split_seed)
        return UserGroups(train[kept], test, train[held_out])

    @property
    def implicit(self) -> bool:
        """Whether every row counts the same: a table of interactions."""
        return self.reader == "table" and not self.rating_column

    @property
    def hits_above(self) -> float:
        """Above which rating an item is a hit: `relevant_above`, unless all rows count the same and less than that."""
        if not self.implicit or self.duplicates == "sum" or self.relevant_above < self.implicit_rating:
            return self.relevant_above
        return min(0.0, self.implicit_rating - 1)

    @property
    def _what_counts(self) -> Duplicates:
        """What counts of several rows of a pair; of interactions, each says the same."""
        return "last" if self.implicit and self.duplicates == "error" else self.duplicates

    @property
    def for_use(self) -> bool:
        """Whether everybody is a training user, so that nobody is left to test."""
        return self.fold is None and self.test_fraction == 0

    @property
    def described_split(self) -> dict[str, Any]:
        """What decides who tests, for the files of a run."""
        share = {"test_fraction": self.test_fraction} if self.fold is None else {"fold": self.fold, "folds": self.folds}
        hidden = {"hidden_share": self.hidden_share, "hidden_users": self.hidden_users} if self.hidden_share else {}
        held_out = {"validation": self.validation, "selection": self.selection}
        return {"split_seed": self.split_seed, **share, **held_out, **hidden}

    def scaled(self, data: RatingData, train_users: np.ndarray) -> RatingData:
        """Returns the ratings with the scale that training users tell, where the settings and the data tell none.

        Args:
            data: What was loaded with these settings.
            train_users: [n] indices, ascending.
        """
        told = data.synthetic or self.module is not None or None not in (self.rating_min, self.rating_max)
        if told or self.scale_users == "all":
            return data
        scaled, outside = scaled_by_users(data, train_users, self.rating_min, self.rating_max)
        if outside:
            notice(
                f"{outside:,} ratings of other users are outside the scale of training users, {scaled.rating_min:g} to "
                f"{scaled.rating_max:g}, and count as its ends: data.rating_min and data.rating_max give the true one"
            )
        return scaled

    def _check_table(self) -> None:
        if not self.path and not self.files and not self.archive:
            do = "Set it to a file, a pattern or a list of these, as in data.path=ratings.csv."
            raise bad_setting("path", "is not set", do)
        self.check_named_columns("user_column", "item_column")
        if sorted(set(self.rating_steps)) != self.rating_steps:
            raise bad_setting("rating_steps", f"is {self.rating_steps}", "Give increasing numbers.")
        if self.rating_steps and (self.rating_of_event or self.rating_column is None):
            do = "Set data.rating_column to a column of numbers, or data.rating_steps=[]."
            raise bad_setting("rating_steps", "is set, but ratings are no numbers of a column", do)
        names = self.table_layout().names
        if len(set(names)) != len(names):
            raise bad_setting("user_column", f"one column has two roles: {', '.join(names)}", "Name different columns.")

    def table_layout(self) -> TableLayout:
        """Returns the columns of a generic table."""
        return TableLayout(
            user_column=self.user_column or "",
            item_column=self.item_column or "",
            rating_column=self.rating_column or None,
            timestamp_column=self.timestamp_column or None,
            text=self.text_format,
            time_format=self.time_format,
            implicit_rating=self.implicit_rating,
            rating_of_event=self.rating_of_event,
            missing_ratings=self.missing_ratings,
            missing_values=self.missing_values,
            rating_steps=self.rating_steps,
        )


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

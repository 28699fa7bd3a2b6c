"""Settings of a table of ratings: which files, what their columns mean, which users train and which test."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator

from harness.settings import PAIRS, Count, CountOrZero, Finite, Otherwise, ShareBelowOne
from sim.files.cache import notice
from sim.files.download import check_address, check_checksum
from sim.files.locate import NOT_AUTO, FilesConfig, bad_setting
from sim.files.rating_readers import READERS
from sim.files.rows import TableLayout, TimeFormat
from sim.files.unknown_names import IGNORE
from sim.tables.ratings import Duplicates, RatingData, scaled_by_users
from sim.tables.split import fold_users, split_users

SyntheticSize = Literal["tiny", "small", "movielens_1m", "movielens_10m", "netflix"]
OWN_READER = "module"  # `data.module` loads the ratings

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

"""The rating table that every reader and the generator produce and everything else uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse

from harness.errors import UserError

Duplicates = Literal["error", "first", "last", "mean", "max", "sum"]
MAX_DISTINCT_RATINGS = 65_535
HASHED = (
    *("user_ids", "item_ids", "indptr", "items", "codes", "rating_values", "timestamps"),
    *("rating_min", "rating_max"),
)
"""What tells a table from another (`sim.tables.table_hash`)."""
MAX_RATING = 1e6  # a larger magnitude means a damaged file, and its square may overflow in float32


@dataclass(frozen=True)
class RatingData:
    """Ratings of U users for I items, stored by user (host memory; arrays may be read-only memory maps).

    Attributes:
        name: Data set name, as in the configuration.
        user_ids: [U] original user ids, ascending (integers or strings).
        item_ids: [I] original ids of the items rated at least once, ascending.
        indptr: [U + 1] int64; the ratings of user u are rows indptr[u] to indptr[u + 1].
        items: [R] item index of each rating, strictly ascending within a user (uint16 where I allows, else int32).
        codes: [R] index into rating_values, never 0 (uint8 where their number allows, else uint16).
        rating_values: [V + 1] float64; entry 0 stands for "not rated" and is NaN, then the distinct ratings ascending.
        timestamps: [R] int64 seconds (any epoch), or None where the source has none.
        rating_min: Smallest rating that the scale allows.
        rating_max: Largest rating that the scale allows.
        checksum: "sha256:..." of the source files in a fixed order, or of the generator's settings.
        source: Where the ratings came from, for messages (a path or "generated").
        synthetic: Whether the ratings are generated.
        source_rows: [R] row of each rating in the source, which breaks ties in time; None unless requested.
        num_repeats: How many rows of the source repeat a user and an item; `Duplicates` says which of them count.
        value_places: Where each distinct rating first stands in the source, such as "line 7"; empty if unknown.
        left_out: How many rows of the source each setting left out, by its key (`data.missing_values`).
        missing_ratings: Ratings that were left out because they mean "not rated".
        missing_values: Texts that mean that there is no value, whose rows were left out.
        table_hash: See `sim.tables.table_hash`; `sim.datasets.ratings` fills it in.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    indptr: np.ndarray
    items: np.ndarray
    codes: np.ndarray
    rating_values: np.ndarray
    timestamps: np.ndarray | None
    rating_min: float
    rating_max: float
    checksum: str
    source: str
    synthetic: bool
    source_rows: np.ndarray | None = None
    num_repeats: int = 0
    value_places: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    missing_ratings: list[float] = dataclasses.field(default_factory=list)
    missing_values: list[str] = dataclasses.field(default_factory=list)
    table_hash: str = ""

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    @property
    def num_ratings(self) -> int:
        """R."""
        return len(self.items)

    def matrix(self, values: np.ndarray, users: np.ndarray | None = None) -> scipy.sparse.csr_array:
        """Returns the sparse matrix whose entry for a rating with code k is `values[k]` (float32).

        Args:
            values: [V + 1] value of each rating code; `rating_values` itself gives the rating matrix. Values of zero
                stay stored, so that "rated" and "not rated" remain distinguishable.
            users: [n] user indices in ascending order to keep as rows; None keeps all U.

        Returns:
            [n, I] (or [U, I]) in CSR format.
        """
        lengths = np.diff(self.indptr)
        codes, items, indptr = self.codes, self.items, self.indptr
        if users is not None:
            kept = np.zeros(self.num_users, bool)
            kept[users] = True
            rows = np.repeat(kept, lengths)
            codes, items = codes[rows], items[rows]
            indptr = np.concatenate([[0], np.cumsum(lengths[users])])
        # With 32-bit offsets SciPy keeps all index arrays 32-bit, also in derived matrices.
        indptr = indptr.astype(np.int32) if len(codes) < 2**31 else indptr
        data = np.asarray(values, np.float32)[codes]
        return scipy.sparse.csr_array((data, items.astype(np.int32), indptr), (len(indptr) - 1, self.num_items))

    @property
    def shape(self) -> tuple[int, int]:
        """(U, I)."""
        return self.num_users, self.num_items

    def rows_by_time(self) -> np.ndarray:
        """Returns the rows [R] user by user, each user's in order of time; ties keep the order of the source.

        Without `source_rows`, ties keep the order of the items.

        Raises:
            UserError: The ratings have no timestamps.
        """
        if self.timestamps is None:
            raise UserError(
                f"{self.name} has no timestamps, so its ratings have no order",
                where=self.source,
                do="Name the column that holds them with data.timestamp_column, or choose a data set that has them.",
            )
        users = np.repeat(np.arange(self.num_users), np.diff(self.indptr))
        ties = () if self.source_rows is None else (self.source_rows,)
        return np.lexsort((*ties, self.timestamps, users))


def build_rating_data(
    *,
    name: str,
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    timestamps: np.ndarray | None,
    rating_min: float | None,
    rating_max: float | None,
    checksum: str,
    source: str,
    synthetic: bool,
    keep_source_rows: bool = False,
    duplicates: Duplicates = "error",
    lines: np.ndarray | None = None,
    unit: str = "line",
    files: Sequence[tuple[int, str]] = (),
    left_out: dict[str, int] | None = None,
    missing_ratings: Sequence[float] = (),
    missing_values: Sequence[str] = (),
) -> RatingData:
    """Re-maps ids to 0..n-1, sorts by user and item, and checks the ratings.

    Args:
        name: Data set name.
        users: [R] original user ids.
        items: [R] original item ids.
        ratings: [R] ratings (any float or integer type).
        timestamps: [R] seconds, or None.
        rating_min: Smallest allowed rating; None takes the smallest seen.
        rating_max: Largest allowed rating; None takes the largest seen.
        checksum: Checksum of the source.
        source: Where the ratings came from, for messages.
        synthetic: Whether the ratings are generated.
        keep_source_rows: Whether to keep the order of these rows (`RatingData.source_rows`).
        duplicates: What becomes of several ratings of a user for an item: an error, the first or last one (by time,
            then in the file), or their mean, maximum or sum.
        lines: [R] line (or row, as `unit` says) of each rating in the source, for messages.
        unit: What `lines` counts.
        files: Index of the first rating of each file and the file's name, if there are several.
        left_out: See RatingData.
        missing_ratings: See RatingData.
        missing_values: See RatingData.

    Raises:
        UserError: There are no ratings; a rating is not finite or outside the scale; a user rates an item twice;
            or there are too many distinct rating values.
    """
    if len(users) == 0:
        raise UserError("holds no ratings", where=source, do="Check that this is the right, complete file.")
    # Ids as indices; several ratings of a pair become one where that is wanted.
    ratings = np.asarray(ratings, np.float64)
    user_ids, user_index = np.unique(users, return_inverse=True)
    item_ids, item_index = np.unique(items, return_inverse=True)
    rows = np.arange(len(ratings)) if keep_source_rows else None
    num_rows = len(ratings)
    places = None if lines is None else _Places(lines, unit, files)
    if duplicates != "error":
        pair = user_index.astype(np.int64) * len(item_ids) + item_index
        chosen, ratings = _combined(pair, ratings, timestamps, duplicates)
        user_index, item_index = user_index[chosen], item_index[chosen]
        timestamps, rows = (None if column is None else column[chosen] for column in (timestamps, rows))
        places = None if places is None or duplicates in ("mean", "sum", "max") else places.of(chosen)

    # The scale.
    low = float(np.min(ratings)) if rating_min is None else float(rating_min)
    high = float(np.max(ratings)) if rating_max is None else float(rating_max)
    bad = ~((ratings >= low) & (ratings <= high) & (np.abs(ratings) <= MAX_RATING))
    if bad.any():
        row = int(np.argmax(bad))
        user, item = user_ids[user_index[row]], item_ids[item_index[row]]
        place = "" if places is None else f"{places.at(row)}: "
        raise UserError(
            f"{place}rating {ratings[row]:g} of user {user} for item {item} is outside the scale "
            f"{max(low, -MAX_RATING):g} to {min(high, MAX_RATING):g} ({int(bad.sum()):,} such ratings)",
            where=source,
            do=f"Correct the file; if {ratings[row]:g} means 'not rated', leave it out by "
            f"{missing_ratings_setting(missing_ratings, [float(ratings[row])])}; else set data.rating_min and "
            "data.rating_max to the true scale.",
        )
    distinct, code = np.unique(ratings, return_inverse=True)
    if len(distinct) > MAX_DISTINCT_RATINGS:
        raise UserError(
            f"has {len(distinct):,} distinct rating values; at most {MAX_DISTINCT_RATINGS:,} are supported",
            where=source,
            do="Round the ratings, for instance to two decimals.",
        )

    # Where each distinct rating first stands.
    first_row = np.full(len(distinct), len(ratings))
    np.minimum.at(first_row, code, np.arange(len(ratings)))

    # Sort by user and item; a pair may occur only once.
    key = user_index.astype(np.int64) * len(item_ids) + item_index
    order = np.argsort(key, kind="stable")
    key = key[order]
    repeated = key[1:] == key[:-1]
    if repeated.any():
        first = int(np.argmax(repeated))
        user, item = divmod(int(key[first]), len(item_ids))
        line = "" if places is None else f", first on {places.at(int(order[first + 1]))}"
        raise UserError(
            f"user {user_ids[user]} rates item {item_ids[item]} more than once ({int(repeated.sum()):,} repeated "
            f"ratings{line})",
            where=source,
            do="Keep one rating per user and item, or say which one counts: data.duplicates=last (or first, mean, max, "
            "sum).",
        )

    # The table.
    return RatingData(
        name=name,
        user_ids=user_ids,
        item_ids=item_ids,
        indptr=np.append(0, np.cumsum(np.bincount(user_index))),
        items=item_index[order].astype(np.uint16 if len(item_ids) <= 2**16 else np.int32),
        codes=(code[order] + 1).astype(np.uint8 if len(distinct) < 2**8 else np.uint16),
        rating_values=np.concatenate([[np.nan], distinct]),
        timestamps=None if timestamps is None else np.asarray(timestamps, np.int64)[order],
        rating_min=low,
        rating_max=high,
        checksum=checksum,
        source=source,
        synthetic=synthetic,
        source_rows=None if rows is None else rows[order],
        num_repeats=num_rows - len(ratings),
        value_places=[] if places is None else [places.at(row) for row in first_row.tolist()],
        left_out=left_out or {},
        missing_ratings=list(missing_ratings),
        missing_values=list(missing_values),
    )


@dataclass(frozen=True)
class _Places:
    """Where ratings stand in their files.

    Attributes:
        lines: [R] line (or row) of each rating of the source.
        unit: "line" or "row".
        files: Index in the source of the first rating of each file, and the file's name; empty if there is one file.
        rows: [n] index in the source of each rating that is left; None: all are.
    """

    lines: np.ndarray
    unit: str
    files: Sequence[tuple[int, str]]
    rows: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> _Places:
        """Returns the places of some ratings."""
        return dataclasses.replace(self, rows=rows)

    def at(self, row: int) -> str:
        """Returns the place of a rating, as in "line 7 of may.csv"."""
        row = row if self.rows is None else int(self.rows[row])
        name = next((name for begin, name in reversed(self.files) if begin <= row), "")
        return f"{self.unit} {self.lines[row]:,}{f' of {name}' if name else ''}"


def missing_ratings_setting(given: Sequence[float], more: Sequence[float]) -> str:
    """Returns the setting that leaves out some ratings, beside those that are left out already."""
    return f"data.missing_ratings=[{','.join(f'{value:g}' for value in (*given, *more))}]"


def scaled_by_users(
    data: RatingData, users: np.ndarray, rating_min: float | None, rating_max: float | None
) -> tuple[RatingData, int]:
    """Returns the table with a scale that only some users tell, and how many ratings of others are outside it.

    These count as the end of the scale that they are beyond, so that rewards stay in [-1, 1].

    Args:
        data: A table.
        users: [n] indices, ascending.
        rating_min: Smallest rating of the scale; None takes the smallest of these users.
        rating_max: Largest rating of the scale; None takes the largest of these users.
    """
    known = np.zeros(data.num_users, bool)
    known[users] = True
    numbers = np.bincount(data.codes, minlength=len(data.rating_values))
    of_users = np.bincount(data.codes[np.repeat(known, np.diff(data.indptr))], minlength=len(data.rating_values))
    values = np.asarray(data.rating_values)
    seen = values[of_users > 0]
    low = float(seen.min()) if rating_min is None else rating_min
    high = float(seen.max()) if rating_max is None else rating_max
    outside = int(numbers[(values < low) | (values > high)].sum())
    values = np.clip(values, low, high) if outside else data.rating_values
    return dataclasses.replace(data, rating_min=low, rating_max=high, rating_values=values), outside


def hide_ratings(data: RatingData, users: np.ndarray, share: float, seed: int) -> RatingData:
    """Returns the table without a share of some users' ratings, drawn at random: they are then not rated.

    Users and items stay, and every user keeps a rating. What others rate does not change what is drawn for a user.

    Args:
        data: A table.
        users: [n] indices.
        share: Of each user's ratings, rounded down.
        seed: Of the draw.
    """
    kept = np.ones(data.num_ratings, bool)
    for user in users.tolist():
        begin, end = int(data.indptr[user]), int(data.indptr[user + 1])
        number = min(int(share * (end - begin)), end - begin - 1)
        kept[begin + np.random.default_rng([seed, user]).permutation(end - begin)[:number]] = False
    columns = {name: getattr(data, name) for name in ("items", "codes", "timestamps", "source_rows")}
    taken: dict[str, Any] = {name: None if column is None else column[kept] for name, column in columns.items()}
    indptr = np.append(0, np.cumsum(kept, dtype=np.int64))[data.indptr]
    return dataclasses.replace(data, **taken, indptr=indptr)


def _combined(
    pair: np.ndarray, ratings: np.ndarray, timestamps: np.ndarray | None, duplicates: Duplicates
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row [P] that stands for each pair of user and item, and its rating [P]."""
    by_time = () if timestamps is None else (timestamps,)
    order = np.lexsort((*by_time, pair))  # stable: rows with equal times keep their order
    begins = np.flatnonzero(np.diff(pair[order], prepend=-1))
    if duplicates == "first":
        chosen = order[begins]
        return chosen, ratings[chosen]
    chosen = order[np.append(begins[1:], len(order)) - 1]
    if duplicates == "last":
        return chosen, ratings[chosen]
    if duplicates == "max":
        return chosen, np.maximum.reduceat(ratings[order], begins)
    total = np.add.reduceat(ratings[order], begins)
    return chosen, total if duplicates == "sum" else total / np.diff(np.append(begins, len(order)))

"""Ratings that stand apart from the others: 99 or -1 for "not rated", or a mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.tables.ratings import RatingData, missing_ratings_setting

_FEWEST_VALUES = 4  # of fewer, none stands apart
_MOST_APART = 3
_WIDE_BELOW, _WIDE = 1.9, 4.0


@dataclass(frozen=True)
class Apart:
    """Ratings at one end of a scale.

    Attributes:
        values: The ratings, ascending.
        share: Of all ratings.
        place: Where the first of them stands in the source, such as "line 7"; empty if unknown.
        rest: The lowest and the highest of the other ratings.
    """

    values: tuple[float, ...]
    share: float
    place: str
    rest: tuple[float, float]

    @property
    def named(self) -> str:
        """The ratings, for messages."""
        return " and ".join(f"{value:g}" for value in self.values)

    def describe(self) -> str:
        """Says which ratings stand apart, how many there are, and where."""
        first = f", first on {self.place}" if self.place else ""
        some = f"({self.share:.1%} of all{first})"
        if len(self.values) == 1:
            return f"the rating {self.named} {some} stands apart from the others"
        return f"the ratings {self.named} {some} stand apart from the others"

    def advise(self, setting: str) -> str:
        """Says what to do about them, with the setting that leaves them out."""
        them, mean = ("it", "it means") if len(self.values) == 1 else ("them", "they mean")
        return f"if {mean} 'not rated', leave {them} out by {setting}"


def ratings_apart(values: np.ndarray, counts: np.ndarray, places: Sequence[str] = ()) -> list[Apart]:
    """Returns which ratings stand apart from the others, or are none on a scale of stars.

    Args:
        values: [V] ratings, ascending.
        counts: [V] how often each occurs.
        places: Where each first stands in the source, or empty.
    """
    values, first = np.unique(values, return_index=True)
    counts = np.add.reduceat(counts, first) if len(first) else counts
    if len(values) < _FEWEST_VALUES:
        return []
    gaps = np.diff(values)
    usual = float(np.median(gaps))
    # One value. Below a scale, any gap is odd; above it, only a large one: 1, 2, 3, 5 may be weights of events.
    inner = 0.1 * (values[-2] - values[1])
    below = int(gaps[0] >= _WIDE_BELOW * usual and gaps[0] >= inner)
    above = int(gaps[-1] >= _WIDE * usual and gaps[-1] >= inner)
    # Several, such as 98 for "not seen" and 99 for "not rated": behind a gap that is as wide as the rest.
    for number in range(2, min(_MOST_APART, (len(values) - 1) // 2) + 1):
        if not below and _is_wide(gaps[number - 1], usual, values[number:], values[:number]):
            below = number
        if not above and _is_wide(gaps[-number], usual, values[:-number], values[-number:]):
            above = number
    # Values that mean "not rated" in well-known files.
    if values[0] == -1 and values[1] >= 0:
        below = 1
    if values[0] == 0 and usual >= 1 and counts[0] > counts.sum() / 3 and not above:
        below = 1
    rest = float(values[below]), float(values[len(values) - above - 1])
    ends = (slice(0, below), slice(len(values) - above, len(values)))
    return [
        Apart(
            tuple(values[end].tolist()),
            float(counts[end].sum() / counts.sum()),
            places[first[end.start]] if len(places) else "",
            rest,
        )
        for end in ends
        if end.start < end.stop
    ]


def _is_wide(gap: float, usual: float, rest: np.ndarray, beyond: np.ndarray) -> bool:
    """Returns whether a gap parts some values from the rest of a scale."""
    return bool(gap >= _WIDE * usual and gap >= np.ptp(rest) and gap >= _WIDE * np.ptp(beyond))


def apart_in(data: RatingData) -> list[Apart]:
    """Returns which ratings of a table stand apart."""
    counts = np.bincount(data.codes, minlength=len(data.rating_values))[1:]
    return ratings_apart(np.asarray(data.rating_values[1:]), counts, data.value_places)


class SeenRatings:
    """Distinct ratings that arrive part by part, with their numbers and first places."""

    def __init__(self) -> None:
        """Begins without any."""
        self._seen: dict[float, tuple[int, str]] = {}

    def add(self, ratings: np.ndarray, place: Callable[[int], str]) -> None:
        """Counts some ratings; `place` names where a row of them stands."""
        values, first, counts = np.unique(ratings, return_index=True, return_counts=True)
        for value, row, count in zip(values.tolist(), first.tolist(), counts.tolist(), strict=True):
            before, where = self._seen.get(value) or (0, place(row))
            self._seen[value] = before + count, where

    def apart(self) -> list[Apart]:
        """Returns which of them stand apart."""
        values = sorted(self._seen)
        counts, places = zip(*(self._seen[value] for value in values), strict=True) if values else ((), ())
        return ratings_apart(np.array(values), np.array(counts), places)


def setting_without(data: RatingData, apart: Sequence[Apart]) -> str:
    """Returns the setting that leaves these ratings out, beside those that a table was made without."""
    return missing_ratings_setting(data.missing_ratings, [value for one in apart for value in one.values])

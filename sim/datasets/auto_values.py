"""What the values of columns tell that their names do not, for `sim.datasets.auto`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.datasets.column_names import ANSWERS, NUMBERS_OF_OTHER_THINGS, plain
from sim.files.sniff import Head, is_number
from sim.tables.placeholders import stand_for_nothing

if TYPE_CHECKING:
    import polars as pl

_MOST_EVENTS = 30
_MOST_PACKED = 0.9
_FEWEST_KNOWN = 0.5
_FEWEST_STARS, _MOST_STARS, _MOST_OF_A_SCALE = 3, 21, 10
_ITEM_SEPARATORS, _ANSWER_SEPARATORS = (" ", ",", ";", "|"), ("-", ":", "_")


def answers_in(head: Head, column: str) -> dict[str, str] | None:
    """Returns what the events of a column mean; None if it does not seem to name events."""
    values = texts_of(head, column).unique(maintain_order=True).to_list()
    known = {value: ANSWERS[plain(value)] for value in values if plain(value) in ANSWERS}
    if len(values) > _MOST_EVENTS or not set(known.values()) & {"click", "order"}:
        return None
    return {value: known.get(value, "ignore") for value in values}


def column_of_events(head: Head, taken: Collection[str]) -> str | None:
    """Returns the column, whatever its name, of which most rows hold a word for an event."""
    for name in head.rows.frame.columns:
        if name in taken or answers_in(head, name) is None:
            continue
        texts = texts_of(head, name)
        words = [text for text in texts.unique() if plain(text) in ANSWERS and not text.strip().isdigit()]
        if _share(texts.is_in(words)) >= _FEWEST_KNOWN:
            return name
    return None


def columns_of_ratings(head: Head, taken: Collection[str]) -> list[str]:
    """Returns the columns, whatever their names, that hold a few numbers from 0 to 10, as ratings are."""
    found = []
    for name in head.rows.frame.columns:
        if name in taken or plain(name) in NUMBERS_OF_OTHER_THINGS or plain(name).endswith("id"):
            continue
        values = texts_of(head, name).unique().to_list()
        if _FEWEST_STARS <= len(values) <= _MOST_STARS and all(is_number(text) for text in values):
            found += [name] if all(0 <= float(text) <= _MOST_OF_A_SCALE for text in values) else []
    return found


@dataclass(frozen=True)
class Packed:
    """A column that packs several items with their answers into one field, as in `N1-0 N2-1`."""

    column: str
    item_separator: str
    answer_separator: str


def packed_items(head: Head, taken: Collection[str]) -> Packed | None:
    """Returns the column of packed items, if there is one."""
    for name in head.rows.frame.columns:
        if name in taken:
            continue
        texts = texts_of(head, name)
        texts = texts.filter(texts != "")
        for between in _ITEM_SEPARATORS:
            several = texts.str.contains(between, literal=True)
            for before in _ANSWER_SEPARATORS if several.any() else ():
                item = rf"[^{re.escape(between)}]+{re.escape(before)}[01]"
                if _share(texts.str.contains(rf"^{item}(?:{re.escape(between)}{item})*$")) >= _MOST_PACKED:
                    return Packed(name, between, before)
    return None


def placeholders_in(head: Head, column: str) -> dict[str, int]:
    """Returns the values of a column that mean that there is none, and how often they occur."""
    texts = texts_of(head, column)
    return dict(texts.filter(stand_for_nothing(texts)).value_counts(sort=True).iter_rows())


def _share(which: pl.Series) -> float:
    return int(which.sum()) / max(1, len(which))


def thresholds(ratings: np.ndarray) -> tuple[float | None, float, str]:
    """Returns the rating that seems to mean "not rated" (or None), above what an item is relevant, and a remark."""
    values, counts = np.unique(ratings, return_counts=True)
    missing = None
    # Marks of missing ratings stand apart from a scale: -1 below it, 99 above, 0 where most of the rows have it.
    if len(values) > 2:
        if values[-1] == 99 and values[-2] <= 20:
            missing = 99.0
        elif values[0] == -1 and values[1] >= 0:
            missing = -1.0
        elif values[0] == 0 and values[1] >= 1 and counts[0] > 0.2 * counts.sum():
            missing = 0.0
    scale = values[values != missing] if missing is not None else values
    low, high = float(scale[0]), float(scale[-1])
    of_usual_scale = 3.0 if 2 < high <= 5 else 6.0 if 5 < high <= 10 else None
    above = of_usual_scale if low >= 0 and of_usual_scale else low + 0.5 * (high - low)
    share = float((ratings[ratings != missing] > above).mean())
    remark = f"Ratings from {low:g} to {high:g}; {share:.0%} of those looked at are above {above:g} and count as hits."
    if low < 0:
        remark += " They go below 0: training also needs env.reward_scale=symmetric."
    if missing is not None:
        remark += f' {missing:g} seems to mean "not rated".'
    return missing, above, remark


def texts_of(head: Head, column: str) -> pl.Series:
    """Returns a column as texts, empty where it holds something else."""
    import polars as pl

    values = head.rows.frame[column]
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Object, pl.Duration):
        return pl.repeat("", len(values), dtype=pl.String, eager=True)
    return head.rows.texts(column)

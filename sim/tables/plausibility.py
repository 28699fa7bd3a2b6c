"""What about a table is so unlikely that it was probably read otherwise than it was meant."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

import numpy as np

from sim.tables.events import CLICK, EventLog
from sim.tables.placeholders import folded, stand_for_nothing
from sim.tables.ratings import RatingData
from sim.tables.summary import above_the_middle

LOWEST_SHARE, HIGHEST_SHARE = 0.05, 0.95
"""Shares of relevant ratings and of clicks outside of these are named."""
MOST_OF_ONE_USER = 0.05
_FEWEST_ROWS = 200  # of fewer, shares say little
_FIRST_SECOND = int(datetime.datetime(1990, 1, 1, tzinfo=datetime.UTC).timestamp())
_DAY = 86_400


def rating_warnings(data: RatingData, relevant_above: float, positive: np.ndarray | None = None) -> list[str]:
    """Returns what is unlikely about ratings, a sentence each.

    Args:
        data: The ratings.
        relevant_above: Ratings above it count as hits.
        positive: [V + 1] bool, which rating codes have a positive reward; None: `above_the_middle`.
    """
    counts = np.bincount(data.codes, minlength=len(data.rating_values))[1:]
    values = np.asarray(data.rating_values[1:])
    share = float(counts[values > relevant_above].sum() / counts.sum())
    warnings = [
        *_id_warnings("user", data.user_ids),
        *_id_warnings("item", data.item_ids),
        *_owner_warning("ratings", data.user_ids, np.diff(data.indptr)),
        *_value_warnings(values, counts, data.value_places),
        *([] if data.timestamps is None else _time_warnings(data.timestamps)),
    ]
    if data.num_ratings >= _FEWEST_ROWS and not LOWEST_SHARE <= share <= HIGHEST_SHARE:
        warnings.append(
            f"{share:.1%} of the ratings are above data.relevant_above={relevant_above:g} (the scale is "
            f"{data.rating_min:g} to {data.rating_max:g}): set it so that a hit means something"
        )
    positive = above_the_middle(data) if positive is None else positive
    share = float(counts[positive[1:]].sum() / counts.sum())
    if data.num_ratings >= _FEWEST_ROWS and len(values) > 1 and not LOWEST_SHARE <= share <= HIGHEST_SHARE:
        warnings.append(
            f"{share:.1%} of the ratings have a positive reward (the scale is {data.rating_min:g} to "
            f"{data.rating_max:g}): set data.rating_min and data.rating_max to its ends, or another env.reward_scale"
        )
    return warnings


def log_warnings(log: EventLog) -> list[str]:
    """Returns what was done to a log as it was read, and what is unlikely about it, a sentence each."""
    # What was done to it, and values that look wrong.
    starts = log.session_starts()
    lengths = np.diff(starts)
    sessions_of_user = np.bincount(log.user[starts[:-1]], minlength=log.num_users)
    share = float((log.feedback >= CLICK).mean())
    warnings = [
        *log.notes,
        *_id_warnings("user", log.user_ids),
        *_id_warnings("item", log.item_ids),
        *_owner_warning("sessions", log.user_ids, sessions_of_user),
        *_time_warnings(log.time),
    ]
    if log.cut_sessions:
        warnings.append(
            f"{log.cut_sessions:,} sessions went on after the split in time: they are cut there, and what came after "
            "belongs to the test part"
        )
    # Shares and lengths, which a few rows cannot tell.
    if log.num_events < _FEWEST_ROWS:
        return warnings
    if np.median(lengths) < 2:
        warnings.append(
            "half of the sessions have a single event: check data.session_column, data.session_gap and data.time_format"
        )
    if share > HIGHEST_SHARE and not log.synthetic_skips:
        warnings.append(
            f"{share:.1%} of the events are clicks or orders: check data.feedback_of_event; skips are sampled only for "
            "logs that hold none"
        )
    if share < LOWEST_SHARE:
        warnings.append(f"{share:.1%} of the events are clicks or orders: check data.feedback_of_event")
    return warnings


def _id_warnings(what: str, ids: np.ndarray) -> list[str]:
    """Names ids that stand for a missing value, and ids that differ only by blanks, case or leading zeros."""
    if ids.dtype.kind != "U":
        return [_placeholder_warning(what, -1)] if (ids == -1).any() else []
    import polars as pl

    texts = pl.Series(ids)
    plain = texts.str.contains(r"^[\x00-\x7f]*$")
    others = pl.Series([folded(text) for text in texts.filter(~plain)], dtype=pl.String)
    keys = texts.str.strip_chars().str.to_lowercase().str.strip_chars_start("0").scatter((~plain).arg_true(), others)
    warnings = [_placeholder_warning(what, texts[row]) for row in stand_for_nothing(texts).arg_true()]
    if alike := len(keys) - keys.n_unique():
        second = int((~keys.is_first_distinct()).arg_max() or 0)
        first = int((keys == keys[second]).arg_max() or 0)
        warnings.append(
            f"{alike:,} {what} ids differ from others only by blanks, case or leading zeros (or look the same), "
            f"such as {texts[first]!r} and {texts[second]!r}"
        )
    return warnings


def _placeholder_warning(what: str, name: str | int) -> str:
    from harness.commands.command_words import override_value

    leave_out = f"data.missing_values={override_value([str(name)])}"
    return (
        f"there is a {what} {name!r}, which often means that the {what} is unknown: {leave_out!r} leaves its rows out"
    )


def _owner_warning(what: str, user_ids: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Names a user who owns a large share of everything."""
    total, largest = int(numbers.sum()), int(np.argmax(numbers))
    if len(numbers) < 3 / MOST_OF_ONE_USER or total < _FEWEST_ROWS or numbers[largest] <= MOST_OF_ONE_USER * total:
        return []
    return [
        f"user {user_ids[largest]!s} owns {numbers[largest] / total:.1%} of the {what}: a crawler, or a placeholder "
        "for unknown users"
    ]


def _value_warnings(values: np.ndarray, counts: np.ndarray, places: Sequence[str]) -> list[str]:
    """Names an extreme rating that stands apart from the others, or that a scale of stars does not have.

    Args:
        values: [V] distinct ratings, ascending.
        counts: [V] how often each occurs.
        places: Where each first stands in the file, or empty.
    """
    if len(values) < 4:
        return []
    gaps = np.diff(values)
    usual = float(np.median(gaps))
    lowest, total = values[0], counts.sum()
    # Below a scale, any gap is odd; above it, only a large one: 1, 2, 3, 5 may be weights of events.
    ends = ((0, gaps[0], 1.9), (-1, gaps[-1], 4.0))
    apart = [end for end, gap, least in ends if gap >= least * usual and gap >= 0.1 * (values[-2] - values[1])]
    if lowest == -1 and values[1] >= 0:
        apart = [0]
    if lowest == 0 and usual >= 1 and counts[0] > total / 3 and not apart:
        apart = [0]
    return [
        f"the rating {values[end]:g} ({counts[end] / total:.1%} of all{f', first on {places[end]}' if places else ''}) "
        "stands apart from the others: if it means 'not rated', leave it out by "
        f"data.missing_ratings=[{values[end]:g}]"
        for end in apart
    ]


def _time_warnings(times: Sequence[int] | np.ndarray) -> list[str]:
    """Names times before 1990 and in the future."""
    first, last = int(np.min(times)), int(np.max(times))
    if first < _FIRST_SECOND:
        return [f"times begin in {_date(first)}, before 1990: check data.time_format"]
    return [f"times go on to {_date(last)}, in the future: check data.time_format"] if last > time.time() + _DAY else []


def _date(second: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(second, datetime.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return f"second {second:,} since 1970"

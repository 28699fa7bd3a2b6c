"""What about a table is so unlikely that it was probably read otherwise than it was meant."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

import numpy as np

from sim.tables.events import CLICK, EventLog
from sim.tables.placeholders import AS_FLOAT, folded, missing_values_setting, stand_for_nothing
from sim.tables.ratings import RatingData
from sim.tables.ratings_apart import apart_in, setting_without
from sim.tables.summary import above_the_middle

LOWEST_SHARE, HIGHEST_SHARE = 0.05, 0.95
"""Shares of relevant ratings and of clicks outside of these are named."""
MOST_OF_ONE_USER = 0.05
_TIMES_AN_EQUAL, _MOST_OF_ANYBODY = 3.0, 0.9
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
        *_id_warnings(data),
        *_owner_warning("ratings", data.user_ids, np.diff(data.indptr)),
        *_apart_warnings(data),
        *([] if data.timestamps is None else _time_warnings(data.timestamps)),
    ]
    if data.num_ratings >= _FEWEST_ROWS and len(values) > 1 and not LOWEST_SHARE <= share <= HIGHEST_SHARE:
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
        *_id_warnings(log),
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


def _id_warnings(data: RatingData | EventLog) -> list[str]:
    """Names ids that stand for a missing value, and ids that differ only by how they are written."""
    ids_of = {"user": data.user_ids, "item": data.item_ids}
    nobody = {what: _placeholders(ids) for what, ids in ids_of.items()}
    # One setting for all of them: a second one would take the place of the first.
    leave_out = missing_values_setting(data.missing_values, [str(name) for names in nobody.values() for name in names])
    warnings = [
        f"there is {'an' if what == 'item' else 'a'} {what} {name!r}, which often means that the {what} is unknown: "
        f"{leave_out} leaves its rows out"
        for what, names in nobody.items()
        for name in names
    ]
    return warnings + [said for what, ids in ids_of.items() for said in _twins(what, ids)]


def _placeholders(ids: np.ndarray) -> list[str | int]:
    """Returns the ids that stand for a missing value."""
    import polars as pl

    if ids.dtype.kind != "U":
        return [-1] if (ids == -1).any() else []
    texts = pl.Series(ids)
    return texts.filter(stand_for_nothing(texts)).to_list()


def _twins(what: str, ids: np.ndarray) -> list[str]:
    """Names ids that differ only by blanks, case or how a number is written."""
    import polars as pl

    if ids.dtype.kind != "U":
        return []
    texts = pl.Series(ids)
    plain = texts.str.contains(r"^[\x00-\x7f]*$")
    others = pl.Series([folded(text) for text in texts.filter(~plain)], dtype=pl.String)
    keys = texts.str.strip_chars().str.to_lowercase().str.strip_chars_start("+0").str.replace(AS_FLOAT, "$1")
    keys = keys.scatter((~plain).arg_true(), others)
    alike = len(keys) - keys.n_unique()
    if not alike:
        return []
    second = int((~keys.is_first_distinct()).arg_max() or 0)
    first = int((keys == keys[second]).arg_max() or 0)
    return [
        f"{alike:,} {what} ids differ from others only by blanks, case or leading zeros (or look or count the same), "
        f"such as {texts[first]!r} and {texts[second]!r}"
    ]


def _owner_warning(what: str, user_ids: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Names a user who owns a large share of everything.

    Of few users, everybody's share is large, and the most active one's still larger: to be named, it has to be three
    times an equal share, and three times the second largest.
    """
    total, largest = int(numbers.sum()), int(np.argmax(numbers))
    share = numbers[largest] / total
    of_equals = min(_TIMES_AN_EQUAL / len(numbers), _MOST_OF_ANYBODY)
    if total < _FEWEST_ROWS or share <= max(MOST_OF_ONE_USER, of_equals):
        return []
    second = np.partition(numbers, -2)[-2] if len(numbers) > 1 else numbers[largest]
    if of_equals > MOST_OF_ONE_USER and numbers[largest] <= _TIMES_AN_EQUAL * second:
        return []
    return [f"user {user_ids[largest]!s} owns {share:.1%} of the {what}: a crawler, or a placeholder for unknown users"]


def _apart_warnings(data: RatingData) -> list[str]:
    """Names extreme ratings that stand apart from the others."""
    apart = apart_in(data)
    setting = setting_without(data, apart)
    return [f"{one.describe()}: correct the file if that is wrong; {one.advise(setting)}" for one in apart]


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

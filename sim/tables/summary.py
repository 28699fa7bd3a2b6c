"""What was understood of a table, in a few lines: printed by `sim.data` and when training begins."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from sim.tables.events import FEEDBACK_NAMES, NUM_FEEDBACK, EventLog
from sim.tables.ratings import RatingData

_PAUSE = 1800.0  # seconds after which a user's ratings count as another session
_MOST_ROWS = 5_000_000  # so many rows suffice for medians and shares that need sorting


def rating_summary(data: RatingData, relevant_above: float, positive: np.ndarray | None = None) -> dict[str, Any]:
    """Returns what was understood of ratings, as JSON values.

    Args:
        data: The ratings.
        relevant_above: Ratings above it count as hits.
        positive: [V + 1] bool, which rating codes have a positive reward; None: `above_the_middle`.
    """
    counts = np.bincount(data.codes, minlength=len(data.rating_values))
    positive = above_the_middle(data) if positive is None else positive
    times = data.timestamps
    return {
        "users": data.num_users,
        "items": data.num_items,
        "ratings": data.num_ratings,
        "rating_scale": [data.rating_min, data.rating_max],
        "relevant_above": relevant_above,
        "share_relevant": float(counts[np.asarray(data.rating_values) > relevant_above].sum() / data.num_ratings),
        "share_positive": float(counts[positive].sum() / data.num_ratings),
        "median_ratings_per_user": float(np.median(np.diff(data.indptr))),
        "median_session": None if times is None else _median_session(data, times),
        "repeats": data.num_repeats,
        "left_out": data.left_out,
        "timestamps": None if times is None else [int(np.min(times)), int(np.max(times))],
    }


def above_the_middle(data: RatingData) -> np.ndarray:
    """Returns [V + 1] bool, the rating codes above the middle of the scale, which begins at 0 or below."""
    return np.asarray(data.rating_values) > (min(data.rating_min, 0.0) + data.rating_max) / 2


def log_summary(log: EventLog) -> dict[str, Any]:
    """Returns what was understood of a log, as JSON values; repeats are items that their user had seen in a session."""
    import polars as pl

    answers = np.bincount(log.feedback, minlength=NUM_FEEDBACK) / log.num_events
    # Of a large log, every n-th user.
    kept = log.user % max(1, -(-log.num_events // _MOST_ROWS)) == 0
    pairs = log.user[kept].astype(np.int64) * log.num_items + log.item[kept]
    return {
        "users": log.num_users,
        "items": log.num_items,
        "events": log.num_events,
        "sessions": log.num_sessions,
        "share_test": float(log.is_test.mean()),
        "shares": dict(zip(FEEDBACK_NAMES, answers.tolist(), strict=True)),
        "median_session": float(np.median(np.diff(log.session_starts()))),
        "left_out": log.left_out,
        "repeats": 1 - pl.Series(pairs).n_unique() / len(pairs) if len(pairs) else 0.0,
        "timestamps": [int(log.time.min()), int(log.time.max())],
    }


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns a summary of either kind as labels and texts."""
    session = summary["median_session"]
    if "ratings" in summary:
        within = "" if session is None else f", and {session:g} within a session (no pause of half an hour)"
        rows = [
            ("ratings", f"{summary['ratings']:,}, from {{:g}} to {{:g}}".format(*summary["rating_scale"])),
            ("relevant", f"{summary['share_relevant']:.1%} (above data.relevant_above={summary['relevant_above']:g})"),
            ("positive", f"{summary['share_positive']:.1%} (of the ratings have a reward above 0)"),
            ("a user's ratings", f"median {summary['median_ratings_per_user']:g}{within}"),
            ("repeats", _repeats(summary["repeats"])),
        ]
    else:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in summary["shares"].items())
        test = f"{summary['share_test']:.1%} of them for testing"
        rows = [
            ("events", f"{summary['events']:,}"),
            ("sessions", f"{summary['sessions']:,}, {test}; median {session:g} events"),
            ("answers", shares),
            ("repeats", f"{summary['repeats']:.1%} of the events show an item that an earlier session showed"),
        ]
    people = [("users", f"{summary['users']:,}"), ("items", f"{summary['items']:,}")]
    left_out = [("left out", _left_out(summary["left_out"]))] if summary["left_out"] else []
    return [*people, *rows, *left_out, ("time span", time_span(summary["timestamps"]))]


def _left_out(rows_by_setting: dict[str, int]) -> str:
    return ", ".join(
        f"{number:,} row{'' if number == 1 else 's'} by {setting}" for setting, number in rows_by_setting.items()
    )


def _repeats(number: int) -> str:
    if not number:
        return "none"
    return f"{number:,} rows repeat{'s' if number == 1 else ''} a user and item (data.duplicates says what counts)"


def aligned(rows: list[tuple[str, str]]) -> str:
    """Returns labels and texts in two columns, a line each."""
    width = max(18, 2 + max(len(label) for label, _ in rows))
    return "\n".join(f"{label:<{width}}{value}".rstrip() for label, value in rows)


def time_span(seconds: list[int] | None) -> str:
    """Returns the first and the last time (seconds since 1970) as dates."""
    if seconds is None:
        return "no timestamps"
    try:
        first, last = (datetime.datetime.fromtimestamp(second, datetime.UTC).date() for second in seconds)
    except (OverflowError, ValueError, OSError):  # milliseconds or another epoch
        return "{:,} to {:,} (not seconds since 1970)".format(*seconds)
    return f"{first} to {last}"


def _median_session(data: RatingData, times: np.ndarray) -> float:
    """Returns the median number of ratings that a user gave without a pause; of a large table, of its first users."""
    last = int(np.searchsorted(data.indptr, min(_MOST_ROWS, data.num_ratings)))
    users = np.repeat(np.arange(last), np.diff(data.indptr[: last + 1]))
    times = np.asarray(times[: len(users)])
    order = np.lexsort((times, users))
    begins = (np.diff(users[order], prepend=-1) != 0) | (np.diff(times[order], prepend=0) > _PAUSE)
    return float(np.median(np.diff(np.append(np.flatnonzero(begins), len(order)))))

"""Limits the length of sessions: a crawler's, or a day of a user whose sessions are not told apart."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from sim.tables.events import EventLog, select_events

LongSessions = Literal["split", "drop"]
_MOST_NAMED = 3


def limit_sessions(log: EventLog, longest: int, long_sessions: LongSessions) -> EventLog:
    """Returns the log without sessions of more than `longest` rows, and a note that names the longest of them.

    Whoever ranks a session looks at all that is left of it at every step: the cost grows with the square of its length.

    Args:
        log: A log, split if it is to be; the parts of a session stay in its part of the log.
        longest: Rows.
        long_sessions: "split" cuts a longer session into the fewest parts, of equal length; "drop" leaves it out.

    Raises:
        UserError: No sessions are left.
    """
    starts = log.session_starts()
    lengths = np.diff(starts)
    too_long = lengths > longest
    if not too_long.any():
        return log
    note = _note(log, starts, lengths, longest, long_sessions)
    if long_sessions == "drop":
        return dataclasses.replace(select_events(log, ~too_long[log.session]), notes=[*log.notes, note])
    parts = -(-lengths // longest)
    session = np.append(0, np.cumsum(parts)).astype(np.int32)[log.session]
    rows = np.flatnonzero(too_long[log.session])
    cut = log.session[rows]
    place = rows - starts[cut]
    session[rows] += (place * parts[cut] // lengths[cut]).astype(np.int32)
    is_test = np.repeat(log.is_test, parts)
    return dataclasses.replace(log, session=session, is_test=is_test, notes=[*log.notes, note])


def _note(log: EventLog, starts: np.ndarray, lengths: np.ndarray, longest: int, long_sessions: LongSessions) -> str:
    order = np.argsort(-lengths, kind="stable")[:_MOST_NAMED]
    named = [
        f"user {log.user_ids[log.user[starts[session]]]!s} ({lengths[session]:,})"
        for session in order
        if lengths[session] > longest
    ]
    number = int((lengths > longest).sum())
    more = f" and {number - len(named):,} more" if number > len(named) else ""
    done = f"cut into parts of at most {longest:,}" if long_sessions == "split" else "left out"
    were = "session of more than {} items was" if number == 1 else "sessions of more than {} items were"
    return (
        f"{number:,} {were.format(f'{longest:,}')} {done}: {', '.join(named)}{more}; data.max_session and "
        "data.long_sessions decide that, since the final test takes the square of a session's length"
    )

"""The order of events: by user, session and time, of some users at a time, so that sorting needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_ROWS_OF_BLOCK = 1 << 22


@dataclass(frozen=True)
class EventOrder:
    """The events of some users by user, session and time.

    Attributes:
        rows: [r] int32 their rows in the columns.
        begins: [r] bool, whether a session begins there.
        place: [r] int32 place of each among all events of its user.
    """

    rows: np.ndarray
    begins: np.ndarray
    place: np.ndarray


def order_of_events(
    rows: np.ndarray, user: np.ndarray, times: np.ndarray, sessions: np.ndarray | None, session_gap: float
) -> EventOrder:
    """Sorts the events of some users.

    Args:
        rows: [r] their rows in the log, ascending.
        user: [r] their users.
        times: [r] their times.
        sessions: [r] their sessions, or None.
        session_gap: See `build_event_log`.
    """
    # Places: the order of each user's events, whatever their sessions.
    by_time = np.lexsort((times, user))  # stable: rows with equal times keep their order
    place = np.empty(len(user), np.int32)
    first = np.flatnonzero(np.diff(user[by_time], prepend=-1))
    place[by_time] = np.arange(len(user)) - np.repeat(first, np.diff(np.append(first, len(user))))
    # Sort by user, session and time.
    if sessions is None:
        order = by_time
        user, times = user[order], times[order]
        begins = (np.diff(user, prepend=-1) != 0) | (np.diff(times, prepend=times[0]) > session_gap)
    else:
        distinct, group = np.unique(_sessions_for_all(sessions, user, times, session_gap), return_inverse=True)
        pair = user.astype(np.int64) * len(distinct) + group
        _, example, group = np.unique(pair, return_index=True, return_inverse=True)
        first_time = np.full(len(example), np.iinfo(np.int64).max)
        np.minimum.at(first_time, group, times)
        # Overlapping sessions of a user are kept apart, in the order of their start.
        rank = np.empty(len(example), np.int32)
        rank[np.lexsort((first_time, user[example]))] = np.arange(len(example))  # stable: then by their number
        ranks = rank[group]
        order = by_time[np.argsort(ranks[by_time], kind="stable")]
        begins = np.diff(ranks[order], prepend=-1) != 0
    return EventOrder(rows[order].astype(np.int32), begins, place[order])


def blocks_of_users(user: np.ndarray, num_users: int) -> Iterator[np.ndarray]:
    """Yields the rows, ascending, of users 0 to a, a + 1 to b, ..., so many that sorting them needs little memory."""
    ends = np.cumsum(np.bincount(user, minlength=num_users))
    block_of_user = (ends - 1) // _ROWS_OF_BLOCK
    block_of_user = (np.cumsum(np.diff(block_of_user, prepend=block_of_user[0]) != 0)).astype(np.int32)
    block = block_of_user[user]
    for number in range(int(block_of_user[-1]) + 1):
        yield np.flatnonzero(block == number)


def _sessions_for_all(sessions: np.ndarray, user: np.ndarray, times: np.ndarray, session_gap: float) -> np.ndarray:
    """Returns the session ids [R]; rows without one get those of sessions cut where their user pauses."""
    if sessions.dtype.kind not in "iu" or not (sessions < 0).any():
        return sessions
    rows = np.flatnonzero(sessions < 0)
    rows = rows[np.lexsort((times[rows], user[rows]))]
    begins = (np.diff(user[rows], prepend=-1) != 0) | (np.diff(times[rows], prepend=times[rows[0]]) > session_gap)
    numbered = np.asarray(sessions, np.int64).copy()
    numbered[rows] = max(int(sessions.max()), -1) + np.cumsum(begins)
    return numbered


def cut_sessions_at(
    user: np.ndarray, times: np.ndarray, session: np.ndarray, test_begin: int
) -> tuple[np.ndarray | slice, np.ndarray, int]:
    """Cuts sessions that begin before a time and go on after it.

    Args:
        user: [R], ascending.
        times: [R], ascending within a session.
        session: [R], ascending; sessions of a user in the order of their first time.
        test_begin: The time.

    Returns:
        A new order of the rows, in which this is true again, the sessions [R] in it, and the number of cuts.
    """
    begins = np.diff(session, prepend=-1) != 0
    cut = ~begins & (times >= test_begin) & (np.roll(times, 1) < test_begin)
    if not cut.any():
        return slice(None), session, 0
    begins |= cut
    session = np.cumsum(begins) - 1
    moved = np.lexsort((times[begins][session], user))  # stable: keeps sessions of equal beginnings apart
    return moved, np.cumsum(np.diff(session[moved], prepend=-1) != 0) - 1, int(cut.sum())

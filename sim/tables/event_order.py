"""The order of events: by user, session and time, of some users at a time, so that sorting needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ROWS_AT_A_TIME = 1 << 22
_SECONDS_PER_DAY = 86_400


@dataclass
class EventOrder:
    """The R events of a log by user, session and time.

    Attributes:
        rows: [R] int32 their rows in the columns.
        begins: [R] bool, whether a session begins there.
        place: [R] int32 place of each among all events of its user.
        ends_of_blocks: Where blocks of whole users end, the last one at R.
        first_times: [S] int64 time of each session's first event.
        in_long_sessions: How many events are in sessions of more than a day.
    """

    rows: np.ndarray
    begins: np.ndarray
    place: np.ndarray
    ends_of_blocks: list[int]
    first_times: np.ndarray
    in_long_sessions: int


def order_of_events(
    user: np.ndarray, times: np.ndarray, sessions: np.ndarray | None, session_gap: float, num_users: int
) -> EventOrder:
    """Sorts the events of a log; overlapping sessions of a user are kept apart, in the order of their start.

    Args:
        user: [R] 0 to U - 1.
        times: [R].
        sessions: [R] integers, below 0 where an event has none; or None.
        session_gap: Where an event has no session, a new one begins after so many seconds without an event.
        num_users: U.
    """
    all_rows, all_begins, place = (np.empty(len(user), kind) for kind in (np.int32, bool, np.int32))
    ends, first_times, in_long_sessions = [0], [], 0
    # Users are independent.
    for rows in _blocks_of_users(user, num_users):
        block = slice(ends[-1], ends[-1] + len(rows))
        ends.append(block.stop)
        of_rows = (user[rows], times[rows], None if sessions is None else sessions[rows])
        order, begins, place[block] = _order_of_some(*of_rows, session_gap)
        all_rows[block], all_begins[block] = rows[order], begins
        # When sessions begin, and how long they are.
        in_order, starts = of_rows[1][order], np.flatnonzero(begins)
        lengths = np.diff(starts, append=len(rows))
        first_times.append(in_order[starts])
        is_long = in_order[starts + lengths - 1] - first_times[-1] > _SECONDS_PER_DAY
        in_long_sessions += int(lengths[is_long].sum())
    return EventOrder(all_rows, all_begins, place, ends[1:], np.concatenate(first_times), in_long_sessions)


def _blocks_of_users(user: np.ndarray, num_users: int) -> Iterator[np.ndarray]:
    """Yields the rows, ascending, of users 0 to a, a + 1 to b, ..., so many that sorting them needs little memory."""
    ends = np.cumsum(np.bincount(user, minlength=num_users))
    block_of_user = (ends - 1) // ROWS_AT_A_TIME
    block_of_user = np.cumsum(np.diff(block_of_user, prepend=block_of_user[0]) != 0).astype(np.int32)
    block = block_of_user[user]
    for number in range(int(block_of_user[-1]) + 1):
        yield np.flatnonzero(block == number)


def _order_of_some(
    user: np.ndarray, times: np.ndarray, sessions: np.ndarray | None, session_gap: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the order [r] of some users' events, and whether a session begins and the place [r] in this order."""
    # Places: the order of each user's events, whatever their sessions.
    by_time = stable_order(user, times)  # rows with equal times keep their order
    of_user = user[by_time]
    first = np.flatnonzero(np.diff(of_user, prepend=-1))
    place = np.arange(len(user), dtype=np.int32)
    place -= np.repeat(first, np.diff(first, append=len(user))).astype(np.int32)
    if sessions is None:
        of_time = times[by_time]
        return (
            by_time,
            (np.diff(of_user, prepend=-1) != 0) | (np.diff(of_time, prepend=of_time[0]) > session_gap),
            place,
        )
    # Sort by user, session and time, then whole sessions by their start.
    session = _sessions_for_all(sessions, user, times, session_gap)[by_time]
    by_session = stable_order(of_user, session)
    of_user, session = of_user[by_session], session[by_session]
    changes = (of_user[1:] != of_user[:-1]) | (session[1:] != session[:-1])
    starts = np.append(0, np.flatnonzero(changes) + 1)
    moved, begins = _by_start(starts, of_user, times[by_time[by_session[starts]]])
    order = by_session[moved]
    return by_time[order], begins, place[order]


def _by_start(starts: np.ndarray, user: np.ndarray, first_times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order [r] of rows by user and start of their session, and whether a session begins there.

    Args:
        starts: [s] first row of each session, ascending.
        user: [r] the rows' users.
        first_times: [s] when the sessions begin; those that begin together keep their order.
    """
    order = stable_order(user[starts], first_times)
    lengths = np.diff(starts, append=len(user))[order]
    ends = np.cumsum(lengths)
    begins = np.zeros(len(user), bool)
    begins[ends - lengths] = True
    return np.arange(len(user)) + np.repeat(starts[order] - (ends - lengths), lengths), begins


def _sessions_for_all(sessions: np.ndarray, user: np.ndarray, times: np.ndarray, session_gap: float) -> np.ndarray:
    """Returns the session ids [r]; rows without one get those of sessions cut where their user pauses."""
    if not (sessions < 0).any():
        return sessions
    rows = np.flatnonzero(sessions < 0)
    rows = rows[stable_order(user[rows], times[rows])]
    begins = (np.diff(user[rows], prepend=-1) != 0) | (np.diff(times[rows], prepend=times[rows[0]]) > session_gap)
    numbered = np.asarray(sessions, np.int64).copy()
    numbered[rows] = max(int(sessions.max()), -1) + np.cumsum(begins)
    return numbered


def cut_sessions(order: EventOrder, user: np.ndarray, times: np.ndarray, second: int) -> tuple[int, int]:
    """Puts what happened from a second on behind all else; a session that goes on then becomes two.

    Both parts are by user, session and time, the sessions of a user in the order of their start.

    Args:
        order: The order of the events, which is changed.
        user: [R].
        times: [R].
        second: Where to cut.

    Returns:
        How many events happened before, and how many sessions were cut.
    """
    columns = (order.rows, order.begins, order.place)
    later_parts, num_cut, begin, end = [], 0, 0, 0
    # Earlier events move to the front, block by block; later ones wait.
    for stop in order.ends_of_blocks:
        later = times[order.rows[begin:stop]] >= second
        is_cut = later & ~order.begins[begin:stop]
        is_cut[1:] &= ~later[:-1]
        num_cut += int(is_cut.sum())
        order.begins[begin:stop] |= is_cut
        rows, begins, place = (column[begin:stop][later] for column in columns)
        if is_cut.any():  # the end of a session may begin after other sessions of its user
            starts = np.flatnonzero(begins)
            moved, begins = _by_start(starts, user[rows], times[rows[starts]])
            rows, place = rows[moved], place[moved]
        later_parts.append((rows, begins, place))
        earlier, begin = ~later, stop
        begin_earlier, end = end, end + int(earlier.sum())
        for column in columns:
            column[begin_earlier:end] = column[stop - len(earlier) : stop][earlier]
    # The later ones follow.
    num_before = end
    for part in later_parts:
        begin, end = end, end + len(part[0])
        for column, values in zip(columns, part, strict=True):
            column[begin:end] = values
    return num_before, num_cut


def blocks_of_sessions(begins: np.ndarray) -> Iterator[slice]:
    """Yields some rows at a time, of whole sessions.

    Args:
        begins: [R] bool, whether a session begins there.
    """
    end = 0
    while end < len(begins):
        begin, end = end, min(end + ROWS_AT_A_TIME, len(begins))
        while end < len(begins) and not begins[end]:
            end = min(end + (int(begins[end : end + ROWS_AT_A_TIME].argmax()) or ROWS_AT_A_TIME), len(begins))
        yield slice(begin, end)


def stable_order(*keys: np.ndarray) -> np.ndarray:
    """Returns [r] int64 the order of rows by integer keys [r], the first counting most; equal rows keep their order.

    It is `np.lexsort(keys[::-1])`, faster: a key and the number of its row are sorted as one integer.
    """
    order: np.ndarray | None = None
    bits = len(keys[0]).bit_length()
    for key in reversed(keys):
        values = np.asarray(key if order is None else key[order], np.int64)
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if (high - low).bit_length() + bits < 64:
            packed = values - low << bits
            packed |= np.arange(len(values))
            packed.sort()
            packed &= (1 << bits) - 1
        else:
            packed = np.argsort(values, kind="stable")
        order = packed if order is None else order[packed]
    return np.arange(0) if order is None else order

"""The table of a log of recommendations: which item was shown to whom and when, and the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from harness.errors import UserError

SKIP, CLICK, ORDER = 0, 1, 2
FeedbackName = Literal["skip", "click", "order"]
FEEDBACK_NAMES: tuple[FeedbackName, ...] = get_args(FeedbackName)
NUM_FEEDBACK = len(FEEDBACK_NAMES)

ShopName = Literal["seen", "blind", "reads_minds"]
SHOPS: tuple[ShopName, ...] = get_args(ShopName)
"""Shops that write generated logs, by what they know of a user: the direction of the clicked items, as the log shows
them; nothing; taste and curiosity, which no log shows (`sim.generators.shop`)."""
WorldName = Literal["trust", "drift"]
WORLDS: tuple[WorldName, ...] = get_args(WorldName)
"""Kinds of users of generated logs (`sim.generators.funnel`, `sim.generators.drift`)."""
_SECONDS_PER_DAY = 86_400
_MOST_IN_LONG_SESSIONS = 0.05
NEVER = -1
"""Place of an answer that was not given."""


@dataclass(frozen=True)
class EventLog:
    """Feedback on n shown items, sorted by part (training before test), user, session and time.

    A row is an item in a session, with its strongest answer; rows with equal times keep the order of the source. When
    the answer was given is told by places: the place of an event is its number, from 0, among all events of its user,
    in the order of time and then of the source.

    Attributes:
        name: Name of the data set.
        user: [n] int32 index into `user_ids`.
        session: [n] int32, numbered from 0 over the whole log in row order; a session belongs to one user.
        time: [n] int64 seconds since 1970 at which the item was first shown in the session.
        item: [n] int32 index into `item_ids`; an item occurs at most once in a session.
        feedback: [n] int8, the strongest in the session: 0 skip, 1 click, 2 order (an order implies a click).
        shown_at: [n] int32 place of the event at `time`.
        clicked_at: [n] int32 place of the session's first click (or order) of the item; -1 without one.
        ordered_at: [n] int32 place of its first order; -1 without one.
        is_test: [S] bool, which sessions are for testing; these come last.
        cut_sessions: How many sessions were cut in two because they went on after the split.
        user_ids: [U] original ids, ascending.
        item_ids: [I] original ids, ascending.
        checksum: Checksum of the source.
        source: Where the log came from.
        synthetic: Whether the log is generated.
        synthetic_skips: Whether skips were sampled from items without events of the user: the log has no impressions.
        probabilities: [n, 3] float32 true probabilities of skip, click and order of a generated log, or None.
        shown_probability: [n] float32 probabilities with which the items were shown (by a generated log's shop, or as
            the log says), or None.
        generator: Settings from which the generator can redraw its truth; None for a real log.
        order_proxy: What counts as an order in a log without orders, such as "is_like or is_follow"; empty if orders
            are real.
        feedback_proxy: Which ratings stand in for which answers, such as "skip below 4, click from 4"; empty if the
            answers are real.
        notes: What was done to the log as it was read, a sentence each.
        table_hash: See `sim.tables.table_hash`; empty until the table is complete.
    """

    name: str
    user: np.ndarray
    session: np.ndarray
    time: np.ndarray
    item: np.ndarray
    feedback: np.ndarray
    shown_at: np.ndarray
    clicked_at: np.ndarray
    ordered_at: np.ndarray
    is_test: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    checksum: str
    source: str
    synthetic: bool
    synthetic_skips: bool
    probabilities: np.ndarray | None = None
    shown_probability: np.ndarray | None = None
    generator: dict[str, Any] | None = None
    order_proxy: str = ""
    feedback_proxy: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    cut_sessions: int = 0
    table_hash: str = ""

    @property
    def num_events(self) -> int:
        """N."""
        return len(self.item)

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    @property
    def num_sessions(self) -> int:
        """S."""
        return int(self.session[-1]) + 1 if len(self.session) else 0

    def session_starts(self) -> np.ndarray:
        """Returns [S + 1] int64 the first row of each session, then n."""
        return np.append(np.flatnonzero(np.diff(self.session, prepend=-1)), self.num_events)

    def in_test_part(self) -> np.ndarray:
        """Returns [n] bool, which rows are for testing."""
        return self.is_test[self.session]


def build_event_log(
    *,
    name: str,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray,
    feedback: np.ndarray,
    sessions: np.ndarray | None,
    session_gap: float,
    checksum: str,
    source: str,
    synthetic: bool = False,
    synthetic_skips: bool = False,
    probabilities: np.ndarray | None = None,
    shown_probability: np.ndarray | None = None,
    order_proxy: str = "",
    feedback_proxy: str = "",
    first_test_second: Callable[[np.ndarray], int] | None = None,
) -> EventLog:
    """Builds the table from columns in any order.

    An item that occurs several times in a session becomes one row: its first time, its strongest feedback, and the
    places of its first click and order.

    A session that begins before the first second of the test part and goes on after it is cut there: its end becomes a
    session of the test part, so that no training row holds an item or answer of that time. `with_test_sessions` then
    sorts the parts.

    Args:
        name: Name of the data set.
        users: [R] user ids, integers or strings.
        items: [R] item ids, integers or strings.
        times: [R] integer seconds since 1970.
        feedback: [R] 0 skip, 1 click, 2 order.
        sessions: [R] session ids (the same id for two users means two sessions), where integers below 0 stand for
            none; rows without one, and all if None, are cut by `session_gap`.
        session_gap: Seconds without an event after which a new session begins.
        checksum: Checksum of the source.
        source: Where the columns came from.
        synthetic: See EventLog.
        synthetic_skips: See EventLog.
        probabilities: [R, 3] true probabilities, or None.
        shown_probability: [R] probabilities with which the items were shown, or None.
        order_proxy: See EventLog.
        feedback_proxy: See EventLog.
        first_test_second: From the times [S] at which sessions begin to the first second of the test part; None: all
            sessions are for training.

    Raises:
        UserError: There are no rows, or the columns differ in length.
    """
    if not len(users):
        raise UserError("holds no events", where=source, do="Provide a log with at least one event.")
    if len({len(column) for column in (users, items, times, feedback, sessions) if column is not None}) > 1:
        raise UserError("columns differ in length", where=source)
    user_ids, user = np.unique(users, return_inverse=True)
    item_ids, item = np.unique(items, return_inverse=True)
    times = np.asarray(times, np.int64)

    # Places: the order of each user's events, whatever their sessions.
    by_time = np.lexsort((times, user))  # stable: rows with equal times keep their order
    place = np.empty(len(user), np.int32)
    place[by_time] = np.arange(len(user)) - np.searchsorted(user[by_time], user[by_time])

    # Sort by user, session and time.
    if sessions is None:
        order = by_time
        user, times = user[order], times[order]
        begins = (np.diff(user, prepend=-1) != 0) | (np.diff(times, prepend=times[0]) > session_gap)
        session = np.cumsum(begins) - 1
    else:
        distinct, group = np.unique(_sessions_for_all(sessions, user, times, session_gap), return_inverse=True)
        _, group = np.unique(user.astype(np.int64) * len(distinct) + group, return_inverse=True)
        first_time = np.full(group.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(first_time, group, times)
        # Overlapping sessions of a user are kept apart, in the order of their start.
        order = np.lexsort((times, group, first_time[group], user))
        user, times, group = user[order], times[order], group[order]
        session = np.cumsum(np.diff(group, prepend=-1) != 0) - 1

    notes = [] if sessions is None else _note_of_long_sessions(times, session)

    # Cut sessions at the split.
    cut_sessions, test_begin = 0, np.iinfo(np.int64).max
    if first_test_second is not None:
        test_begin = first_test_second(times[np.diff(session, prepend=-1) != 0])
        moved, session, cut_sessions = _cut_sessions(user, times, session, test_begin)
        user, times, order = user[moved], times[moved], order[moved]

    # One row per item of a session, at the first place of the pair; the strongest answer, and the first of each kind.
    item, answers, place = item[order], np.asarray(feedback, np.int8)[order], place[order]
    _, first, pair = np.unique(session.astype(np.int64) * len(item_ids) + item, return_index=True, return_inverse=True)
    in_order = np.argsort(first)
    first = first[in_order]
    strongest = np.zeros(len(first), np.int8)
    np.maximum.at(strongest, pair, answers)

    def first_place(least: int) -> np.ndarray:
        never = np.iinfo(np.int32).max
        places = np.full(len(first), never, np.int32)
        np.minimum.at(places, pair[answers >= least], place[answers >= least])
        return np.where(places == never, NEVER, places)[in_order]

    rows = order[first]
    return EventLog(
        name=name,
        user=user[first].astype(np.int32),
        session=session[first].astype(np.int32),
        time=times[first],
        item=item[first].astype(np.int32),
        feedback=strongest[in_order],
        shown_at=place[first],
        clicked_at=first_place(CLICK),
        ordered_at=first_place(ORDER),
        is_test=times[np.diff(session, prepend=-1) != 0] >= test_begin,
        user_ids=user_ids,
        item_ids=item_ids,
        checksum=checksum,
        source=source,
        synthetic=synthetic,
        synthetic_skips=synthetic_skips,
        probabilities=_float32(probabilities, rows),
        shown_probability=_float32(shown_probability, rows),
        order_proxy=order_proxy,
        feedback_proxy=feedback_proxy,
        cut_sessions=cut_sessions,
        notes=notes,
    )


def _note_of_long_sessions(times: np.ndarray, session: np.ndarray) -> list[str]:
    """Returns a sentence if many events are in sessions of more than a day, which the log names itself.

    Args:
        times: [R], ascending within a session.
        session: [R], ascending from 0.
    """
    begins = np.flatnonzero(np.diff(session, prepend=-1))
    ends = np.append(begins[1:], len(session)) - 1
    long = times[ends] - times[begins] > _SECONDS_PER_DAY
    share = float((ends - begins + 1)[long].sum() / len(session))
    if share <= _MOST_IN_LONG_SESSIONS:
        return []
    return [
        f"{share:.1%} of the events are in sessions of more than a day: check data.session_column, and name those that "
        "mean 'unknown' by data.missing_values"
    ]


def _cut_sessions(
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


def _float32(column: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if column is None else np.asarray(column, np.float32)[rows]


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


def with_test_sessions(log: EventLog, is_test: np.ndarray) -> EventLog:
    """Returns the log split: the rows of its training sessions, then those of its test sessions.

    Rows and sessions of the training part are numbered as if there were no test part.

    Args:
        log: A log.
        is_test: [S] bool.
    """
    log = dataclasses.replace(log, is_test=is_test)
    return _rows_of(log, np.argsort(log.in_test_part(), kind="stable"))


def select_events(log: EventLog, kept: np.ndarray) -> EventLog:
    """Returns the log restricted to some rows, with users, items and sessions renumbered.

    Args:
        kept: [n] bool, the rows to keep.

    Raises:
        UserError: No rows are left.
    """
    if not kept.any():
        raise UserError(
            "no events are left after filtering",
            where=log.source,
            do="Lower data.min_item_events and data.min_session_events.",
        )
    log = _rows_of(log, np.flatnonzero(kept))
    user_ids, user = _renumbered(log.user_ids, log.user)
    item_ids, item = _renumbered(log.item_ids, log.item)
    return dataclasses.replace(log, user=user, item=item, user_ids=user_ids, item_ids=item_ids)


HASHED = (
    *("user_ids", "item_ids", "user", "session", "time", "item", "feedback", "shown_at", "clicked_at", "ordered_at"),
    *("is_test", "synthetic_skips", "order_proxy"),
)
"""What tells a log from another (`sim.tables.table_hash`)."""

_OF_ROWS = (
    *("user", "session", "time", "item", "feedback", "shown_at", "clicked_at", "ordered_at"),
    *("probabilities", "shown_probability"),
)
"""Columns with a value per row."""


def _rows_of(log: EventLog, rows: np.ndarray) -> EventLog:
    """Returns the log with some rows in a new order that keeps sessions together; sessions are renumbered."""
    columns = {name: getattr(log, name) for name in _OF_ROWS}
    taken: dict[str, Any] = {name: None if column is None else column[rows] for name, column in columns.items()}
    begins = np.diff(taken["session"], prepend=-1) != 0
    is_test = log.is_test[taken["session"][begins]]
    taken["session"] = np.cumsum(begins, dtype=np.int32) - 1
    return dataclasses.replace(log, **taken, is_test=is_test)


def _renumbered(ids: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids that occur in `index`, and the index into these ids."""
    occurs = np.zeros(len(ids), bool)
    occurs[index] = True
    return ids[occurs], (np.cumsum(occurs, dtype=np.int32) - 1)[index]

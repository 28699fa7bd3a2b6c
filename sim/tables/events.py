"""The table of a log of recommendations: which item was shown to whom and when, and the answer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from harness.errors import UserError

SKIP, CLICK, ORDER = 0, 1, 2
FeedbackName = Literal["skip", "click", "order"]
FEEDBACK_NAMES: tuple[FeedbackName, ...] = get_args(FeedbackName)
NUM_FEEDBACK = len(FEEDBACK_NAMES)


@dataclass(frozen=True)
class EventLog:
    """Feedback on n shown items, sorted by user, then time (rows with equal times keep the order of the log).

    Attributes:
        name: Name of the data set.
        user: [n] int32 index into `user_ids`.
        session: [n] int32, numbered from 0 over the whole log in row order; a session belongs to one user.
        time: [n] int64 seconds since 1970.
        item: [n] int32 index into `item_ids`; an item occurs at most once in a session.
        feedback: [n] int8, 0 skip, 1 click, 2 order (an order implies a click).
        user_ids: [U] original ids, ascending.
        item_ids: [I] original ids, ascending.
        checksum: Checksum of the source.
        source: Where the log came from.
        synthetic: Whether the log is generated.
        synthetic_skips: Whether skips were sampled from items without events of the user: the log has no impressions.
        probabilities: [n, 3] float32 true probabilities of skip, click and order of a generated log, or None.
        shown_probability: [n] float32 probabilities with which a generated log's shop showed the items, or None.
        generator: Settings from which the generator can redraw its truth; None for a real log.
        order_proxy: What counts as an order in a log without orders, such as "is_like or is_follow"; empty if orders
            are real.
    """

    name: str
    user: np.ndarray
    session: np.ndarray
    time: np.ndarray
    item: np.ndarray
    feedback: np.ndarray
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
) -> EventLog:
    """Builds the table from columns in any order.

    An item that occurs several times in a session becomes one row: its first time, its strongest feedback.

    Args:
        name: Name of the data set.
        users: [R] user ids, integers or strings.
        items: [R] item ids, integers or strings.
        times: [R] integer seconds since 1970.
        feedback: [R] 0 skip, 1 click, 2 order.
        sessions: [R] session ids (the same id for two users means two sessions); None: cut by `session_gap`.
        session_gap: Seconds without an event after which a new session begins (unused if `sessions` is given).
        checksum: Checksum of the source.
        source: Where the columns came from.
        synthetic: See EventLog.
        synthetic_skips: See EventLog.
        probabilities: [R, 3] true probabilities, or None.
        shown_probability: [R] probabilities with which the items were shown, or None.
        order_proxy: See EventLog.

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

    # Sort by user, session and time.
    if sessions is None:
        order = np.lexsort((times, user))  # stable: rows with equal times keep their order
        user, times = user[order], times[order]
        begins = (np.diff(user, prepend=-1) != 0) | (np.diff(times, prepend=times[0]) > session_gap)
        session = np.cumsum(begins) - 1
    else:
        distinct, group = np.unique(sessions, return_inverse=True)
        _, group = np.unique(user.astype(np.int64) * len(distinct) + group, return_inverse=True)
        first_time = np.full(group.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(first_time, group, times)
        # Overlapping sessions of a user are kept apart, in the order of their start.
        order = np.lexsort((times, group, first_time[group], user))
        user, times, group = user[order], times[order], group[order]
        session = np.cumsum(np.diff(group, prepend=-1) != 0) - 1

    # One row per item of a session.
    item, answers = item[order], np.asarray(feedback, np.int8)[order]
    first, strongest = _first_per_session_item(session, item, answers)
    rows = order[first]
    return EventLog(
        name=name,
        user=user[first].astype(np.int32),
        session=session[first].astype(np.int32),
        time=times[first],
        item=item[first].astype(np.int32),
        feedback=strongest,
        user_ids=user_ids,
        item_ids=item_ids,
        checksum=checksum,
        source=source,
        synthetic=synthetic,
        synthetic_skips=synthetic_skips,
        probabilities=_float32(probabilities, rows),
        shown_probability=_float32(shown_probability, rows),
        order_proxy=order_proxy,
    )


def _float32(column: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if column is None else np.asarray(column, np.float32)[rows]


def _first_per_session_item(
    session: np.ndarray, item: np.ndarray, feedback: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first row of every (session, item), ascending, and the strongest feedback of the pair."""
    pair = session.astype(np.int64) * (int(item.max()) + 1) + item
    _, first, group = np.unique(pair, return_index=True, return_inverse=True)
    strongest = np.zeros(len(first), np.int8)
    np.maximum.at(strongest, group, feedback)
    order = np.argsort(first)
    return first[order], strongest[order]


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
    user_ids, user = _renumbered(log.user_ids, log.user[kept])
    item_ids, item = _renumbered(log.item_ids, log.item[kept])
    return dataclasses.replace(
        log,
        user=user,
        session=np.cumsum(np.diff(log.session[kept], prepend=-1) != 0, dtype=np.int32) - 1,
        time=log.time[kept],
        item=item,
        feedback=log.feedback[kept],
        user_ids=user_ids,
        item_ids=item_ids,
        probabilities=None if log.probabilities is None else log.probabilities[kept],
        shown_probability=None if log.shown_probability is None else log.shown_probability[kept],
    )


def _renumbered(ids: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids that occur in `index`, and the index into these ids."""
    occurs = np.zeros(len(ids), bool)
    occurs[index] = True
    return ids[occurs], (np.cumsum(occurs, dtype=np.int32) - 1)[index]

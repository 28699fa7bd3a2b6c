"""The table of a log of recommendations: which item was shown to whom and when, and the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from harness.errors import UserError
from sim.tables.event_order import blocks_of_sessions, cut_sessions, order_of_events, stable_order
from sim.tables.numbering import numbered

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
        left_out: How many rows each setting left out, by its key (`data.missing_values`).
        missing_values: Texts that mean that there is no value, whose rows were left out.
        complete: Whether users were shown (nearly) everything, so that the log knows the answer to any item.
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
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    missing_values: list[str] = dataclasses.field(default_factory=list)
    complete: bool = False
    table_hash: str = ""

    @property
    def knows_users(self) -> bool:
        """Whether it tells the answer to any item: by its generator, or because users were shown everything."""
        return self.generator is not None or self.complete

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
    session of the test part, so that no training row holds an item or answer of that time.

    Columns of many rows are best given as int32 indices 0 to D - 1 (as `sim.files.event_readers` does): they are taken
    as they are. Beyond the columns, memory is needed for the table (33 bytes a row), 14 bytes a row, and a few million
    rows at a time.

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
    user_ids, user = _ids_and_index(users)
    item_ids, item = _ids_and_index(items)
    times = np.asarray(times, np.int64)
    if sessions is not None and sessions.dtype.kind not in "iu":
        sessions = _ids_and_index(sessions)[1]
    # Sort by user, session and time, the part for testing last.
    order = order_of_events(user, times, sessions, session_gap, len(user_ids))
    notes = [] if sessions is None else _note_of_long_sessions(order.in_long_sessions / len(user))
    num_training, num_cut = len(user), 0
    if first_test_second is not None:
        num_training, num_cut = cut_sessions(order, user, times, first_test_second(order.first_times))
    columns = {"user": user, "time": times, "item": item, "feedback": np.asarray(feedback, np.int8)}
    for which, column in (("probabilities", probabilities), ("shown_probability", shown_probability)):
        if column is not None:
            columns[which] = np.asarray(column, np.float32)
    del user, item, times
    for which, column in columns.items():
        columns[which] = column[order.rows]
    del order.rows
    return EventLog(
        name=name,
        **_merged(columns, order.begins, order.place, len(item_ids)),
        is_test=np.arange(order.begins.sum()) >= order.begins[:num_training].sum(),
        user_ids=user_ids,
        item_ids=item_ids,
        checksum=checksum,
        source=source,
        synthetic=synthetic,
        synthetic_skips=synthetic_skips,
        order_proxy=order_proxy,
        feedback_proxy=feedback_proxy,
        cut_sessions=num_cut,
        notes=notes,
    )


def _ids_and_index(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct ids, ascending, and the index of every row's."""
    column = np.asarray(column)
    if column.dtype.kind == "i":
        return numbered([column])
    ids, index = np.unique(column, return_inverse=True)
    return ids, index.astype(np.int32)


def _note_of_long_sessions(share: float) -> list[str]:
    """Returns a sentence if much of a log is in sessions of more than a day, which it names itself."""
    if share <= _MOST_IN_LONG_SESSIONS:
        return []
    return [
        f"{share:.1%} of the events are in sessions of more than a day: check data.session_column, and name those that "
        "mean 'unknown' by data.missing_values"
    ]


def _merged(columns: dict[str, np.ndarray], begins: np.ndarray, place: np.ndarray, num_items: int) -> dict[str, Any]:
    """Returns a row for each item of a session: its first one, with the strongest answer, and the first of each kind.

    Args:
        columns: [R] user, time, item and feedback by user, session and time, and probabilities if known. These arrays
            are changed and returned, so that there is one copy of the log.
        begins: [R] bool, whether a session begins there.
        place: [R] int32 place of each event among those of its user; likewise.

    Returns:
        The columns [n] of the log.
    """
    columns = {**columns, "shown_at": place}
    added = {name: np.empty(len(begins), np.int32) for name in ("session", "clicked_at", "ordered_at")}
    end, num_sessions = 0, 0
    for rows in blocks_of_sessions(begins):
        session = np.cumsum(begins[rows], dtype=np.int32) + np.int32(num_sessions - 1)
        num_sessions = int(session[-1]) + 1
        # Rows of a pair, in their order.
        order = stable_order(session, columns["item"][rows])
        pair = session[order].astype(np.int64) * num_items + columns["item"][rows][order]
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        first = order[starts]
        kept = np.zeros(len(session), bool)
        kept[first] = True
        answers, places = columns["feedback"][rows][order], place[rows][order]
        of_first = {"session": session, "feedback": np.empty(len(session), np.int8)}
        of_first["feedback"][first] = np.maximum.reduceat(answers, starts)
        for name, least in (("clicked_at", CLICK), ("ordered_at", ORDER)):
            never = np.iinfo(np.int32).max
            earliest = np.minimum.reduceat(np.where(answers >= least, places, np.int32(never)), starts)
            of_first[name] = np.empty(len(session), np.int32)
            of_first[name][first] = np.where(earliest == never, np.int32(NEVER), earliest)
        # They take the place of rows before.
        merged = slice(end, end + len(first))
        end = merged.stop
        for name, column in (columns | added).items():
            column[merged] = of_first[name][kept] if name in of_first else column[rows][kept]
    for column in (columns | added).values():
        column.resize((end, *column.shape[1:]), refcheck=False)
    return columns | added


def with_test_sessions(log: EventLog, is_test: np.ndarray) -> EventLog:
    """Returns the log split: the rows of its training sessions, then those of its test sessions.

    Rows and sessions of the training part are numbered as if there were no test part.

    Args:
        log: A log.
        is_test: [S] bool.
    """
    log = dataclasses.replace(log, is_test=is_test)
    if not (is_test[:-1] & ~is_test[1:]).any():
        return log
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
    log = _rows_of(log, kept)
    user_ids, user = _renumbered(log.user_ids, log.user)
    item_ids, item = _renumbered(log.item_ids, log.item)
    return dataclasses.replace(log, user=user, item=item, user_ids=user_ids, item_ids=item_ids)


HASHED = (
    *("user_ids", "item_ids", "user", "session", "time", "item", "feedback", "shown_at", "clicked_at", "ordered_at"),
    *("is_test", "synthetic_skips", "order_proxy"),
)
"""What tells a log from another (`sim.tables.table_hash`)."""

_PROBABILITIES = ("probabilities", "shown_probability")
_OF_ROWS = (
    *("user", "session", "time", "item", "feedback", "shown_at", "clicked_at", "ordered_at"),
    *_PROBABILITIES,
)
"""Columns with a value per row."""


def _rows_of(log: EventLog, rows: np.ndarray) -> EventLog:
    """Returns the log with some rows (bool, or their numbers in an order that keeps sessions together) renumbered."""
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

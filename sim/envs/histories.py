"""The last N browsed, clicked and ordered items before any row of a log, read on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sim.tables.events import CLICK, NEVER, ORDER, EventLog

NO_ITEM = -1


@flax.struct.dataclass
class Histories:
    """A user's most recent items, oldest first; short histories are padded with -1 in front.

    Attributes:
        browsed: [..., N] int32 items shown to the user.
        clicked: [..., N] int32 items that the user clicked or ordered.
        ordered: [..., N] int32 items that the user ordered.
    """

    browsed: jax.Array
    clicked: jax.Array
    ordered: jax.Array


def add_feedback(histories: Histories, item: jax.Array, feedback: jax.Array) -> Histories:
    """Appends an item (scalar) to the histories [N] that its feedback belongs to, which drop their oldest item."""
    chex.assert_rank([item, feedback], 0)

    def push(history: jax.Array, happened: jax.Array) -> jax.Array:
        pushed = jnp.concatenate([history[1:], jnp.asarray(item, history.dtype)[None]])
        return jnp.where(happened, pushed, history)

    return Histories(
        browsed=push(histories.browsed, jnp.bool_(True)),
        clicked=push(histories.clicked, feedback >= CLICK),
        ordered=push(histories.ordered, feedback >= ORDER),
    )


@flax.struct.dataclass
class HistoryTable:
    """A log on the device from which the histories before every row can be read; 16 bytes per row, 20 with a test part.

    It holds lists of shown items in the order in which they were shown, one list per user, whatever the sessions. An
    answer counts from the time at which it was given. Where a training session went on after a test session of its user
    began, training rows have a list of their own, which knows nothing of the test part.

    Attributes:
        item: [m] int32 items of the lists.
        begin: [m] int32 where the list of each begins.
        num_clicked: [m] int32 length of `clicked` before each was shown.
        num_ordered: [m] int32 length of `ordered` before each was shown.
        clicked: [c] int32 items clicked or ordered, by list and time of the first such answer in the session.
        ordered: [o] int32 items ordered, likewise.
        place: [n] int32 where each row of the log is in the lists; None: row r is number r.
    """

    item: jax.Array
    begin: jax.Array
    num_clicked: jax.Array
    num_ordered: jax.Array
    clicked: jax.Array
    ordered: jax.Array
    place: jax.Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def item_of(self, row: jax.Array) -> jax.Array:
        """Returns the items of rows (int32, any shape)."""
        return self.item[self._place(row)]

    def before(self, row: jax.Array, length: int) -> Histories:
        """Returns the histories, [N] each, of the user of a row (int32 scalar) just before the row.

        Only what happened earlier is in them: by time, and among equal times by the order of the source.

        Args:
            row: 0 to n - 1.
            length: N.
        """
        end = self._place(row)
        begin = self.begin[end]
        return Histories(
            browsed=_last(self.item, begin, end, length),
            clicked=_last(self.clicked, self.num_clicked[begin], self.num_clicked[end], length),
            ordered=_last(self.ordered, self.num_ordered[begin], self.num_ordered[end], length),
        )

    def _place(self, row: jax.Array) -> jax.Array:
        return row if self.place is None else self.place[row]


def _last(items: jax.Array, begin: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """Returns the last `length` of items[begin:end], padded with -1 in front."""
    position = end - length + jnp.arange(length)
    last = items[jnp.clip(position, 0, max(items.shape[0] - 1, 0))]
    return jnp.where(position >= begin, last, NO_ITEM)


def make_history_table(log: EventLog, put: Callable[[np.ndarray], Any] = jnp.asarray) -> HistoryTable:
    """Builds the lists of a log by the places of its events and copies them to the device.

    Args:
        log: The log.
        put: Copies an array of int32; each length of an array that comes to the device compiles a program.
    """
    # One list per user, and one more with the training rows alone where test rows came in between.
    in_test_part = log.in_test_part()
    first_test = np.full(log.num_users, np.iinfo(np.int32).max)
    np.minimum.at(first_test, log.user[in_test_part], log.shown_at[in_test_part])
    late = np.zeros(log.num_users, bool)
    late[log.user[~in_test_part & (log.shown_at > first_test[log.user])]] = True
    again = np.flatnonzero(late[log.user] & ~in_test_part)
    rows = np.append(np.arange(log.num_events), again)
    number = 2 * log.user[rows].astype(np.int64)
    number[log.num_events :] += 1
    order = np.lexsort((log.shown_at[rows], number))
    rows, number = rows[order], number[order]
    # Where each row is found.
    place = np.argsort(order)
    place, training = place[: log.num_events], place[log.num_events :]
    place[again] = training
    in_order = np.array_equal(place, np.arange(len(rows)))
    first = np.flatnonzero(np.diff(number, prepend=-1))
    begin = np.repeat(first, np.diff(np.append(first, len(rows))))
    # Answers by list and the place at which they were given; how many there were before each row was shown.
    places = 1 + max((int(column.max()) for column in (log.shown_at, log.clicked_at, log.ordered_at)), default=0)
    shown = number * places + log.shown_at[rows]

    def on_device(column: np.ndarray) -> Any:
        return put(column.astype(np.int32))

    def answers(given_at: np.ndarray) -> tuple[jax.Array, jax.Array]:
        given = np.flatnonzero(given_at[rows] != NEVER)
        moment = number[given] * places + given_at[rows[given]]
        in_time = np.argsort(moment, kind="stable")
        items = np.append(log.item[rows[given[in_time]]], NO_ITEM)  # nothing can be read from an empty array
        return on_device(np.searchsorted(moment[in_time], shown)), on_device(items)

    num_clicked, clicked = answers(log.clicked_at)
    num_ordered, ordered = answers(log.ordered_at)
    return HistoryTable(
        item=on_device(log.item[rows]),
        begin=on_device(begin),
        num_clicked=num_clicked,
        num_ordered=num_ordered,
        clicked=clicked,
        ordered=ordered,
        place=None if in_order else on_device(place),
    )

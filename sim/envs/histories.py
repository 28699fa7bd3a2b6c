"""The last N browsed, clicked and ordered items before any row of a log, read on the device."""

from __future__ import annotations

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sim.tables.events import CLICK, ORDER, EventLog

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
    """A log on the device from which the histories before every row can be read; about 16 bytes per row.

    Attributes:
        item: [n] int32 item of each row; the rows of a user are consecutive and in order of time.
        begin: [n] int32 first row of the row's user.
        num_clicked: [n + 1] int32 rows with a click or an order before the row.
        num_ordered: [n + 1] int32 rows with an order before the row.
        clicked: [c] int32 items of rows with a click or an order.
        ordered: [o] int32 items of rows with an order.
    """

    item: jax.Array
    begin: jax.Array
    num_clicked: jax.Array
    num_ordered: jax.Array
    clicked: jax.Array
    ordered: jax.Array

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def before(self, row: jax.Array, length: int) -> Histories:
        """Returns the histories, [N] each, of the user of a row (int32 scalar) just before the row.

        Args:
            row: 0 to n - 1.
            length: N.
        """
        return self._between(self.begin[row], row, length)

    def after(self, row: jax.Array, length: int) -> Histories:
        """Returns the histories, [N] each, of the user of a row (int32 scalar) just after the row."""
        return self._between(self.begin[row], row + 1, length)

    def _between(self, begin: jax.Array, end: jax.Array, length: int) -> Histories:
        return Histories(
            browsed=_last(self.item, begin, end, length),
            clicked=_last(self.clicked, self.num_clicked[begin], self.num_clicked[end], length),
            ordered=_last(self.ordered, self.num_ordered[begin], self.num_ordered[end], length),
        )


def _last(items: jax.Array, begin: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """Returns the last `length` of items[begin:end], padded with -1 in front."""
    position = end - length + jnp.arange(length)
    last = items[jnp.clip(position, 0, max(items.shape[0] - 1, 0))]
    return jnp.where(position >= begin, last, NO_ITEM)


def make_history_table(log: EventLog) -> HistoryTable:
    """Copies the columns of a log that histories consist of to the device."""
    first_of_user = np.flatnonzero(np.diff(log.user, prepend=-1))
    begin = np.repeat(first_of_user, np.diff(np.append(first_of_user, log.num_events)))

    def counts(least: int) -> tuple[jax.Array, jax.Array]:
        happened = log.feedback >= least
        items = np.append(log.item[happened], NO_ITEM)  # never empty: nothing can be read from an empty array
        return jnp.asarray(np.append(0, np.cumsum(happened)), jnp.int32), jnp.asarray(items, jnp.int32)

    num_clicked, clicked = counts(CLICK)
    num_ordered, ordered = counts(ORDER)
    return HistoryTable(
        item=jnp.asarray(log.item, jnp.int32),
        begin=jnp.asarray(begin, jnp.int32),
        num_clicked=num_clicked,
        num_ordered=num_ordered,
        clicked=clicked,
        ordered=ordered,
    )

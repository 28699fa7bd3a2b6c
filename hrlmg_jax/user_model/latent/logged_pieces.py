"""Logged sessions as latent users are fitted to them: padded arrays, by user, and which lie before a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np

from hrlmg_jax.user_model.latent.likelihood import Pieces
from sim.tables.events import CLICK, EventLog

CLICKS = 32
"""Clicks before a piece, the last ones, that say what a shop knows."""
LENGTH = 60
"""Steps of a piece; longer sessions are cut, and an interest is then that of a piece."""


@dataclass(frozen=True)
class LoggedPieces:
    """The pieces of a log's sessions, in the order of its rows.

    Attributes:
        log: The log.
    """

    log: EventLog

    @cached_property
    def first(self) -> np.ndarray:
        """[P] the first row of each piece."""
        starts = self.log.session_starts()
        number = np.arange(self.log.num_events) - starts[self.log.session]
        return np.flatnonzero(number % LENGTH == 0)

    @cached_property
    def end(self) -> np.ndarray:
        """[P] the row after the last of each piece."""
        return np.append(self.first[1:], self.log.num_events)

    @cached_property
    def number_in_session(self) -> np.ndarray:
        """[P] how many pieces of its session come before each."""
        return (self.first - self.log.session_starts()[self.log.session[self.first]]) // LENGTH

    @cached_property
    def user(self) -> np.ndarray:
        """[P] whose each piece is."""
        return self.log.user[self.first]

    @cached_property
    def complete_at(self) -> np.ndarray:
        """[P] place by which all of a piece had been shown and answered."""
        log = self.log
        last = np.maximum(np.maximum(log.shown_at, log.clicked_at), log.ordered_at)
        return np.maximum.reduceat(last, self.first)

    def rows_of(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns [p, T] rows of pieces, 0 where there are none, and [p, T] bool whether there are."""
        length = int((self.end - self.first).max())
        rows = self.first[pieces][:, None] + np.arange(length)
        shown = rows < self.end[pieces][:, None]
        return np.where(shown, rows, 0), shown

    def padded(self, pieces: np.ndarray, clicks: np.ndarray | None = None) -> tuple[Pieces, np.ndarray, np.ndarray]:
        """Returns pieces as the likelihood takes them, and their rows as `rows_of` gives them.

        Args:
            pieces: Their numbers [p].
            clicks: [P, 32] what `clicks_before` returns; None: nobody asks what was clicked before.
        """
        rows, shown = self.rows_of(pieces)
        log, session = self.log, self.log.session[self.first[pieces]]
        follows = (pieces > 0) & (log.session[self.first[pieces - 1]] == session)
        last, there = self.rows_of(np.maximum(pieces - 1, 0))
        before = np.where(there & follows[:, None], log.feedback[last], -1).astype(np.int8)
        columns = (log.item[rows].astype(np.int32), log.feedback[rows], shown, before, session.astype(np.int32))
        known = None if clicks is None else jnp.asarray(clicks[pieces])
        return Pieces(*map(jnp.asarray, columns))._replace(clicks=known), rows, shown

    def clicks_before(self) -> np.ndarray:
        """Returns [P, 32] int32 the items that each piece's user clicked before it, the last first, padded with -1."""
        log = self.log
        # The clicked rows of each user in order of time, and how many of them come before each piece.
        rows = np.flatnonzero(log.feedback >= CLICK)
        piece = np.searchsorted(self.first, rows, side="right") - 1
        users, order = self.user_sorted
        turn = np.empty(len(order), np.int64)  # of a piece in the order of users and time
        turn[order] = np.arange(len(order))
        rows = rows[np.argsort(turn[piece], kind="stable")]
        clicks = np.bincount(turn[piece], minlength=len(order))
        end = np.cumsum(clicks) - clicks
        first = end[np.searchsorted(users, users)]
        place = (end - 1)[:, None] - np.arange(CLICKS)
        known = np.where(place >= first[:, None], log.item[rows[np.maximum(place, 0)]], -1)
        found = np.empty(known.shape, np.int32)
        found[order] = known
        return found

    def in_turn(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
        """Yields the first piece of every user, then the second, and so on, as places in `numbers`.

        Args:
            numbers: [p] ascending numbers of all pieces of some users.

        Yields:
            Places of the pieces before, None at first; places of pieces.
        """
        order = np.lexsort((self.log.shown_at[self.first[numbers]], self.user[numbers]))
        users = self.user[numbers][order]
        place = np.arange(len(users)) - np.searchsorted(users, users)
        by_place = np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])
        for turn, at in enumerate(by_place):
            yield (order[at - 1] if turn else None), order[at]

    def by_user(self, rows: np.ndarray, most: int) -> np.ndarray:
        """Returns [u, most] the last pieces of each user among those that begin at some of the rows, -1 for none."""
        wanted = np.flatnonzero(np.isin(self.first, rows))
        return _last_of_groups(self.user[wanted], wanted, most)

    def before(self, rows: np.ndarray, most: int) -> np.ndarray:
        """Returns [r, most] the last pieces of each row's user that were complete before the row, -1 for none.

        For a row of the training part, only pieces of that part; nothing of the row's own session.
        """
        log = self.log
        test = log.in_test_part()
        starts = np.searchsorted(self.user_sorted[0], log.user[rows])
        ends = np.searchsorted(self.user_sorted[0], log.user[rows], side="right")
        found = np.full((len(rows), most), -1, np.int64)
        for number, (row, begin, end) in enumerate(zip(rows, starts, ends, strict=True)):
            mine = self.user_sorted[1][begin:end]
            known = self.complete_at[mine] < log.shown_at[row]
            known &= log.session[self.first[mine]] != log.session[row]
            if not test[row]:
                known &= ~test[self.first[mine]]
            last = mine[known][-most:]
            found[number, : len(last)] = last
        return found

    @cached_property
    def user_sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """[P] users in order, and the pieces in that order, each user's by time."""
        order = np.lexsort((self.log.shown_at[self.first], self.user))
        return self.user[order], order


def _last_of_groups(group: np.ndarray, values: np.ndarray, most: int) -> np.ndarray:
    """Returns [g, most] the last values of each group, in order, padded with -1."""
    order = np.argsort(group, kind="stable")
    _, first, count = np.unique(group[order], return_index=True, return_counts=True)
    place = first[:, None] + np.maximum(count - most, 0)[:, None] + np.arange(most)
    end = (first + count)[:, None]
    return np.where(place < end, values[order][np.minimum(place, len(values) - 1)], -1)

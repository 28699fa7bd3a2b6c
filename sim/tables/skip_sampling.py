"""Skips for logs that record only clicks and orders, drawn by popularity in the training part.

Those of test sessions so come from what was known before. Those of training sessions know how popular items were in the
whole training part, later sessions and held-out users included: what was known at the very moment would leave the first
sessions without candidates.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from sim.tables.events import NEVER, SKIP, EventLog

SKIP_SAMPLER_VERSION = 2
"""Increment when the same log and seed would get different skips; cached logs then expire."""

Excluded = Literal["session", "past"]
"""What a skip must not be: an item of its session, or also an item that the user had an event with before."""

_MAX_ROUNDS = 64
_CHUNK_SKIPS = 1 << 21


def add_sampled_skips(
    log: EventLog, *, per_event: float, popularity_power: float, seed: int, exclude: Excluded = "session"
) -> EventLog:
    """Returns the log with sampled skips among its events.

    A session with n events gets `per_event` * n skips (rounded at random per event). Their items are distinct and no
    items of the session; they are drawn among the items of the training part, in proportion to their number of events
    there to the power `popularity_power`. So the test part has no influence on skips of the training part, nor on which
    items its own skips are. Sessions that leave too few items get fewer.

    All orders of a session's skips among its events are equally likely, which makes places in a session tell nothing of
    answers. A skip has the time of the event before or after it, with equal probability.

    Args:
        log: A log without skips, split if it is to be.
        per_event: Expected number of skips per event, 0 or more.
        popularity_power: 0 draws all items with equal probability, 1 in proportion to their number of events.
        seed: Random seed.
        exclude: See `Excluded`; the future is never looked at.
    """
    candidates = _Candidates.of(log, popularity_power, exclude)
    hosts, items, after = [], [], []
    num_training = int(np.searchsorted(log.in_test_part(), True))
    for part, bounds in enumerate(((0, num_training), (num_training, log.num_events))):
        random = np.random.default_rng([seed, part])  # the parts do not share random numbers
        for rows in _chunks(log, *bounds, per_event):
            session, item = candidates.draw(rows, _wanted(log, rows, per_event, random), random)
            host, is_after = _places(log, rows, session, random)
            hosts.append(host)
            items.append(item)
            after.append(is_after)
    return _with_skips(log, np.concatenate(hosts), np.concatenate(items), np.concatenate(after))


def _pairs(owner: np.ndarray, other: np.ndarray, number: int) -> np.ndarray:
    """Encodes each (user or session, item or place) as one int64 number; `number` is that of items or places."""
    return owner.astype(np.int64) * number + other


def _chunks(log: EventLog, begin: int, end: int, per_event: float) -> Iterator[slice]:
    """Yields slices of rows [begin, end) that contain whole sessions, which bounds the memory of sampling."""
    starts = log.session_starts()
    size = max(1, int(_CHUNK_SKIPS / max(per_event, 1)))
    nearest = np.searchsorted(starts, np.arange(begin, end, size))
    for first, last in itertools.pairwise(np.unique(np.append(starts[nearest], end))):
        yield slice(int(first), int(last))


def _wanted(log: EventLog, rows: slice, per_event: float, random: np.random.Generator) -> np.ndarray:
    """Returns how many skips each session of a chunk should get."""
    session = log.session[rows] - log.session[rows.start]
    wanted = int(per_event) + (random.random(len(session)) < per_event % 1)
    return np.bincount(session, wanted).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class _Candidates:
    """Items that skips are drawn from.

    Attributes:
        log: The log without skips.
        cumulative: [I] cumulative probabilities of the items; those without training events have none.
        touched: Ascending pairs (user, item) of the whole log whose event before a session excludes the item.
        touched_at: Place of each pair's first event.
    """

    log: EventLog
    cumulative: np.ndarray
    touched: np.ndarray
    touched_at: np.ndarray

    @classmethod
    def of(cls, log: EventLog, popularity_power: float, exclude: Excluded) -> _Candidates:
        """Counts the training part's events, and notes who touched what when."""
        count = np.bincount(log.item[~log.in_test_part()], minlength=log.num_items)
        cumulative = np.cumsum(np.where(count > 0, count.astype(np.float64) ** popularity_power, 0))
        touching = np.flatnonzero(count[log.item] > 0) if exclude == "past" else np.empty(0, np.int64)
        touching = touching[np.argsort(log.shown_at[touching], kind="stable")]
        pairs = _pairs(log.user[touching], log.item[touching], log.num_items)
        touched, first = np.unique(pairs, return_index=True)
        return cls(log, cumulative / cumulative[-1], touched, log.shown_at[touching][first])

    def draw(self, rows: slice, number: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws items for the sessions of a chunk, distinct within a session.

        Rejected draws are repeated, so that accepted ones follow the popularities exactly.

        Args:
            rows: The chunk.
            number: [s] skips wanted in each session.
            random: Random generator.

        Returns:
            [K] session (a number of the log, ascending) and item of each skip found.
        """
        log, num_items = self.log, self.log.num_items
        # What cannot be drawn: items of the session itself, and as many as the user touched before.
        taken = np.unique(_pairs(log.session[rows], log.item[rows], num_items))
        number = np.minimum(number, self._room(rows, taken))
        session = np.repeat(np.arange(len(number)) + log.session[rows.start], number)
        begin = log.session_starts()[session]
        # Draw until all are found.
        item = np.full(len(session), -1, np.int32)
        missing = np.arange(len(session))
        for _ in range(_MAX_ROUNDS):
            if not len(missing):
                break
            drawn = np.searchsorted(self.cumulative, random.random(len(missing)), side="right")
            pair = _pairs(session[missing], drawn, num_items)
            good = ~_contains(taken, pair) & ~self._touched_before(begin[missing], drawn)
            accepted = np.flatnonzero(good)
            new, first = np.unique(pair[accepted], return_index=True)
            accepted = accepted[first]
            item[missing[accepted]] = drawn[accepted]
            taken = np.insert(taken, np.searchsorted(taken, new), new)
            missing = missing[item[missing] < 0]
        return session[item >= 0], item[item >= 0]

    def _room(self, rows: slice, taken: np.ndarray) -> np.ndarray:
        """Returns how many items can be drawn in each session of a chunk; `taken` are its (session, item)."""
        log = self.log
        is_candidate = np.diff(self.cumulative, prepend=0) > 0
        first = log.session[rows.start]
        session, item = taken // log.num_items, taken % log.num_items
        begin = log.session_starts()[first : log.session[rows.stop - 1] + 1]
        # Items of the session that the user had not touched before, and those that she had.
        own = is_candidate[item] & ~self._touched_before(begin[session - first], item)
        places = int(log.shown_at.max()) + 1
        touches = np.sort(_pairs(self.touched // log.num_items, self.touched_at, places))
        user = log.user[begin]
        zero = np.searchsorted(touches, _pairs(user, np.zeros_like(user), places))
        before = np.searchsorted(touches, _pairs(user, log.shown_at[begin], places)) - zero
        return int(is_candidate.sum()) - before - np.bincount(session[own] - first, minlength=len(begin))

    def _touched_before(self, begin: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Returns whether the user of each session (first row `begin`) touched an item before it."""
        if not len(self.touched):
            return np.zeros(len(item), bool)
        pair = _pairs(self.log.user[begin], item, self.log.num_items)
        index = np.minimum(np.searchsorted(self.touched, pair), len(self.touched) - 1)
        return (self.touched[index] == pair) & (self.touched_at[index] < self.log.shown_at[begin])


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns which values occur in an ascending array."""
    index = np.searchsorted(ascending, values)
    inside = index < len(ascending)
    inside[inside] = ascending[index[inside]] == values[inside]
    return inside


def _places(
    log: EventLog, rows: slice, session: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws where skips stand: all orders of a session's skips and events are equally likely.

    Args:
        log: The log without skips.
        rows: The chunk.
        session: [K] session of each skip, ascending.
        random: Random generator.

    Returns:
        [K] row of the event beside each skip, ascending within a session, and whether the skip is after it.
    """
    # Sort a session's events and skips by random numbers; its events are then taken in their own order.
    owner = np.concatenate([log.session[rows], session])
    order = np.lexsort((random.random(len(owner)), owner))
    is_skip = order >= rows.stop - rows.start
    next_event = rows.start + np.cumsum(~is_skip)[is_skip]  # the row that follows, maybe of another session
    # The event before or the one after, if both are of the session.
    starts = log.session_starts()
    is_first, is_last = next_event == starts[session], next_event == starts[session + 1]
    is_after = is_last | (~is_first & (random.random(len(session)) < 0.5))
    return next_event - is_after, is_after


def _with_skips(log: EventLog, host: np.ndarray, item: np.ndarray, is_after: np.ndarray) -> EventLog:
    """Returns the log with a skip of each item beside its host row, at that row's time."""
    # A skip stands before the event that has place `at` now; later events move on by a place.
    at = log.shown_at[host] + is_after
    order = np.lexsort((log.time[host], at, log.user[host]))
    host, item, at = host[order], item[order], at[order]
    places = max(int(column.max()) for column in (log.shown_at, log.clicked_at, log.ordered_at)) + 2
    taken = _pairs(log.user[host], at, places)
    of_earlier_users = np.searchsorted(taken, _pairs(log.user, np.zeros_like(log.user), places))

    def moved(column: np.ndarray) -> np.ndarray:
        skips = np.searchsorted(taken, _pairs(log.user, column, places), side="right") - of_earlier_users
        return np.where(column == NEVER, NEVER, column + skips).astype(np.int32)

    skip_at = at + np.arange(len(host)) - of_earlier_users[host]
    # Merge by session and place.
    never = np.full(len(host), NEVER)
    of_skips = {"item": item, "feedback": np.full(len(host), SKIP), "shown_at": skip_at}
    of_skips |= {name: getattr(log, name)[host] for name in ("user", "session", "time")}
    columns = {name: getattr(log, name) for name in of_skips} | {"shown_at": moved(log.shown_at)}
    columns |= {name: moved(getattr(log, name)) for name in ("clicked_at", "ordered_at")}
    both = {
        name: np.concatenate([column, of_skips.get(name, never).astype(column.dtype)])
        for name, column in columns.items()
    }
    order = np.lexsort((both["shown_at"], both["session"]))
    merged: dict[str, Any] = {name: column[order] for name, column in both.items()}
    return dataclasses.replace(log, **merged, synthetic_skips=True, probabilities=None, shown_probability=None)

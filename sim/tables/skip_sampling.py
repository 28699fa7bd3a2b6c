"""Skips for logs that record only clicks and orders: items without events of the user, drawn by popularity."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from sim.tables.events import SKIP, EventLog

SKIP_SAMPLER_VERSION = 1
"""Increment when the same log and seed would get different skips; cached logs then expire."""

_MAX_ROUNDS = 64
_CHUNK_SKIPS = 1 << 21


def add_sampled_skips(log: EventLog, *, per_event: float, popularity_power: float, seed: int) -> EventLog:
    """Returns the log with sampled skips among its events.

    A session with n events gets `per_event` * n skips (rounded at random per event). Their items are distinct, have no
    event of the user anywhere in the log, and are drawn in proportion to their number of events to the power
    `popularity_power`. Each skip is placed directly before a random event of the session, at that event's time.
    Sessions of users with events on nearly all items get fewer.

    Args:
        log: A log without skips.
        per_event: Expected number of skips per event, 0 or more.
        popularity_power: 0 draws all items with equal probability, 1 in proportion to their number of events.
        seed: Random seed.
    """
    weight = np.bincount(log.item, minlength=log.num_items).astype(np.float64) ** popularity_power
    cumulative = np.cumsum(weight)
    cumulative /= cumulative[-1]
    touched = np.unique(_pairs(log.user, log.item, log.num_items))
    room = log.num_items - np.bincount(touched // log.num_items, minlength=log.num_users)
    random = np.random.default_rng(seed)
    hosts, items = [], []
    for rows in _chunks(log, per_event):
        host = _hosts(log, rows, per_event, room, random)
        first_user, last_user = log.user[rows.start], log.user[rows.stop - 1]
        bounds = np.searchsorted(touched, np.array([first_user, last_user + 1], np.int64) * log.num_items)
        item = _draw_items(log, host, cumulative, touched[slice(*bounds)], random)
        hosts.append(host[item >= 0])
        items.append(item[item >= 0])
    return _with_skips(log, np.concatenate(hosts), np.concatenate(items))


def _pairs(owner: np.ndarray, item: np.ndarray, num_items: int) -> np.ndarray:
    """Encodes each (user or session, item) as one int64 number."""
    return owner.astype(np.int64) * num_items + item


def _chunks(log: EventLog, per_event: float) -> Iterator[slice]:
    """Yields slices of the log that contain whole sessions, which bounds the memory of sampling."""
    starts = log.session_starts()
    size = max(1, int(_CHUNK_SKIPS / max(per_event, 1)))
    nearest = np.searchsorted(starts, np.arange(0, log.num_events, size))
    bounds = np.unique(np.append(starts[nearest], log.num_events))
    for begin, end in itertools.pairwise(bounds):
        yield slice(int(begin), int(end))


def _hosts(log: EventLog, rows: slice, per_event: float, room: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns, ascending, the row before which each skip of some sessions is placed."""
    session = log.session[rows] - log.session[rows.start]
    length = np.bincount(session)
    start = rows.start + np.cumsum(length) - length
    wanted = int(per_event) + (random.random(len(session)) < per_event % 1)
    number = np.minimum(np.bincount(session, wanted).astype(np.int64), room[log.user[start]])
    offset = random.random(int(number.sum())) * np.repeat(length, number)
    return np.sort(np.repeat(start, number) + offset.astype(np.int64))


def _draw_items(
    log: EventLog, host: np.ndarray, cumulative: np.ndarray, touched: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Returns an item for each skip, distinct within a session; -1 where none was found.

    Rejected draws are repeated, so that accepted ones follow the popularities exactly.

    Args:
        host: [K] row before which each skip is placed.
        cumulative: [I] cumulative probabilities of the items.
        touched: Ascending pairs (user, item) of at least the users concerned.
        random: Random generator.
    """
    item = np.full(len(host), -1, np.int32)
    taken = np.empty(0, np.int64)
    missing = np.arange(len(host))
    for _ in range(_MAX_ROUNDS):
        if not len(missing):
            break
        drawn = np.searchsorted(cumulative, random.random(len(missing)), side="right")
        rows = host[missing]
        pair = _pairs(log.session[rows], drawn, log.num_items)
        good = ~_contains(touched, _pairs(log.user[rows], drawn, log.num_items)) & ~_contains(taken, pair)
        accepted = np.flatnonzero(good)
        new, first = np.unique(pair[accepted], return_index=True)
        accepted = accepted[first]
        item[missing[accepted]] = drawn[accepted]
        taken = np.insert(taken, np.searchsorted(taken, new), new)
        missing = missing[item[missing] < 0]
    return item


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns which values occur in an ascending array."""
    index = np.searchsorted(ascending, values)
    inside = index < len(ascending)
    inside[inside] = ascending[index[inside]] == values[inside]
    return inside


def _with_skips(log: EventLog, host: np.ndarray, item: np.ndarray) -> EventLog:
    """Returns the log with a skip of each item directly before its host row (ascending)."""
    event_row = np.arange(log.num_events) + np.cumsum(np.bincount(host, minlength=log.num_events))
    skip_row = np.arange(len(host)) + host

    def merged(of_events: np.ndarray, of_skips: np.ndarray | int) -> np.ndarray:
        column = np.empty(len(event_row) + len(skip_row), of_events.dtype)
        column[event_row] = of_events
        column[skip_row] = of_skips
        return column

    return dataclasses.replace(
        log,
        user=merged(log.user, log.user[host]),
        session=merged(log.session, log.session[host]),
        time=merged(log.time, log.time[host]),
        item=merged(log.item, item),
        feedback=merged(log.feedback, SKIP),
        synthetic_skips=True,
        probabilities=None,
    )

"""How fast a recommender answers, for benchmarks: one user at a time, and many at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sim.recommend.recommender import Recommender

K = 10


class Durations(NamedTuple):
    """Median seconds by the clock, and of processor time (of all threads of this process)."""

    wall: float
    cpu: float


def durations_of(call: Callable[[int], Any], repeats: int, warm_up: int) -> Durations:
    """Returns the median durations of `call(0)`, `call(1)`, ...; the first ones were called before, to compile."""
    measured: list[tuple[float, float]] = []
    for number in (*range(warm_up), *range(repeats)):
        wall, cpu = time.perf_counter(), time.process_time()
        call(number)
        measured.append((time.perf_counter() - wall, time.process_time() - cpu))
    return Durations(*map(statistics.median, zip(*measured[warm_up:], strict=True)))


def seconds_of_one(recommender: Recommender, histories: Sequence[Any], repeats: int) -> Durations:
    """Returns the median durations of a list of ten items for one user, another one each time."""
    return durations_of(lambda number: recommender.recommend([histories[number % len(histories)]], K), repeats, repeats)


def seconds_of_many(recommender: Recommender, histories: Sequence[Any], repeats: int) -> Durations:
    """Returns the median durations of lists of ten items for many users at once, per user."""
    whole = durations_of(lambda _: recommender.recommend(list(histories), K), repeats, 1)
    return Durations(*(seconds / len(histories) for seconds in whole))

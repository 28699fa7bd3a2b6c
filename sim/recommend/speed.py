"""How fast a recommender answers, for benchmarks: one user at a time, and many at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.reports.benchmark import Line
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


def seconds_by_kind(recommender: Recommender, users: Mapping[str, Sequence[Any]], repeats: int) -> dict[str, float]:
    """Times lists of ten items for one user and for many at once.

    Args:
        users: By kind (known, new) what is asked for: ids, or histories.
        repeats: Of a single list.

    Returns:
        Seconds per user: `one_KIND` and `many_KIND` by the clock, with `_cpu` of processor time.
    """
    seconds: dict[str, float] = {}
    for kind, asked in users.items():
        one, many = seconds_of_one(recommender, asked, repeats), seconds_of_many(recommender, asked, 2 + repeats // 10)
        seconds |= {f"one_{kind}": one.wall, f"one_{kind}_cpu": one.cpu}
        seconds |= {f"many_{kind}": many.wall, f"many_{kind}_cpu": many.cpu}
    return seconds


def speed_lines(
    name: str, seconds: Mapping[str, float], users: int, most_ms: float, users_per_second: float | None = None
) -> list[Line]:
    """Returns the lines of a benchmark for known and new users.

    Args:
        name: What recommends.
        seconds: Of `seconds_by_kind`.
        users: How many were asked for at once.
        most_ms: Target for one user, milliseconds.
        users_per_second: Target for many known users at once.
    """
    lines = []
    for kind in ("known", "new"):
        note = f"processor time {1e3 * seconds[f'one_{kind}_cpu']:.1f} ms"
        lines.append(Line(f"{name}: one {kind} user, p50", 1e3 * seconds[f"one_{kind}"], "ms", most_ms, note=note))
        note = f"{users:,} at once; processor time {1e6 * seconds[f'many_{kind}_cpu']:.0f} us each"
        target = users_per_second if kind == "known" else None
        rate = 1 / seconds[f"many_{kind}"]
        lines.append(Line(f"{name}: many {kind} users", rate, "1/s", target, at_most=False, note=note))
    return lines

"""What the scripts of this folder share; standard library only, since each runs in its peer's own environment."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """How much a measurement computes; MovieLens-1M's shape, and networks as ours have them by default.

    Attributes:
        users: Of the ratings.
        items: Of the catalogue.
        ratings_per_user: Of the ratings.
        steps: Recommendations per episode.
        tpgr_users: Users in a batch of TPGR ...
        tpgr_episodes: ... and episodes of each.
        features: Of LinearUCB's items, a constant included.
        bandit_users: Users that LinearUCB plays with.
        batch: Transitions in an update of Q-learning.
        updates: Updates that are timed at a time.
        state: Numbers of a user's state.
        hidden: Hidden layers.
        factors: Of a matrix factorisation.
        vector: Environments side by side.
        seconds: That environments are stepped for.
        repeats: Timed calls, of which the median counts.
    """

    users: int = 6_040
    items: int = 3_706
    ratings_per_user: int = 165
    steps: int = 32
    tpgr_users: int = 62
    tpgr_episodes: int = 16
    features: int = 51
    bandit_users: int = 64
    batch: int = 2_048
    updates: int = 16
    state: int = 73
    hidden: tuple[int, ...] = (32, 16)
    factors: int = 64
    vector: int = 4_096
    seconds: float = 3.0
    repeats: int = 5


SMOKE = Sizes(
    users=40, items=50, ratings_per_user=20, tpgr_users=2, features=9, bandit_users=4, batch=64, updates=2, factors=8,
    vector=4, seconds=0.1, repeats=1,
)  # fmt: skip
"""Shows that it runs."""

Measure = Callable[[Sizes], dict[str, float]]
"""Returns rates by what was measured ("" where there is only one thing)."""


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Returns the median duration of a call, which is made once before to warm up."""
    call()
    durations = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def steps_per_second(reset: Callable[[], Any], step: Callable[[], bool], seconds: float) -> float:
    """Returns how often `step` is called in a second; where it says that the episode is over, `reset` is called too."""
    reset()
    step()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        if step():
            reset()
        steps += 1
    return steps / (time.perf_counter() - started)


def report(package: str, measure: Measure) -> None:
    """The command line of a peer's script: measures, and prints its version and its rates as JSON in the last line."""
    smoke, _ = arguments()
    print(json.dumps({"version": version(package), "rates": measure(SMOKE if smoke else Sizes())}))


def arguments() -> tuple[bool, Path | None]:
    """Returns whether the smallest sizes are asked for, and the folder of the peer's sources if given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--source", type=Path)
    options = parser.parse_args()
    return options.smoke, options.source

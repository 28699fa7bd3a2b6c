"""Speed of the environments for others' agents."""

from __future__ import annotations

import math

from harness.reports.benchmark import (
    Line,
)


def bench_gym(smoke: bool) -> list[Line]:
    """Steps of the environments for others' agents (`sim.gym`) per second, with random actions."""
    try:
        from sim.gym.speed import scanned_rate, single_rate, vector_rate
        from sim.gym.worlds import RATINGS, SESSIONS, make_world
    except ImportError as missing:
        return [Line("environments of Gymnasium", math.nan, "", note=str(missing))]
    size, numbers, seconds = ("tiny", (2,), 0.01) if smoke else ("movielens_1m", (1, 256, 4096), 5.0)
    log = {"data.size": "tiny", "data.num_users": 10, "data.num_items": 100} if smoke else {}
    worlds = {
        f"ratings ({size})": make_world(RATINGS, {"data.size": size}),
        "sessions (synthetic_funnel)": make_world(SESSIONS, log, horizon=50),
    }
    lines = []
    for name, world in worlds.items():
        lines.append(Line(f"{name}: gymnasium.make", single_rate(world, seconds), "1/s"))
        for number in numbers:
            rates = [vector_rate(world, number, seconds, masks) for masks in (True, False)]
            note = f"without masks {rates[1]:,.0f}"
            lines.append(Line(f"{name}: gymnasium.make_vec, num_envs={number}", rates[0], "1/s", note=note))
        scanned = scanned_rate(world, numbers[-1], 2 if smoke else 64, 1 if smoke else 5)
        lines.append(Line(f"{name}: gymnax view, {numbers[-1]:,} in one program", scanned, "1/s"))
    return lines

"""How time and memory grow with the catalogue."""

from __future__ import annotations

import math
import time

import numpy as np

from harness.reports.benchmark import (
    Line,
    alternating_seconds,
    measure_point,
    peak_memory,
)
from tpgr_jax.benchmark.parts import (
    MODULE,
    SMOKE_EPISODES,
    catalogue_problem,
    exponent_of,
    learning_from_as_many,
    method_runs,
    point_or_reason,
    seconds_in_turns,
    settings,
    tree_settings,
)
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering

QUICKER = ("agent.policy.value_rank=32", "agent.policy.beam=5", "agent.policy.hidden=[64]")
"""Settings of TPGR+ that decide faster and earn a little less (docs/performance.md)."""
_FLAT_LIMIT = 2**25  # decisions x items of a training step, beyond which the flat policy's logits take gigabytes


def catalogue_point(items: int, depth: int, episodes: int, repeats: int) -> dict[str, float]:
    """Times decisions and training steps over a catalogue; run in a process of its own. Depth 0 is DQN-R."""
    common = (
        f"train.episodes_per_step={episodes}",
        "agent.policy.embedding=random",
        "agent.policy.train_embedding=false",
        "devices.count=1",  # for every size, whatever is the default for it
    )
    if depth:
        config = tree_settings(f"tree.depth={depth}", *common)
    else:
        config = settings("agent=dqn_r", *learning_from_as_many(episodes), *common)
    problem = catalogue_problem(config, items)
    seconds = alternating_seconds(method_runs(config, problem), repeats)
    decisions = episodes * problem.env.episode_length
    return {
        "decision": seconds["decisions"] / decisions,
        "step": seconds["step"] / decisions,
        "memory": peak_memory(),
    }


def bench_catalogue(smoke: bool) -> list[Line]:
    """Seconds and memory from 10^3 to 10^7 items: DQN-R, the flat policy (depth 1), and depths 2 to 4."""
    lines = []
    sizes = (1_000,) if smoke else (10**3, 10**4, 10**5, 10**6, 10**7)
    for depth, kind in enumerate(("DQN-R",) if smoke else ("DQN-R", "flat", "depth 2", "depth 3", "depth 4")):
        measured = {}
        for items in sizes:
            most = SMOKE_EPISODES if smoke else 256
            episodes = most if depth > 1 else min(most, _FLAT_LIMIT // (32 * items) // 8 * 8)
            name = f"{kind}, {items:,} items"
            # A size that cannot be measured says why.
            if not episodes:
                lines.append(Line(name, math.nan, "", note="too slow and too large with an output per item"))
                continue
            sizes_of_point = {"items": items, "depth": depth, "episodes": episodes, "repeats": 1 if smoke else 3}
            point = point_or_reason(lines, name, catalogue_point, smoke, sizes_of_point)
            if point is None:
                continue
            # What it took.
            measured[items] = point
            note = f"{episodes} episodes; training step {point['step'] * 1e6:,.2f} us per decision"
            lines.append(Line(f"{name}: decision", point["decision"] * 1e6, "us", note=note))
            most_memory = {(10**6, depth): 2e9, (10**7, 3): 8e9}.get((items, depth)) if depth > 1 else None
            target = None if most_memory is None else most_memory / 2**30
            lines.append(Line(f"{name}: peak memory", point["memory"], "GiB", target))
        # How it grows with the number of items.
        for what in () if smoke else ("decision", "step"):
            exponent = exponent_of(measured, what, 10**4 if depth > 1 else 0)
            aim = "about 1" if depth < 2 else f"about 1/{depth} or less"
            target = 0.25 if (what, depth) == ("step", 3) else None
            lines.append(Line(f"{kind}: exponent of seconds per {what}", exponent, "", target, note=aim))
    return lines


def value_tree_point(items: int, depth: int, episodes: int, repeats: int) -> dict[str, float]:
    """Times TPGR+ over a catalogue, alone for its memory and then in turns with TPGR at the same depth."""
    common = (f"train.episodes_per_step={episodes}", f"tree.depth={depth}", "devices.count=1")
    plus = settings("agent=tpgr_plus", *common)
    problem = catalogue_problem(plus, items)
    runs = method_runs(plus, problem)
    alternating_seconds(runs, 1)
    marks = {"memory": peak_memory()}
    tpgr = tree_settings("agent.policy.embedding=random", "agent.policy.train_embedding=false", *common)
    beside = method_runs(tpgr, catalogue_problem(tpgr, items))
    quicker = {"decisions": method_runs(settings("agent=tpgr_plus", *QUICKER, *common), problem)["decisions"]}
    decisions = episodes * problem.env.episode_length
    seconds = seconds_in_turns({"plus": runs, "tpgr": beside, "quicker": quicker}, repeats)
    return marks | {f"{name}_{what}": value / decisions for (name, what), value in seconds.items()}


def bench_value_tree(smoke: bool) -> list[Line]:
    """TPGR+ beside TPGR: decisions and training steps at equal depth, from MovieLens-1M's catalogue to 10^6 items."""
    lines: list[Line] = []
    sizes = (1_000,) if smoke else (3_706, 10**4, 10**5, 10**6)
    for depth in (2,) if smoke else (2, 3):
        measured = {}
        for items in sizes:
            episodes = SMOKE_EPISODES if smoke else 1_024
            point_sizes = {"items": items, "depth": depth, "episodes": episodes, "repeats": 1 if smoke else 7}
            name = f"depth {depth}, {items:,} items"
            point = point_or_reason(lines, name, value_tree_point, smoke, point_sizes)
            if point is None:
                continue
            # What decisions and steps take, beside TPGR's.
            measured[items] = point
            ratio = point["plus_decisions"] / point["tpgr_decisions"]
            note = f"{episodes:,} episodes; TPGR {point['tpgr_decisions'] * 1e6:.2f} us"
            lines.append(Line(f"{name}: decision", point["plus_decisions"] * 1e6, "us", note=note))
            lines.append(Line(f"{name}: decision / TPGR's", ratio, "", 2))
            ratio = point["quicker_decisions"] / point["tpgr_decisions"]
            note = " ".join(word.removeprefix("agent.policy.") for word in QUICKER)
            lines.append(Line(f"{name}: with fewer numbers, decision / TPGR's", ratio, "", 2, note=note))
            note = f"TPGR {point['tpgr_step'] * 1e6:.2f} us"
            lines.append(Line(f"{name}: training step per decision", point["plus_step"] * 1e6, "us", note=note))
            lines.append(Line(f"{name}: peak memory", point["memory"], "GiB", 4.0 if items == 10**6 else None))
        # How they grow with the number of items.
        for agent in () if smoke else ("plus", "tpgr"):
            exponent = exponent_of(measured, f"{agent}_decisions", 10**4)
            name = f"depth {depth}: exponent of seconds per decision, {'TPGR+' if agent == 'plus' else 'TPGR'}"
            lines.append(Line(name, exponent, "", note=f"about 1/{depth} or less"))
    return lines


def tree_point(items: int, features: int, depth: int) -> dict[str, float]:
    """Times the building of a PCA tree over dense vectors."""
    vectors = np.random.default_rng(0).standard_normal((items, features), np.float32)
    started = time.perf_counter()
    build_tree(items, depth, make_clustering("pca", vectors, 0))
    return {"seconds": time.perf_counter() - started, "memory": peak_memory()}


def bench_tree(smoke: bool) -> list[Line]:
    """Building trees over 10^6 items with 64 numbers each."""
    items = 2_000 if smoke else 10**6
    lines = []
    for depth in (2, 3):
        point = measure_point(MODULE, tree_point, smoke, items=items, features=64, depth=depth)
        name = f"{items:,} items, PCA, 64 numbers each, depth {depth}"
        lines.append(Line(name, point["seconds"], "s", 300, note=f"peak {point['memory']:.1f} GiB"))
    return lines

"""The second paper at its own size: one training command on a generated log as large as Table 1's, stage by stage."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.reports.benchmark import Line
from hrlmg_jax.benchmark.parts import SHORT

_GIB = 2**30
_LARGEST_GIB = 12e9 / _GIB
_LONGEST_MINUTES = 60
AGENT = "hrl_mg"


def bench_paper_size(smoke: bool) -> list[Line]:
    """Trains once, nothing cached: seconds by stage, the largest resident size, and reward over popularity's."""
    size = (
        ["data.size=tiny", *SHORT, "train.steps=2", "agent.learner.warm_up_steps=1", "simulator.train.steps=4"]
        if smoke
        else ["simulator=paper", "data.size=large"]
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, "-m", "hrlmg_jax.train", f"agent={AGENT}", "retrieval=hash", *size]
        own_cache = {**os.environ, "TPGR_JAX_CACHE": str(Path(folder, "cache"))}
        started = time.perf_counter()
        finished = subprocess.run([*command, f"hydra.run.dir={run}"], env=own_cache, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if finished.returncode:
            raise UserError(f"{' '.join(command[2:])} failed:\n{finished.stderr[-2000:]}")
        record, online = (json.loads((run / name).read_text()) for name in ("run.json", "online.json"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / _GIB
    return paper_size_lines(record, online, seconds, peak)


def paper_size_lines(record: dict[str, Any], online: dict[str, Any], seconds: float, peak: float) -> list[Line]:
    """Returns what a run's records say.

    Args:
        record: Of `run.json`.
        online: Of `online.json`.
        seconds: Of the whole command.
        peak: Its largest resident size, GiB.
    """
    data, policies = record["data"], online["policies"]
    counts = f"{data['events']:,} samples, {data['items']:,} items, {data['users']:,} users"
    stages = [Line(stage, spent, "s") for stage, spent in record["seconds"].items() if stage != "total"]
    rewards = []
    for length in ("long", "short"):
        agent, popularity = (policies[name][f"{length}_reward"] for name in (AGENT, "popularity"))
        note = f"sessions of {online['protocol'][length]} in learned users: {agent:.4g} and {popularity:.4g}"
        rewards.append(
            Line(f"{AGENT} / popularity, {length} sessions", agent / popularity, "x", 1, at_most=False, note=note)
        )
    return [
        Line("the whole command", seconds / 60, "min", _LONGEST_MINUTES, note=counts),
        Line("largest resident size", peak, "GiB", _LARGEST_GIB),
        *stages,
        *rewards,
    ]

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
AGENT = "hrl_mg_memory"


def bench_paper_size(smoke: bool) -> list[Line]:
    """Trains once, nothing cached: seconds by stage, the largest resident size, and reward over popularity's."""
    short = ["data.size=tiny", *SHORT, "train.steps=2", "agent.learner.warm_up_steps=1", "simulator.train.steps=4"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [sys.executable, "-m", "hrlmg_jax.train", "+experiment=paper_size", *(short if smoke else [])]
        own_cache = {**os.environ, "TPGR_JAX_CACHE": str(Path(folder, "cache"))}
        started = time.perf_counter()
        folders = [f"hydra.run.dir={run}", f"simulator.root={folder}/simulators"]
        finished = subprocess.run([*command, *folders], env=own_cache, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if finished.returncode:
            raise UserError(f"{' '.join(command[2:])} failed:\n{finished.stderr[-2000:]}")
        files = ("run.json", "online.json", "online_truth.json")
        record, learned, true = (json.loads((run / name).read_text()) for name in files)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / _GIB
    return paper_size_lines(record, {"learned": learned, "true": true}, seconds, peak)


def paper_size_lines(record: dict[str, Any], tests: dict[str, Any], seconds: float, peak: float) -> list[Line]:
    """Returns what a run's records say.

    Args:
        record: Of `run.json`.
        tests: By the users who answered ("learned", "true"), the records of the online test.
        seconds: Of the whole command.
        peak: Its largest resident size, GiB.
    """
    data = record["data"]
    counts = f"{data['events']:,} samples, {data['items']:,} items, {data['users']:,} users"
    stages = [Line(stage, spent, "s") for stage, spent in record["seconds"].items() if stage != "total"]
    rewards = []
    for users, online in tests.items():
        for length in ("long", "short"):
            agent, popularity = (online["policies"][name][f"{length}_reward"] for name in (AGENT, "popularity"))
            name = f"{AGENT} / popularity, {length} sessions, {users} users"
            note = f"sessions of {online['protocol'][length]}: {agent:.4g} and {popularity:.4g}"
            rewards.append(Line(name, agent / popularity, "x", 1, at_most=False, note=note))
    return [
        Line("the whole command", seconds / 60, "min", _LONGEST_MINUTES, note=counts),
        Line("largest resident size", peak, "GiB", _LARGEST_GIB),
        *stages,
        *rewards,
    ]

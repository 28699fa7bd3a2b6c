"""Whole commands: from the start of a process to the first update or list; several seeds at once."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError
from harness.reports.benchmark import (
    Line,
)


def bench_start(smoke: bool) -> list[Line]:
    """From the start of the process to the first completed update, without and with cached programs and tables."""
    with tempfile.TemporaryDirectory() as folder:
        cold = _first_update(Path(folder), "cold", smoke)
        warm = math.nan if smoke else _first_update(Path(folder), "warm", smoke)
    imports = min(_import_seconds() for _ in range(1 if smoke else 5))
    data = "MovieLens-1M" if _has_movielens() and not smoke else "generated ratings of its shape"
    limits = (None, None, None) if smoke else (1.5, 12.0, 3.5)
    return [
        Line("import of the training command", imports, "s", limits[0], note="of a new process, files in memory"),
        Line("first update, nothing cached", cold, "s", limits[1], note=data),
        Line("first update, programs and ratings cached", warm, "s", limits[2], note=data),
    ]


def _import_seconds() -> float:
    """Returns how long a new process takes to start and import what training needs."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tpgr_jax.train"], check=True)
    return time.perf_counter() - started


def bench_seeds(smoke: bool) -> list[Line]:
    """Whole commands: seeds that train together in one program against as many single runs; programs cached."""
    seeds, steps = (2, 1) if smoke else (8, 10)
    with tempfile.TemporaryDirectory() as folder:

        def seconds(run: str, num_seeds: int) -> float:
            each = ("log", "evaluate", "checkpoint")
            overrides = [
                f"num_seeds={num_seeds}",
                f"train.steps={steps}",
                *(f"train.{name}_every={steps}" for name in each),
                *(("agent=popularity",) if smoke else ()),
            ]
            command, environment = _train_command(Path(folder), run, smoke, overrides)
            started = time.perf_counter()
            finished = subprocess.run(command, env=environment, capture_output=True, text=True)
            if finished.returncode:
                raise UserError(f"{' '.join(command[2:])} failed:\n{finished.stderr[-2000:]}")
            return time.perf_counter() - started

        # Only that the command works.
        if smoke:
            return [
                Line(f"{seeds} seeds together", seconds("group", seeds), "s", note="whole command, nothing to train")
            ]
        # Twice each: the first compiles.
        for run, number in (("first", 1), ("first_group", seeds)):
            seconds(run, number)
        single, together = seconds("single", 1), seconds("group", seeds)
    return [
        Line(f"one seed, {steps} steps, evaluation included", single, "s", note="whole command"),
        Line(f"{seeds} seeds together", together, "s", note="whole command"),
        Line(f"{seeds} seeds together / {seeds} single commands", together / (seeds * single), "", 1.0),
    ]


def _has_movielens() -> bool:
    return (Path(os.environ.get("TPGR_JAX_DATA", "")) / "ml-1m").is_dir()


def _train_command(folder: Path, run: str, smoke: bool, overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the command line of a training on MovieLens-1M (or its shape), and its environment (own cache)."""
    data = "data.size=tiny" if smoke else "data=movielens_1m" if _has_movielens() else "data.size=movielens_1m"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["TPGR_JAX_CACHE"] = str(folder / "cache")
    command = [sys.executable, "-m", "tpgr_jax.train", data, f"hydra.run.dir={folder / run}", *overrides]
    return command, environment


def _first_update(folder: Path, run: str, smoke: bool) -> float:
    command, environment = _train_command(folder, run, smoke, ["train.log_every=1"])
    metrics = folder / run / "metrics.jsonl"
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                return math.nan
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        process.send_signal(signal.SIGKILL)
    return seconds


def first_list(folder: Path) -> list[Line]:
    """Whole commands: a list for one user, programs cached."""
    run = folder / "run"
    command, environment = _train_command(folder, "run", False, ["train.steps=1"])
    asked = [sys.executable, "-m", "tpgr_jax.recommend", f"run={run}", "user=42", "k=10"]
    seconds = []
    for words in (command, asked, asked, asked):
        started = time.perf_counter()
        finished = subprocess.run(words, env=environment, capture_output=True, text=True)
        if finished.returncode:
            raise UserError(f"{' '.join(words[2:])} failed:\n{finished.stderr[-2000:]}")
        seconds.append(time.perf_counter() - started)
    data = "MovieLens-1M" if _has_movielens() else "generated ratings of its shape"
    name = "from the start of a process to its first list, programs cached"
    return [Line(name, min(seconds[2:]), "s", 5, note=f"python -m tpgr_jax.recommend, {data}")]

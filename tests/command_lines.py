"""What tests of real command lines share: reading a run folder without the project's code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def run_module(folder: Path, environment: dict[str, str], module: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs `python -m MODULE ARGUMENTS` in a folder and returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


def metrics_without_times(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key not in ("seconds", "episodes_per_second")} for row in rows]


def assert_same_metrics(folder: Path, other: Path, tolerance: float) -> None:
    """Compares the rows of two runs, numbers to a relative tolerance."""
    for row, other_row in zip(metrics_without_times(folder), metrics_without_times(other), strict=True):
        assert row.keys() == other_row.keys()
        assert row["data"] == other_row["data"]
        numbers, others = ({key: found[key] for key in found if key != "data"} for found in (row, other_row))
        assert numbers == pytest.approx(others, rel=tolerance, abs=tolerance)


def parameters(folder: Path, step: int) -> list[np.ndarray]:
    """All arrays of a checkpoint, read without our code."""
    import jax
    import orbax.checkpoint as ocp

    restored = ocp.StandardCheckpointer().restore((folder / "checkpoints" / str(step) / "state").absolute())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored)]


def checkpoint_steps(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]


def assert_one_message(finished: subprocess.CompletedProcess, *parts: str) -> None:
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("error: ") == 1
    for part in parts:
        assert part in finished.stderr

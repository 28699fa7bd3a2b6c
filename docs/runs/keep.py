"""Copies what reports read of finished runs, some 100 KB of each.

    python docs/runs/keep.py SOURCE TARGET

Kept are configuration, provenance, results and their values per episode, and the rows of metrics with an evaluation.
Not kept: checkpoints, what was recommended to whom, and where folders are on this machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder, read_arrays, read_json, write_arrays, write_atomically, write_json

_RESULTS = ("eval*", "online*", "offline*")
_EVALUATED = ("test_reward", "selection_reward", "validation_reward")


def without_places(content: Any) -> Any:
    """Returns nested values with the names of absolute paths in place of them."""
    if isinstance(content, dict):
        return {key: without_places(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_places(value) for value in content]
    return Path(content).name if isinstance(content, str) and content.startswith("/") else content


def per_episode(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with one number for each episode, fractions with seven digits."""
    kept = {name: array for name, array in arrays.items() if array.ndim == 1}
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in kept.items()}


def keep(run: Path, target: Path) -> None:
    """Copies one run."""
    target.mkdir(parents=True, exist_ok=True)
    RunFolder(target).write_config(without_places(RunFolder(run).read_config()))
    for path in run.glob("*.json"):
        write_json(target / path.name, without_places(read_json(path)))
    for path in [path for name in _RESULTS for path in run.glob(f"{name}.npz")]:
        write_arrays(target / path.name, per_episode(read_arrays(path, None)))
    if (run / "metrics.jsonl").exists():
        rows = read_rows(run / "metrics.jsonl")
        evaluated = [row for row in rows if any(key in row for key in _EVALUATED)]
        text = "".join(json.dumps(row) + "\n" for row in evaluated)
        write_atomically(target / "metrics.jsonl", lambda path: path.write_text(text))


def main() -> None:
    """Copies every run below a folder that has results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder with runs, at any depth")
    parser.add_argument("target", type=Path, help="where to keep them")
    arguments = parser.parse_args()
    results = [path for name in _RESULTS for path in arguments.source.rglob(f"{name}.json")]
    runs = sorted({path.parent for path in results if RunFolder(path.parent).config.is_file()})
    for run in runs:
        keep(run, arguments.target / run.relative_to(arguments.source))
    print(f"{len(runs)} runs kept in {arguments.target}")


if __name__ == "__main__":
    main()

"""Run folders made by hand: what a run leaves behind, with results that the test chooses."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from harness.composition import composed_values
from harness.run_folder import RunFolder, write_arrays, write_json

METRICS = ("reward", "precision", "recall", "f1")


@functools.cache
def _default_values() -> dict[str, Any]:
    return composed_values("train", ["+experiment=movielens"])


def make_run(
    folder: Path,
    rewards: list[float] | None = None,
    settings: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    best_list: list[float] | None = None,
    name: str = "movielens_1m",
    checksum: str = "sha256:aa",
    synthetic: bool = False,
    step: int = 1000,
    checkpoint: int | None = None,
) -> Path:
    """Writes a run folder.

    Args:
        folder: Of the run.
        rewards: Of the test users; None makes an unfinished run. Precision is a tenth, recall a hundredth, F1 a
            thousandth of it.
        settings: Changes of the configuration of `+experiment=movielens`, keys in dots.
        rows: Of metrics.jsonl.
        best_list: Rewards of the best fixed list; 2 for every user if None.
        name: Of the data set.
        checksum: Of the data.
        synthetic: Whether they are generated.
        step: Of the evaluation.
        checkpoint: Step of the newest checkpoint; None makes none.
    """
    values = OmegaConf.create(copy.deepcopy(_default_values()))
    values.data.name = name
    for key, value in (settings or {}).items():
        OmegaConf.update(values, key, value)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.start(OmegaConf.to_container(values))
    data = {"name": name, "synthetic": synthetic, "checksum": checksum, "users": 10, "items": 20, "ratings": 30}
    write_json(run.provenance, {"data": data})
    if checkpoint is not None:
        (run.checkpoints / str(checkpoint)).mkdir(parents=True)
    if rows is not None:
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rewards is not None:
        scales = dict(zip(METRICS, (1, 10, 100, 1000), strict=True))
        best = np.full(len(rewards), 2.0) if best_list is None else np.array(best_list)
        arrays = {"user": np.arange(len(rewards))}
        for metric, scale in scales.items():
            arrays[metric] = np.array(rewards, float) / scale
            arrays[f"best_fixed_list_{metric}"] = best / scale
            arrays[f"random_{metric}"] = np.linspace(0, 0.1, len(rewards)) / scale
        write_arrays(folder / "eval.npz", arrays)
        write_json(folder / "eval.json", {"data": data, "step": step, "policies": {}})
    return folder

"""Run folders made by hand: what a run leaves behind, with results that the test chooses."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder, write_arrays, write_json

METRICS = ("reward", "precision", "recall", "f1")


@functools.cache
def _default_values(name: str, *overrides: str) -> dict[str, Any]:
    return composed_values(name, overrides)


def _begin(
    folder: Path,
    values: dict[str, Any],
    settings: dict[str, Any] | None,
    data: dict[str, Any],
    rows: list[dict[str, Any]] | None,
    checkpoint: int | None,
) -> None:
    """Writes what a run has before its evaluation."""
    changed = OmegaConf.create(copy.deepcopy(values))
    changed.data.name = data["name"]
    for key, value in (settings or {}).items():
        OmegaConf.update(changed, key, value)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.start(OmegaConf.to_container(changed))
    write_json(run.provenance, {"data": data})
    if checkpoint is not None:
        (run.checkpoints / str(checkpoint)).mkdir(parents=True)
    if rows is not None:
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(
    folder: Path,
    rewards: list[float] | None = None,
    settings: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    best_list: list[float] | None = None,
    first_user: int = 0,
    name: str = "movielens_1m",
    checksum: str = "sha256:aa",
    table: str | None = "sha256:cc",
    synthetic: bool = False,
    step: int = 1000,
    checkpoint: int | None = None,
    lists: dict[str, Any] | None = None,
) -> Path:
    """Writes a run folder.

    Args:
        folder: Of the run.
        rewards: Of the test users; None makes an unfinished run. Precision is a tenth, recall a hundredth, F1 a
            thousandth of it.
        settings: Changes of the configuration of `+experiment=movielens`, keys in dots.
        rows: Of metrics.jsonl.
        best_list: Rewards of the best fixed list; 2 for every user if None.
        first_user: Id of the first test user; those of the others follow.
        name: Of the data set.
        checksum: Of the data.
        table: Hash of the table built from them; None: not recorded.
        synthetic: Whether they are generated.
        step: Of the evaluation.
        checkpoint: Step of the newest checkpoint; None makes none.
        lists: What lists are like by policy, the run's own first (`sim.evaluation.list_metrics`); None: not recorded.
    """
    data = {"name": name, "synthetic": synthetic, "checksum": checksum, "users": 10, "items": 20, "ratings": 30}
    data |= {} if table is None else {"table": table}
    _begin(folder, _default_values("train", "+experiment=movielens"), settings, data, rows, checkpoint)
    if rewards is not None:
        scales = dict(zip(METRICS, (1, 10, 100, 1000), strict=True))
        best = np.full(len(rewards), 2.0) if best_list is None else np.array(best_list)
        arrays = {"user": first_user + np.arange(len(rewards))}
        for metric, scale in scales.items():
            arrays[metric] = np.array(rewards, float) / scale
            arrays[f"best_fixed_list_{metric}"] = best / scale
            arrays[f"random_{metric}"] = np.linspace(0, 0.1, len(rewards)) / scale
        write_arrays(folder / "eval.npz", arrays)
        policies = {"own": {metric: float(arrays[metric].mean()) for metric in METRICS}}
        header = {"data": data, "step": step} | ({} if lists is None else {"lists": lists})
        write_json(folder / "eval.json", {**header, "policies": policies})
    return folder


def list_facts(number: float, **changes: Any) -> dict[str, Any]:
    """Returns what a policy's lists are like, everything in units of a number, with changes."""
    names = ("coverage", "gini", "novelty", "intra_list_distance", "distinct_lists_per_100", "most_common_list")
    facts: dict[str, Any] = {name: number * place for place, name in enumerate(names, 1)}
    facts["reward_by_activity"] = {"least": number, "middle": 2 * number, "most": 3 * number}
    thirds = {"head": (0.5, number), "middle": (0.5, 2 * number), "tail": (0.0, None)}
    facts["by_popularity"] = {name: {"share": share, "reward": reward} for name, (share, reward) in thirds.items()}
    return facts | changes


SESSION_SCALES = {"reward": 1.0, "clicks": 0.5, "orders": 0.1}
"""What a session's clicks and orders are, in units of its reward, in folders of `make_session_run`."""
OFFLINE_SCALES = {"map": 0.01, "ndcg20": 0.02, "ndcg40": 0.03}


def make_session_run(
    folder: Path,
    rewards: list[float] | None = None,
    settings: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    baselines: dict[str, list[float]] | None = None,
    truth: list[float] | None = None,
    offline: bool = True,
    name: str = "synthetic_funnel",
    checksum: str = "sha256:aa",
    table: str | None = "sha256:cc",
    synthetic: bool = True,
    synthetic_skips: bool = False,
    order_proxy: str = "",
    step: int = 1000,
    checkpoint: int | None = None,
    lists: dict[str, Any] | None = None,
) -> Path:
    """Writes a run folder of HRL-MG.

    Args:
        folder: Of the run.
        rewards: Of long test sessions; a tenth in short ones. None makes an unfinished run. The other metrics follow
            from them: `SESSION_SCALES`, `OFFLINE_SCALES`.
        settings: Changes of the default configuration, keys in dots.
        rows: Of metrics.jsonl.
        baselines: Rewards of long sessions by policy; 2 for popularity if None.
        truth: Rewards with the generator's own users; None leaves that test out.
        offline: Whether the run's method ranks logged sessions.
        name: Of the data set.
        checksum: Of the data.
        table: Hash of the table built from them; None: not recorded.
        synthetic: Whether they are generated.
        synthetic_skips: Whether their skips are.
        order_proxy: What stands in for orders.
        step: Of the evaluation.
        checkpoint: Step of the newest checkpoint; None makes none.
        lists: What lists are like by policy, the run's own first (`sim.evaluation.list_metrics`); None: not recorded.
    """
    kinds = {"synthetic": synthetic, "synthetic_skips": synthetic_skips, "order_proxy": order_proxy}
    data = {"name": name, **kinds, "checksum": checksum, **({} if table is None else {"table": table})}
    _begin(folder, _default_values("train_hrl_mg"), settings, data, rows, checkpoint)
    for file, own in (("online", rewards), ("online_truth", truth)):
        if own is not None:
            others = {"popularity": [2.0] * len(own)} if baselines is None else baselines
            arrays = {"row": np.arange(len(own)) * 10, "items": np.zeros((len(own), 3), int)}
            for prefix, values in (("", own), *((f"{policy}_", values) for policy, values in others.items())):
                for metric, scale in SESSION_SCALES.items():
                    for length, share in (("long", 1.0), ("short", 0.1)):
                        arrays[f"{prefix}{length}_{metric}"] = np.array(values, float) * scale * share
            write_arrays(folder / f"{file}.npz", arrays)
            policies = {"own": {"long_reward": float(np.mean(own))}}
            header = {"data": data, "step": step} | ({} if lists is None else {"lists": lists})
            write_json(folder / f"{file}.json", {**header, "policies": policies})
    if rewards is not None:
        others = {"popularity": [2.0] * len(rewards)} if baselines is None else baselines
        ranking = [
            *([("", rewards)] if offline else []),
            *((f"{policy}_", values) for policy, values in others.items()),
        ]
        arrays = {"row": np.arange(len(rewards)) * 7}
        for prefix, values in ranking:
            arrays |= {f"{prefix}{metric}": np.array(values) * scale for metric, scale in OFFLINE_SCALES.items()}
        write_arrays(folder / "offline.npz", arrays)
    return folder

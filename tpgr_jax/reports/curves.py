"""Learning curves of all runs, the seeds of a configuration together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from harness.errors import UserError
from harness.reports.learning_curves import (
    curve,
    curves_table,
    plot_learning_curves,
    point_estimate,
    read_curves,
    seed_of,
)
from harness.reports.system_results import RunsConfig, grouped, title_of
from harness.reports.tables import markdown_table
from harness.runs.index import RunRecord, Status, newest_of_each_seed
from tpgr_jax.reports import results as tpgr

METRICS = {"test_reward": "reward, test users", "reward": "reward, training episodes"}
"""What is drawn: names in metrics.jsonl, and their labels."""


@dataclass(frozen=True, kw_only=True)
class CurvesConfig(RunsConfig):
    """Which runs to draw (`conf/report/curves.yaml`)."""

    over: Literal["episodes", "step", "seconds"] = "episodes"


def group_runs(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Returns runs that are equal but for seed and fold by label, the newest one of each."""
    return {
        method.label: newest_of_each_seed(method.runs, "metrics.jsonl", [], [tpgr.FOLD])
        for method in tpgr.SYSTEM.methods(runs)
    }


def report_curves(config: CurvesConfig) -> None:
    """Prints and writes `curves.md`, `.csv` and `.png`; unfinished runs are drawn as far as they came.

    Raises:
        UserError: No runs with metrics, runs on different data or simulators, or files that cannot be read or written.
    """
    # Runs and their curves.
    found = tpgr.comparable_runs(config)
    runs = [run for run in found.runs if run.folder.metrics.exists()]
    if not runs:
        raise _nothing_to_draw(found.runs)
    groups = group_runs(runs)
    several_folds = any(len({_fold(run) for run in alike}) > 1 for alike in groups.values())
    over = "folds" if several_folds else "seeds"
    curves = read_curves(groups, list(METRICS), _fold if several_folds else seed_of)
    # The picture.
    title = f"{title_of('Learning curves', runs)}, 95 % interval over {over}"
    references = dict.fromkeys(METRICS, _references(found.runs))
    plot_learning_curves(Path(config.out) / "curves.png", title, curves, METRICS, config.over, references)
    # The table: the last and the best evaluation of each label.
    heads = ["runs", "seeds", "last evaluation: step", "reward, test users", "best: step", "reward, test users"]
    rows = []
    for label, alike in groups.items():
        points = curve(curves, "test_reward", label)
        row = [label, " ".join(map(str, sorted({run.settings["seed"] for run in alike})))]
        for one in (points.tail(1), points.filter(pl.col("mean") == points["mean"].max()).head(1)):
            row += [str(one["step"][0]), str(point_estimate(one))] if len(one) else ["", ""]
        rows.append(row)
    lines = [
        f"Means over {'folds and ' if several_folds else ''}seeds with 95 % t-intervals over {over}, where there is "
        "more than one. The best step was chosen by "
        "the test users' own rewards: read it as a description, not as a result.",
        "",
        *markdown_table(heads, rows),
    ]
    tpgr.SYSTEM.write(config, title, found, lines, curves_table(curves, over), ["curves.png"])


def _nothing_to_draw(runs: Sequence[RunRecord]) -> UserError:
    """Returns why there are no curves: nothing trains, or nothing has got so far."""
    names = ", ".join(sorted({str(run.settings.get("agent.name")) for run in runs}))
    if all(run.status is Status.FINISHED for run in runs):
        do = "python -m tpgr_jax.report table2 shows what they reached."
        return UserError(f"no run there has a learning curve: {names} learn without training steps", do=do)
    listed = ", ".join(f"{run.folder.path} ({run.status})" for run in runs[:3])
    do = "Wait for the first log point of one that runs; resume=FOLDER continues one that does not."
    return UserError(f"no run there has metrics yet: {listed}", do=do)


def _fold(run: RunRecord) -> int | None:
    return run.settings.get(tpgr.FOLD)


def _references(runs: Sequence[RunRecord]) -> dict[str, float]:
    """Returns what lists and chance get from the test users, at each alpha."""
    collected = tpgr.SYSTEM.read(tpgr.SYSTEM.methods(runs), tpgr.TEST)
    by_alpha = grouped(collected.results, lambda result: tpgr.alpha_of(result.runs[0]))
    return {
        f"{label}, alpha {alpha:g}" if len(by_alpha) > 1 else label: mean
        for alpha, results in sorted(by_alpha.items())
        for label, mean in tpgr.baselines(tpgr.with_most_users(results)).items()
    }

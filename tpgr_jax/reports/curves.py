"""Learning curves of all runs, the seeds of a configuration together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.reports.learning_curves import (
    CURVE_HEADS,
    CurvePoint,
    curve_rows,
    learning_curve,
    plot_learning_curves,
)
from harness.reports.tables import Cell, Table, markdown_list, markdown_table, markdown_text, write_report
from harness.runs.index import RunRecord, RunsFound, group_by_settings, label_of, newest_of_each_seed
from tpgr_jax.reports.results import (
    SPLIT_SEED,
    comparable_runs,
    describe_unfinished,
    is_synthetic,
    method_label,
    without_effect,
)

METRICS = {"test_reward": "reward, test users", "reward": "reward, training episodes"}
"""What is drawn: names in metrics.jsonl, and their labels."""


@dataclass(frozen=True)
class CurvesConfig:
    """Which runs to draw (`conf/report/curves.yaml`)."""

    report: Literal["curves"]
    runs: list[str] | None
    data_name: str | None
    over: Literal["episodes", "step", "seconds"]
    out: str
    several_splits: bool = False


def group_runs(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Returns runs that are equal but for their seed by label, the newest one of each seed."""
    groups = {}
    for method in sorted({method_label(run) for run in runs}):
        own = [run for run in runs if method_label(run) == method]
        for group in group_by_settings(own, without_effect):
            kept, _ = newest_of_each_seed(group.runs, "metrics.jsonl", SPLIT_SEED)
            groups[label_of(method, group.distinction)] = kept
    return groups


def report_curves(config: CurvesConfig) -> None:
    """Prints and writes `curves.md`, `.csv` and `.png`; unfinished runs are drawn as far as they came.

    Raises:
        UserError: No runs with metrics, runs on different data or simulators, or files that cannot be read or written.
    """
    found = comparable_runs(config.runs, config.data_name, config.several_splits)
    runs = [run for run in found.runs if run.folder.metrics.exists()]
    if not runs:
        raise UserError("no run has metrics yet", do="Wait for the first log point of a run.")
    groups = group_runs(runs)
    curves = {
        metric: {label: curve for label, own in groups.items() if (curve := learning_curve(own, metric))}
        for metric in METRICS
    }
    title = f"Learning curves: {runs[0].data_name}{' (SYNTHETIC)' if is_synthetic(runs) else ''}"
    folder = Path(config.out)
    panels = {METRICS[metric]: curves[metric] for metric in METRICS}
    plot_learning_curves(folder / "curves.png", title, panels, config.over)
    write_report(folder, "curves", _lines(title, found, groups, curves), _table(runs, curves), ["curves.png"])


def _lines(
    title: str,
    found: RunsFound,
    groups: Mapping[str, Sequence[RunRecord]],
    curves: Mapping[str, Mapping[str, Sequence[CurvePoint]]],
) -> list[str]:
    heads = ["runs", "seeds", "last evaluation: step", "reward, test users", "best: step", "reward, test users"]
    rows = []
    for label, own in groups.items():
        curve = curves["test_reward"].get(label, [])
        best = max(curve, key=lambda point: point.value.mean, default=None)
        seeds = " ".join(str(run.settings["seed"]) for run in own)
        last = [str(curve[-1].step), str(curve[-1].value)] if curve else ["", ""]
        rows.append([label, seeds, *last, *([str(best.step), str(best.value)] if best else ["", ""])])
    lines = [
        f"# {markdown_text(title)}",
        "",
        "Means over seeds with 95 % t-intervals over seeds, where there is more than one. The best step was chosen by "
        "the test users' own rewards: read it as a description, not as a result.",
        "",
        *markdown_table(heads, rows),
    ]
    if unfinished := describe_unfinished(found):
        lines += ["", "## Incomplete runs", "", *markdown_list(unfinished)]
    return lines


def _table(runs: Sequence[RunRecord], curves: Mapping[str, Mapping[str, Sequence[CurvePoint]]]) -> Table:
    of_data: list[Cell] = [runs[0].data_name, is_synthetic(runs)]
    rows = [
        [*of_data, *row]
        for metric, by_label in curves.items()
        for label, curve in by_label.items()
        for row in curve_rows(metric, label, curve)
    ]
    return Table(["data", "synthetic", *CURVE_HEADS], rows)

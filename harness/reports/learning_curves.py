"""Learning curves of runs that are equal but for their seed: mean and interval over seeds (or folds) at log points."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.reports.plots import Points, PointsPanel, plot_points
from harness.reports.results import Estimate, estimate
from harness.reports.tables import Table
from harness.runs.index import RunRecord
from harness.runs.metric_writer import read_rows

EPISODES, STEP, SECONDS = "episodes", "step", "seconds"
_NUMBERS = ["runs", "metric", STEP, EPISODES, SECONDS, "mean", "low", "high", "seeds"]


def seed_of(run: RunRecord) -> Hashable:
    """Returns the seed of a run, the unit of intervals where nothing else is."""
    return int(run.settings["seed"])


def read_curves(
    runs: Mapping[str, Sequence[RunRecord]], metrics: Sequence[str], unit: Callable[[RunRecord], Hashable] = seed_of
) -> pl.DataFrame:
    """Returns a row per label of runs, metric and step: means over the runs that came this far.

    Where runs that are equal but for their seed have points at different steps (evaluations at equal seconds have),
    each has the line between its points at the steps of the others, and only steps that half of them cover are kept.

    Args:
        runs: By label, runs that are equal but for their seed.
        metrics: Names in metrics.jsonl.
        unit: What intervals are over: runs of one unit are one value, their mean.

    Returns:
        Columns `runs` (the label), `metric`, `step`, `episodes` (played until then), `seconds` (of training until then,
        a mean over the runs: without the first compilation, evaluation and checkpoints; seeds that train in
        one program have its time each; NaN where the rows have none), `mean`, `low` and `high` (95 % interval over
        units; none for a single one), `seeds` (number of units) and `values` (of each unit). Labels and metrics keep
        their order, steps ascend.

    Raises:
        UserError: The rows are damaged.
    """
    rows = []
    for label, alike in runs.items():
        read = [(unit(run), read_rows(run.folder.metrics)) for run in alike if run.folder.metrics.exists()]
        for metric in metrics:
            curves = [(of, _points(logged, metric)) for of, logged in read]
            for step, by_unit in _at_common_steps([(of, points) for of, points in curves if len(points)]):
                episodes, seconds, values = np.asarray(by_unit).T
                estimated = estimate(values)
                about = (label, metric, step, round(float(np.mean(episodes))), float(np.mean(seconds)))
                rows.append((*about, *estimated, len(values), values.tolist()))
    names: dict[str, Any] = {"runs": pl.Enum(list(runs)), "metric": pl.Enum(list(metrics))}  # they sort as given here
    numbers: dict[str, Any] = {STEP: pl.Int64, EPISODES: pl.Int64, SECONDS: pl.Float64}
    estimates: dict[str, Any] = dict.fromkeys(Estimate._fields, pl.Float64)
    columns = {**names, **numbers, **estimates, "seeds": pl.Int64, "values": pl.List(pl.Float64)}
    return pl.DataFrame(rows, columns, orient="row").sort("metric", "runs", STEP)


def _points(rows: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    """Returns [n, 4] step, episodes, seconds and value of a run's rows that have the metric; steps ascend."""
    has = [row for row in rows if metric in row and EPISODES in row]
    points = [(row[STEP], row[EPISODES], row.get(SECONDS, math.nan), row[metric]) for row in has]
    found = np.asarray(points, np.float64).reshape(-1, 4)
    return found[np.unique(found[:, 0], return_index=True)[1]]


def _at_common_steps(runs: Sequence[tuple[Hashable, np.ndarray]]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yields steps with what each unit has there: [3] episodes, seconds and value, the mean over its runs.

    Args:
        runs: Units, and [n, 4] points of their runs (`_points`).
    """
    if not runs:
        return
    steps = np.unique(np.concatenate([points[:, 0] for _, points in runs]))
    alike = all(np.array_equal(points[:, 0], steps[: len(points)]) for _, points in runs)
    least = 1 if alike else len(runs) / 2
    covers = np.array([(points[0, 0] <= steps) & (steps <= points[-1, 0]) for _, points in runs])
    between = [np.stack([np.interp(steps, points[:, 0], column) for column in points.T[1:]], 1) for _, points in runs]
    for place in np.flatnonzero(covers.sum(0) >= least):
        by_unit: dict[Hashable, list[np.ndarray]] = {}
        for (of, _), covered, values in zip(runs, covers[:, place], between, strict=True):
            if covered:
                by_unit.setdefault(of, []).append(values[place])
        yield int(steps[place]), [np.mean(found, 0) for found in by_unit.values()]


def curve(curves: pl.DataFrame, metric: str, label: str | None = None) -> pl.DataFrame:
    """Returns the points of a metric, of all runs or of those with a label."""
    return curves.filter(pl.col("metric") == metric, pl.lit(True) if label is None else pl.col("runs") == label)


def point_estimate(curves: pl.DataFrame, row: int = 0) -> Estimate:
    """Returns the estimate in a row of `read_curves`."""
    return Estimate(*curves.select(Estimate._fields).row(row))


def plot_learning_curves(
    path: Path,
    title: str,
    curves: pl.DataFrame,
    panels: Mapping[str, str],
    over: str = EPISODES,
    references: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Draws curves with their intervals as bands.

    Args:
        path: PNG to write.
        curves: See `read_curves`.
        panels: Labels of vertical axes by metric, from top to bottom.
        over: What the horizontal axis shows, `EPISODES`, `STEP` or `SECONDS`.
        references: By metric, values of horizontal lines by label.
    """
    drawn = []
    for metric, head in panels.items():
        lines = []
        for (label,), points in curve(curves, metric).group_by("runs", maintain_order=True):
            estimates = [point_estimate(points, row) for row in range(len(points))]
            lines.append(Points(str(label), points[over].to_list(), estimates))
        drawn.append(PointsPanel(head, lines, (references or {}).get(metric, {})))
    plot_points(path, title, "seconds of training" if over == SECONDS else over, drawn, bands=True)


def curves_table(curves: pl.DataFrame, over: str = "seeds") -> Table:
    """Returns the numbers of curves for a CSV; `over` is what their intervals are over."""
    heads = [
        f"{name}_over_{over}" if name in ("low", "high") else over if name == "seeds" else name for name in _NUMBERS
    ]
    return Table(heads, curves.select(_NUMBERS).rows())

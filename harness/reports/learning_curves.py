"""Learning curves of runs that are equal but for their seed: mean and interval over seeds (or folds) at log points."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
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
    # One long table: a row per run, metric and log point.
    long = []
    for label, alike in runs.items():
        for run in alike:
            for row in read_rows(run.folder.metrics) if run.folder.metrics.exists() else []:
                about = (label, repr(unit(run)), row.get(STEP), row.get(EPISODES), row.get(SECONDS, math.nan))
                long += [(*about, metric, row[metric]) for metric in metrics if metric in row and EPISODES in row]
    names: dict[str, Any] = {"runs": pl.Enum(list(runs)), "metric": pl.Enum(list(metrics))}  # they sort as given here
    numbers: dict[str, Any] = {STEP: pl.Int64, EPISODES: pl.Int64, SECONDS: pl.Float64}
    columns = {"runs": names["runs"], "unit": pl.String, **numbers, "metric": names["metric"], "value": pl.Float64}
    table = pl.DataFrame(long, columns, orient="row")
    # Means within units, then means and intervals over them.
    of_units = table.group_by("runs", "metric", STEP, "unit", maintain_order=True).agg(
        pl.col(EPISODES).first(), pl.col(SECONDS, "value").mean()
    )
    by_point = of_units.group_by("runs", "metric", STEP, maintain_order=True)
    points = by_point.agg(pl.col(EPISODES).first(), SECONDS, "value")
    rows = []
    for label, metric, step, episodes, seconds, values in points.iter_rows():
        estimated = estimate(np.array(values))
        rows.append((label, metric, step, episodes, statistics.fmean(seconds), *estimated, len(values), values))
    estimates: dict[str, Any] = dict.fromkeys(Estimate._fields, pl.Float64)
    columns = {**names, **numbers, **estimates, "seeds": pl.Int64, "values": pl.List(pl.Float64)}
    return pl.DataFrame(rows, columns, orient="row").sort("metric", "runs", STEP)


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

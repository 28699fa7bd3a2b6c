"""Learning curves of runs that are equal but for their seed: mean and interval over seeds at every log point."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.reports.plots import Points, plot_points
from harness.reports.results import Estimate, estimate
from harness.reports.tables import Cell
from harness.runs.index import RunRecord
from harness.runs.metric_writer import read_rows

EPISODES, STEP, SECONDS = "episodes", "step", "seconds"
"""What a curve can be drawn over: attributes of its points."""


@dataclass(frozen=True)
class CurvePoint:
    """A metric at a training step.

    Attributes:
        step: Training steps done.
        episodes: Episodes played until then.
        seconds: Of training until then, a mean over the runs: without the first compilation, fitting, evaluation and
            checkpoints. Seeds that train in one program have its time each; NaN where the rows have none.
        values: [S] values of the runs that came this far.
    """

    step: int
    episodes: float
    seconds: float
    values: np.ndarray

    @property
    def value(self) -> Estimate:
        """Mean over seeds with its interval; without one for a single seed."""
        return estimate(self.values)

    @property
    def seeds(self) -> int:
        """Number of runs that came this far."""
        return len(self.values)


def learning_curve(runs: Sequence[RunRecord], metric: str) -> list[CurvePoint]:
    """Returns the points of a metric, ascending by step, over the runs that have it there.

    Args:
        runs: Equal but for their seed.
        metric: Its name in metrics.jsonl.

    Raises:
        UserError: The rows are damaged.
    """
    values: dict[int, list[tuple[float, float, float]]] = {}
    for run in runs:
        rows = read_rows(run.folder.metrics) if run.folder.metrics.exists() else []
        for row in rows:
            if metric in row and EPISODES in row:
                found = row[EPISODES], row.get(SECONDS, math.nan), row[metric]
                values.setdefault(row[STEP], []).append(found)
    points = []
    for step, rows_there in sorted(values.items()):
        episodes, seconds, reached = zip(*rows_there, strict=True)
        points.append(CurvePoint(step, episodes[0], statistics.fmean(seconds), np.array(reached)))
    return points


def plot_learning_curves(
    path: Path,
    title: str,
    panels: Mapping[str, Mapping[str, Sequence[CurvePoint]]],
    over: str = EPISODES,
) -> None:
    """Draws curves with their intervals as bands.

    Args:
        path: PNG to write.
        title: Of the picture.
        panels: By label of the vertical axis, the curves by label.
        over: What the horizontal axis shows, `EPISODES`, `STEP` or `SECONDS`.
    """
    drawn = {
        label: [
            Points(name, [getattr(point, over) for point in curve], [point.value for point in curve])
            for name, curve in curves.items()
        ]
        for label, curves in panels.items()
    }
    plot_points(path, title, "seconds of training" if over == SECONDS else over, drawn, bands=True)


def curve_rows(metric: str, label: str, curve: Sequence[CurvePoint]) -> list[list[Cell]]:
    """Returns rows for a CSV with the heads `CURVE_HEADS`."""
    return [[label, metric, point.step, point.episodes, point.seconds, *point.value, point.seeds] for point in curve]


CURVE_HEADS = ("runs", "metric", "step", "episodes", "seconds", "mean", "low", "high", "seeds")
"""Of `curve_rows`."""

"""Learning curves of runs that are equal but for their seed: mean and interval over seeds at every log point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.metric_writer import read_rows
from harness.plots import Points, plot_points
from harness.results import Estimate, estimate
from harness.run_index import RunRecord
from harness.tables import Cell


@dataclass(frozen=True)
class CurvePoint:
    """A metric at a training step.

    Attributes:
        step: Training steps done.
        episodes: Episodes played until then.
        values: [S] values of the runs that came this far.
    """

    step: int
    episodes: float
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
    values: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        rows = read_rows(run.folder.metrics) if run.folder.metrics.exists() else []
        for row in rows:
            if metric in row and "episodes" in row:
                values.setdefault(row["step"], []).append((row["episodes"], row[metric]))
    return [
        CurvePoint(step, found[0][0], np.array([value for _, value in found])) for step, found in sorted(values.items())
    ]


def plot_learning_curves(
    path: Path,
    title: str,
    panels: Mapping[str, Mapping[str, Sequence[CurvePoint]]],
    over: Literal["episodes", "step"] = "episodes",
) -> None:
    """Draws curves with their intervals as bands.

    Args:
        path: PNG to write.
        title: Of the picture.
        panels: By label of the vertical axis, the curves by label.
        over: What the horizontal axis shows.
    """
    drawn = {
        label: [
            Points(name, [getattr(point, over) for point in curve], [point.value for point in curve])
            for name, curve in curves.items()
        ]
        for label, curves in panels.items()
    }
    plot_points(path, title, over, drawn, bands=True)


def curve_rows(metric: str, label: str, curve: Sequence[CurvePoint]) -> list[list[Cell]]:
    """Returns rows for a CSV with the heads `CURVE_HEADS`."""
    return [[label, metric, point.step, point.episodes, *point.value, point.seeds] for point in curve]


CURVE_HEADS = ("runs", "metric", "step", "episodes", "mean", "low", "high", "seeds")
"""Of `curve_rows`."""

"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.run_folder import write_atomically


class Curve(NamedTuple):
    """One line: its name in metrics.jsonl, its label, and matplotlib's style."""

    name: str
    label: str
    style: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Panel(NamedTuple):
    """One picture of several curves, with horizontal lines at the values of `references`; relative `height`."""

    label: str
    curves: Sequence[Curve]
    references: Mapping[str, float] = {}
    height: float = 1.0


def plot_curves(path: Path, rows: Sequence[dict[str, Any]], title: str, x: str, panels: Sequence[Panel]) -> None:
    """Draws metrics of a run against one of them, in panels above each other.

    Args:
        path: PNG to write.
        rows: Rows of metrics.jsonl; a curve consists of the rows that have its name.
        title: Of the picture.
        x: Name of the metric on the horizontal axis.
        panels: From top to bottom.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [panel.height for panel in panels]
    figure = Figure(figsize=(7, 2 * sum(heights)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        for curve in panel.curves:
            points = [(row[x], row[curve.name]) for row in rows if curve.name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=curve.label, **curve.style)
        for number, (name, value) in enumerate(panel.references.items(), len(panel.curves)):
            axes.axhline(value, linestyle="--", linewidth=1, color=f"C{number}", label=name)
        axes.set(ylabel=panel.label)
        if axes.lines:
            axes.legend(fontsize="small")
    all_axes[0].set(title=title)
    all_axes[-1].set(xlabel=x)
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))


def plot_reliability(path: Path, curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """Draws observed against predicted probabilities on logarithmic axes.

    Args:
        path: PNG to write.
        curves: By label, "predicted" and "observed" means of bins; bins without an event are left out.
        title: Of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    low = 1.0
    for label, curve in curves.items():
        points = [point for point in zip(curve["predicted"], curve["observed"], strict=True) if min(point) > 0]
        low = min([low, *(min(point) for point in points)])
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label)
    axes.plot([low, 1], [low, 1], linestyle="--", color="black", linewidth=1, label="perfect")
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="predicted probability", ylabel="observed rate", title=title)
    axes.legend(fontsize="small")
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))

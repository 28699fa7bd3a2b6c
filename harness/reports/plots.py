"""Pictures of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.reports.results import Estimate
from harness.reports.tables import printable
from harness.runs.run_folder import write_atomically


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
    all_axes[0].set(title=_in_lines(title))
    all_axes[-1].set(xlabel=x)
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))


def _in_lines(title: str) -> str:
    """Returns a title in lines that fit above a single panel."""
    return textwrap.fill(title, 60)


class Bars(NamedTuple):
    """One picture of horizontal bars with intervals, by label from top to bottom; vertical lines at `references`."""

    title: str
    bars: Mapping[str, Estimate]
    references: Mapping[str, float] = {}


class Points(NamedTuple):
    """Estimates along a horizontal axis; `color` is matplotlib's."""

    label: str
    x: Sequence[float]
    estimates: Sequence[Estimate]
    color: str | None = None


_LINE_STYLES = ("-", "--", "-.", ":")


def literal(text: str) -> str:
    """Returns text that matplotlib shows as it is, instead of reading formulas in it."""
    return printable(text).replace("$", r"\$")


def plot_bars(path: Path, title: str, x: str, panels: Sequence[Bars], same_scale: bool = True) -> None:
    """Draws bars with intervals, in panels above each other.

    Args:
        path: PNG to write.
        title: Of the picture.
        x: What the bars measure.
        panels: From top to bottom.
        same_scale: Whether all panels measure the same.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [1.0 + len(panel.bars) for panel in panels]
    figure = Figure(figsize=(8, 1.0 + 0.3 * sum(heights)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=same_scale, height_ratios=heights, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        labels = [literal(label) for label in panel.bars]
        places = np.arange(len(labels))
        estimates = list(panel.bars.values())
        axes.barh(places, [found.mean for found in estimates], xerr=_margins(estimates), capsize=2, color="C0")
        axes.set_yticks(places, labels, fontsize="small")
        axes.invert_yaxis()
        for number, (name, value) in enumerate(panel.references.items(), 1):
            axes.axvline(value, linestyle="--", linewidth=1, color=f"C{number}", label=literal(name))
        if panel.references:
            axes.legend(fontsize="small")
        axes.set_title(literal(panel.title), fontsize="medium")
    figure.suptitle(literal(title))
    all_axes[-1].set(xlabel=literal(x))
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))


def plot_points(path: Path, title: str, x: str, panels: Mapping[str, Sequence[Points]], bands: bool = False) -> None:
    """Draws estimates with their intervals, in panels above each other.

    Args:
        path: PNG to write.
        title: Of the picture.
        x: Label of the horizontal axis.
        panels: By label of the vertical axis, from top to bottom.
        bands: Whether intervals are drawn as bands, which suit many points, or as error bars with a tick at each point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.0 + 3.5 * len(panels)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    names = list(dict.fromkeys(line.label for lines in panels.values() for line in lines))
    drawn = {}
    for axes, (label, lines) in zip(all_axes, panels.items(), strict=True):
        for line in lines:
            means = [found.mean for found in line.estimates]
            number = names.index(line.label)  # a line looks the same in all panels
            style = {
                "color": line.color or f"C{number % 10}",
                "linestyle": _LINE_STYLES[number // 10 % 4],
                "marker": ".",
            }
            if bands:
                low, high = ([getattr(found, end) for found in line.estimates] for end in ("low", "high"))
                axes.fill_between(line.x, low, high, alpha=0.2, linewidth=0, color=style["color"])
                (drawn[line.label],) = axes.plot(line.x, means, **style)
            else:
                drawn[line.label] = axes.errorbar(line.x, means, yerr=_margins(line.estimates), capsize=2, **style)
        axes.set(ylabel=literal(label))
    if labels := [name for name in names if name]:
        handles = [drawn[name] for name in labels]
        figure.legend(handles, [literal(name) for name in labels], loc="outside lower center", fontsize="small")
    if not bands:
        all_axes[-1].set_xticks(sorted({x for lines in panels.values() for line in lines for x in line.x}))
    figure.suptitle(literal(title))
    all_axes[-1].set(xlabel=literal(x))
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))


def _margins(estimates: Sequence[Estimate]) -> np.ndarray:
    """Returns [2, n] distances from the mean to both ends of the interval."""
    return np.array([[found.mean - found.low, found.high - found.mean] for found in estimates]).T.reshape(2, -1)


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
    axes.set(xlabel="predicted probability", ylabel="observed rate", title=_in_lines(title))
    axes.legend(fontsize="small")
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))

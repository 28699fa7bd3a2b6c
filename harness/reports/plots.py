"""Pictures of runs: curves of one, bars and points of several, the reliability of probabilities."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.reports.results import Estimate
from harness.reports.tables import printable
from harness.runs.run_folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE_STYLES = ("-", "--", "-.", ":")


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


class PointsPanel(NamedTuple):
    """One picture of several lines of points.

    Attributes:
        label: Of the vertical axis.
        lines: In order.
        references: Values of horizontal lines by label.
        limits: Of the vertical axis; None lets it begin at 0, so that differences are not exaggerated.
    """

    label: str
    lines: Sequence[Points]
    references: Mapping[str, float] = {}
    limits: tuple[float, float] | None = None


class Scatter(NamedTuple):
    """Points of one variable: numbers, on a logarithmic axis if `log`, or text."""

    label: str
    x: Sequence[float | str]
    y: Sequence[float]
    log: bool = False


def plot_curves(path: Path, rows: Sequence[dict[str, Any]], title: str, x: str, panels: Sequence[Panel]) -> None:
    """Draws metrics of a run against one of them, in panels above each other.

    Args:
        path: PNG to write.
        rows: Rows of metrics.jsonl; a curve consists of the rows that have its name.
        x: Name of the metric on the horizontal axis.
        panels: From top to bottom.
    """
    heights = [panel.height for panel in panels]
    with _figure(path, title, x, (7, 2 * sum(heights)), heights) as all_axes:
        for axes, panel in zip(all_axes, panels, strict=True):
            for curve in panel.curves:
                points = [(row[x], row[curve.name]) for row in rows if curve.name in row]
                if points:
                    axes.plot(*zip(*points, strict=True), label=curve.label, **curve.style)
            _draw_references(axes.axhline, panel.references, len(panel.curves))
            axes.set(ylabel=panel.label)
            if axes.lines:
                _begin_at_zero(axes)
                axes.legend(fontsize="small")


def plot_bars(path: Path, title: str, x: str, panels: Sequence[Bars], same_scale: bool = True) -> None:
    """Draws bars with intervals, in panels above each other.

    Args:
        path: PNG to write.
        x: What the bars measure.
        panels: From top to bottom.
        same_scale: Whether all panels measure the same.
    """
    heights = [1.0 + len(panel.bars) for panel in panels]
    with _figure(path, title, x, (8, 1.0 + 0.3 * sum(heights)), heights, sharex=same_scale) as all_axes:
        for axes, panel in zip(all_axes, panels, strict=True):
            positions, estimates = np.arange(len(panel.bars)), list(panel.bars.values())
            axes.barh(positions, [one.mean for one in estimates], xerr=_margins(estimates), capsize=2, color="C0")
            axes.set_yticks(positions, [literal(label) for label in panel.bars], fontsize="small")
            axes.invert_yaxis()
            _draw_references(axes.axvline, panel.references, 1)
            if panel.references:
                axes.legend(fontsize="small")
            axes.set_title(literal(panel.title), fontsize="medium")


def plot_points(path: Path, title: str, x: str, panels: Sequence[PointsPanel], bands: bool = False) -> None:
    """Draws estimates with their intervals, in panels above each other.

    Args:
        path: PNG to write.
        x: Label of the horizontal axis.
        panels: From top to bottom.
        bands: Whether intervals are drawn as bands, which suit many points, or as error bars with a tick at each point.
    """
    names = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    references = list(dict.fromkeys(name for panel in panels for name in panel.references))
    drawn: dict[str, Any] = {}
    with _figure(path, title, x, (8, 1.0 + 3.5 * len(panels)), [1.0] * len(panels)) as all_axes:
        for axes, panel in zip(all_axes, panels, strict=True):
            # Lines; one looks the same in all panels.
            for line in panel.lines:
                number, means = names.index(line.label), [one.mean for one in line.estimates]
                color, style = line.color or f"C{number % 10}", _LINE_STYLES[number // 10 % 4]
                if bands:
                    low, high = ([getattr(one, end) for one in line.estimates] for end in ("low", "high"))
                    axes.fill_between(line.x, low, high, alpha=0.2, linewidth=0, color=color)
                margins = None if bands else _margins(line.estimates)
                drawn[line.label] = axes.errorbar(
                    line.x, means, yerr=margins, capsize=2, color=color, linestyle=style, marker="."
                )
            # Baselines, and an axis that does not exaggerate differences.
            drawn |= _draw_references(axes.axhline, panel.references, 7)
            axes.set(ylabel=literal(panel.label))
            if panel.limits:
                axes.set_ylim(panel.limits)
            elif axes.lines:
                _begin_at_zero(axes)
        if labels := [name for name in (*names, *references) if name]:
            figure = all_axes[0].figure
            handles = [drawn[name] for name in labels]
            figure.legend(handles, [literal(name) for name in labels], loc="outside lower center", fontsize="small")
        if not bands:
            all_axes[-1].set_xticks(sorted({x for panel in panels for line in panel.lines for x in line.x}))


def plot_scatter(path: Path, title: str, y: str, panels: Sequence[Scatter]) -> None:
    """Draws one quantity against several others, in panels above each other.

    Args:
        path: PNG to write.
        y: Label of the vertical axes.
        panels: From top to bottom.
    """
    size = (7, 1.0 + 2.2 * len(panels))
    with _figure(path, title, "", size, [1.0] * len(panels), sharex=False) as all_axes:
        for axes, panel in zip(all_axes, panels, strict=True):
            axes.scatter(panel.x, panel.y, s=16)
            if panel.log:
                axes.set_xscale("log")
            axes.set_title(literal(panel.label), fontsize="medium")
            axes.set(ylabel=literal(y))


def plot_reliability(path: Path, curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """Draws observed against predicted probabilities on logarithmic axes.

    Args:
        path: PNG to write.
        curves: By label, "predicted" and "observed" means of bins; bins without an event are left out.
    """
    with _figure(path, title, "predicted probability", (6, 6), [1.0]) as (axes,):
        low = 1.0
        for label, curve in curves.items():
            points = [point for point in zip(curve["predicted"], curve["observed"], strict=True) if min(point) > 0]
            low = min([low, *(min(point) for point in points)])
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label)
        axes.plot([low, 1], [low, 1], linestyle="--", color="black", linewidth=1, label="perfect")
        axes.set(xscale="log", yscale="log", ylabel="observed rate")
        axes.legend(fontsize="small")


def literal(text: str) -> str:
    """Returns text that matplotlib shows as it is, instead of reading formulas in it."""
    return printable(text).replace("$", r"\$")


@contextmanager
def _figure(
    path: Path, title: str, x: str, size: tuple[float, float], heights: Sequence[float], sharex: bool = True
) -> Iterator[list[Axes]]:
    """Yields axes above each other, to be drawn on, and writes the picture (PNG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(heights), 1, sharex=sharex, height_ratios=heights, squeeze=False)[:, 0]
    figure.suptitle("\n".join(literal(line) for line in textwrap.wrap(title, 60)))
    yield list(all_axes)
    all_axes[-1].set(xlabel=literal(x))
    write_atomically(path, lambda temporary: canvas.print_figure(temporary, dpi=120))


def _draw_references(draw: Any, references: Mapping[str, float], first_color: int) -> dict[str, Any]:
    return {
        name: draw(value, linestyle="--", linewidth=1, color=f"C{number % 10}", label=literal(name))
        for number, (name, value) in enumerate(references.items(), first_color)
    }


def _begin_at_zero(axes: Axes) -> None:
    """Lets the vertical axis hold 0, so that differences look as large as they are."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 0.0))


def _margins(estimates: Sequence[Estimate]) -> np.ndarray:
    """Returns [2, n] distances from the mean to both ends of the interval."""
    return np.array([[one.mean - one.low, one.high - one.mean] for one in estimates]).T.reshape(2, -1)

"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.run_folder import write_atomically


def plot_learning_curve(
    path: Path, rows: Sequence[dict[str, Any]], title: str, references: dict[str, float] | None = None
) -> None:
    """Draws reward on training episodes and on test users, and the entropy per level, against episodes.

    Args:
        path: PNG to write.
        rows: Rows of metrics.jsonl.
        title: Of the picture.
        references: Rewards of other policies on the same test users, drawn as horizontal lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    reward_axes, entropy_axes = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])

    def draw(axes: Any, name: str, label: str, **style: Any) -> None:
        points = [(row["episodes"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)

    draw(reward_axes, "reward", "training episodes (sampled)", alpha=0.5)
    draw(reward_axes, "test_reward", "test users (greedy)", marker=".")
    for number, (name, value) in enumerate((references or {}).items()):
        reward_axes.axhline(value, linestyle="--", linewidth=1, color=f"C{number + 2}", label=name)
    reward_axes.set(ylabel="reward per recommendation", title=title)
    reward_axes.legend(fontsize="small")
    for name in sorted({name for row in rows for name in row if name.startswith("entropy_")}):
        draw(entropy_axes, name, f"level {name.removeprefix('entropy_')}")
    entropy_axes.set(xlabel="training episodes", ylabel="entropy (nats)")
    if entropy_axes.lines:
        entropy_axes.legend(fontsize="small")
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

"""A list of runs for people: what each is, how far it came and what it reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.metric_writer import read_rows
from harness.run_index import RunRecord, RunsFound
from harness.tables import printable
from sim.errors import UserError

HEADS = ("folder", "method", "data", "alpha", "seed", "status", "step", "newest", "best (step)", "seconds")


def describe_runs(found: RunsFound, name_of: Callable[[RunRecord], str], metric: str) -> list[str]:
    """Returns an aligned table with one line per run, then the folders that could not be read.

    Args:
        found: All runs.
        name_of: The method of a run.
        metric: Its newest and best value are shown; a name in metrics.jsonl.
    """
    rows = [[printable(cell) for cell in _row(run, name_of(run), metric)] for run in found.runs]
    widths = [max(len(row[column]) for row in (HEADS, *rows)) for column in range(len(HEADS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (HEADS, *rows)
    ]
    return [*lines, *(f"not readable: {printable(message)}" for message in found.unreadable)]


def _row(run: RunRecord, name: str, metric: str) -> Sequence[str]:
    settings = run.settings
    kind = " (SYNTHETIC)" if run.data.get("synthetic") else ""
    rows = _readable_rows(run)
    values = [(row[metric], row["step"]) for row in rows if metric in row]
    best = max(values, default=None)
    return (
        str(run.folder.path),
        name,
        f"{run.data_name}{kind}",
        f"{settings['env.alpha']:g}" if "env.alpha" in settings else "",
        str(settings.get("seed", "")),
        str(run.status),
        f"{rows[-1]['step'] if rows else run.step}/{settings.get('train.steps', '?')}",
        f"{values[-1][0]:.4f}" if values else "",
        f"{best[0]:.4f} ({best[1]})" if best else "",
        f"{rows[-1]['seconds']:,.0f}" if rows and "seconds" in rows[-1] else "",
    )


def _readable_rows(run: RunRecord) -> Sequence[dict]:
    """Returns the rows of a run's metrics; none where they are damaged, which must not hide the other runs."""
    try:
        return read_rows(run.folder.metrics) if run.folder.metrics.exists() else []
    except UserError:
        return []

"""A list of runs for people: what each is, how far it came and what it reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import UserError
from harness.reports.tables import kind_of, printable
from harness.runs.composition import shell_command
from harness.runs.index import RunRecord, RunsFound, Status, searched
from harness.runs.metric_writer import read_rows


@dataclass(frozen=True)
class RunListConfig:
    """Which runs to list (`conf/report/runs.yaml`)."""

    report: Literal["runs"]
    runs: list[str] | None


def list_runs(
    config: RunListConfig,
    find: Callable[[Sequence[str] | None], RunsFound],
    columns: Mapping[str, Callable[[RunRecord], str]],
    metric: str,
) -> None:
    """Prints all runs of a system with their status and results.

    Args:
        config: Which runs.
        find: Finds the system's runs below folders.
        columns: See `describe_runs`.
        metric: See `describe_runs`.

    Raises:
        UserError: A folder that was named does not exist, or there are no runs.
    """
    found = find(config.runs)
    if not found.runs and not found.unreadable:
        raise UserError(f"no runs below {searched(config.runs)}")
    print("\n".join(describe_runs(found, columns, metric)))


def describe_runs(found: RunsFound, columns: Mapping[str, Callable[[RunRecord], str]], metric: str) -> list[str]:
    """Returns an aligned table with one line per run, then the folders that could not be read.

    Args:
        found: All runs.
        columns: What is shown of a run besides its data, seed and progress, by head; the method comes first.
        metric: Its newest and best value are shown; a name in metrics.jsonl.
    """
    method, *more = columns
    heads = ("folder", method, "data", *more, "seed", "status", "step", "newest", "best (step)", "seconds")
    rows = [[printable(cell) for cell in _row(run, [of(run) for of in columns.values()], metric)] for run in found.runs]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    ]
    return [*lines, *(f"not readable: {printable(message)}" for message in found.unreadable)]


def describe_unfinished(found: RunsFound, module: str, name_of: Callable[[RunRecord], str]) -> list[str]:
    """Says which runs have no result that could be used, and how to continue them.

    Args:
        found: All runs.
        module: The command that continues a run.
        name_of: What a run is, but for its seed.
    """
    texts = []
    for run in found.runs:
        if run.status is not Status.FINISHED:
            then = shell_command(module, [f"resume={run.folder.path}"])
            then = "" if run.status is Status.RUNNING else f"; continue with: {then}"
            texts.append(f"{run.folder.path} ({name_of(run)}, seed {run.settings['seed']}): {run.status}{then}")
    return [*texts, *found.unreadable]


def _row(run: RunRecord, shown: Sequence[str], metric: str) -> Sequence[str]:
    settings = run.settings
    rows = _readable_rows(run)
    values = [(row[metric], row["step"]) for row in rows if metric in row]
    best = max(values, default=None)
    return (
        str(run.folder.path),
        shown[0],
        f"{run.data_name}{kind_of(run.data)}",
        *shown[1:],
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

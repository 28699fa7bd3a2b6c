"""A list of runs: what each is, how far it got and what it reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.reports.system_results import System
from harness.reports.tables import Table, kind_of, markdown_list, markdown_table, printable, write_report
from harness.runs.index import RunRecord, RunsFound, Status, searched
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import read_json


@dataclass(frozen=True)
class RunListConfig:
    """Which runs to list, and where to write the list, if anywhere (`conf/report/runs.yaml`)."""

    report: Literal["runs"]
    runs: list[str] | None
    out: str | None = None


def list_runs(config: RunListConfig, find: Callable[[Sequence[str] | None], RunsFound], system: System) -> None:
    """Prints all runs of a system with their status and results; writes them to `runs.md` and `.csv` if asked to.

    Raises:
        UserError: A folder that was named does not exist, there are no runs, or the folder cannot be written.
    """
    found = find(config.runs)
    if not found.runs and not found.unreadable:
        raise UserError(f"no runs below {searched(config.runs)}")
    heads, rows = run_table(found, system)
    if config.out is None:
        print("\n".join([*aligned(heads, rows), *(f"not readable: {printable(text)}" for text in found.unreadable)]))
        return
    unreadable = ["", "## Not readable", "", *markdown_list(found.unreadable)] if found.unreadable else []
    lines = ["# Runs", "", *markdown_table(heads, rows), *unreadable]
    write_report(Path(config.out), "runs", lines, Table(heads, rows))


def run_table(found: RunsFound, system: System) -> tuple[list[str], list[list[str]]]:
    """Returns heads and rows of a table with one row per run."""
    training = [system.metric, "best (step)", "seconds"]
    heads = [
        "folder",
        "method",
        "data",
        *system.columns,
        "seed",
        "status",
        "step",
        *training,
        f"tested: {system.tested}",
    ]
    return heads, [_row(run, system) for run in found.runs]


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in columns of equal width."""
    cells = [[printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _row(run: RunRecord, system: System) -> list[str]:
    settings, rows = run.settings, _readable_rows(run)
    values = [(row[system.metric], row["step"]) for row in rows if system.metric in row]
    best = max(values, default=None)
    # A method that is only fitted has its result without a training step.
    trains = bool(rows) or bool(run.step) or run.status is not Status.FINISHED
    return [
        str(run.folder.path),
        system.label(run),
        f"{run.data_name}{kind_of(run.data)}",
        *(of(run) for of in system.columns.values()),
        str(settings.get("seed", "")),
        str(run.status),
        f"{rows[-1]['step'] if rows else run.step}/{settings.get('train.steps', '?')}" if trains else "no training",
        f"{values[-1][0]:.4f}" if values else "-",
        f"{best[0]:.4f} ({best[1]})" if best else "-",
        f"{rows[-1]['seconds']:,.0f}" if rows and "seconds" in rows[-1] else "-",
        _tested(run, system),
    ]


def _tested(run: RunRecord, system: System) -> str:
    """Returns the result of a run's own policy in the test that it ended with."""
    try:
        policies = list(read_json(run.folder.path / system.result)["policies"].values())
        return f"{policies[0][system.tested]:.4f}"
    except (UserError, IndexError, KeyError, TypeError, AttributeError, ValueError):
        return "-"  # not there yet, or damaged, which must not hide the other runs


def _readable_rows(run: RunRecord) -> Sequence[dict]:
    """Returns the rows of a run's metrics; none where they are damaged, which must not hide the other runs."""
    try:
        return read_rows(run.folder.metrics) if run.folder.metrics.exists() else []
    except UserError:
        return []

"""What a report leaves behind: the same table for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.run_folder import write_atomically
from harness.tables import Cell, csv_text


class Table(NamedTuple):
    """Columns and rows of a CSV."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def write_report(folder: Path, name: str, lines: Sequence[str], table: Table, pictures: Sequence[str] = ()) -> None:
    """Prints Markdown and writes it to `NAME.md`, with the numbers in `NAME.csv`; says what was written.

    Args:
        folder: Created if need be.
        name: Of the report.
        lines: Markdown.
        table: The numbers, unrounded.
        pictures: Names of files that were written there before.

    Raises:
        UserError: The folder cannot be written.
    """
    text = "\n".join(lines) + "\n"
    write_atomically(folder / f"{name}.md", lambda path: path.write_text(text, "utf-8"))
    csv = csv_text(table.heads, table.rows)
    write_atomically(folder / f"{name}.csv", lambda path: path.write_text(csv, "utf-8"))
    print(text)
    print(f"written to {folder}: {', '.join([f'{name}.md', f'{name}.csv', *pictures])}")

"""Tables for people (Markdown) and programs (CSV), in which text from data sets stays text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.runs.run_folder import write_atomically

Cell = str | int | float | None
"""None is an empty cell."""

_MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]>&|#]|<(?! ))")
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Returns text on one line, without control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def markdown_text(text: str) -> str:
    """Returns text as Markdown that shows just this text, also within a table."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", printable(text))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table; texts are escaped."""
    head, *body = ([markdown_text(cell) for cell in row] for row in (heads, *rows))
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]


def markdown_list(texts: Sequence[str]) -> list[str]:
    """Returns the lines of a Markdown list; texts are escaped."""
    return [f"* {markdown_text(text)}" for text in texts]


def csv_text(heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Returns CSV (RFC 4180 with plain line ends); no text is a formula to a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_csv_cell(head) for head in heads])
    writer.writerows([[_csv_cell(cell) for cell in row] for row in rows])
    return out.getvalue()


def _csv_cell(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if cell.startswith(_FORMULA_SIGNS) or text.startswith(_FORMULA_SIGNS) else text


def kind_of(data: Mapping[str, Any]) -> str:
    """Returns what must be said beside a log's name: that it, its skips, its orders or its answers are not real.

    Args:
        data: `synthetic`, `synthetic_skips`, `order_proxy` and `feedback_proxy`, as in the files of a run; what is
            missing is not so.
    """
    proxy, ratings = data.get("order_proxy"), data.get("feedback_proxy")
    facts = {
        "SYNTHETIC": data.get("synthetic"),
        "SAMPLED SKIPS": data.get("synthetic_skips"),
        f"ORDERS ARE A PROXY: {proxy}": proxy,
        f"RATINGS STAND IN FOR ANSWERS: {ratings}": ratings,
    }
    kinds = [word for word, so in facts.items() if so]
    return f" ({', '.join(kinds)})" if kinds else ""


class Table(NamedTuple):
    """Columns and rows of a CSV."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def write_report(folder: Path, name: str, lines: Sequence[str], table: Table, pictures: Sequence[str] = ()) -> None:
    """Prints Markdown and writes it to `NAME.md`, with the numbers in `NAME.csv`; says what was written.

    Args:
        folder: Created if need be.
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

"""Tables for people (Markdown) and programs (CSV), in which text from data sets stays text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

Cell = str | int | float | None
"""None is an empty cell."""

_MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]<>&|#])")
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

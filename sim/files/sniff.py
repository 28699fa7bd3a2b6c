"""The head of a table whose layout is not known: how it is written, told by what is in it."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.errors import UserError
from sim.files.rows import Rows
from sim.files.tables import read_tables
from sim.formats.chunks import read_chunks, read_text
from sim.formats.delimited import names_in_header
from sim.formats.json_records import has_lines, is_json, scan
from sim.formats.json_rows import fields_of
from sim.formats.json_table import sample_of_lines
from sim.formats.nested_fields import Fields
from sim.formats.packing import is_parquet
from sim.formats.parquet import fields_of_types, try_parquet, unpacked_parquet
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import BLANKS, TextFormat

if TYPE_CHECKING:
    import polars as pl

HEAD_ROWS = 1000
_HEAD_BYTES = 1 << 19
_SEPARATORS = ("\t", "::", ";", ",", "|", " ", "\x01")
_MOST_COLUMNS = 10_000
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_DATE = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}.*")


@dataclass(frozen=True)
class Head:
    """The first rows of a table.

    Attributes:
        names: The columns.
        rows: At most `HEAD_ROWS` rows; strings from a text file. Of JSON and Parquet only the columns that are wanted.
        text: How the file is written, if it is text; `header` holds names only if the file has none.
        has_names: Whether the columns have names of their own.
        lines: The lines of a text file that these rows stand on, in UTF-8, with the line of names.
    """

    names: list[str]
    rows: Rows
    text: TextFormat
    has_names: bool
    lines: bytes

    def renamed(self, names: Sequence[str]) -> Head:
        """Returns the same with other names of a table that has none of its own."""
        rows = replace(self.rows, frame=self.rows.frame.rename(dict(zip(self.names, names, strict=True))))
        return replace(self, names=list(names), rows=rows, text=replace(self.text, header=list(names)))


def read_head(source: Source, text: TextFormat, limits: SizeLimits, wanted: Callable[[list[str]], list[str]]) -> Head:
    """Reads the head of a table.

    Args:
        source: The file.
        text: What is known of how it is written; the rest is told by the file.
        limits: Limits on the size of unpacked files.
        wanted: Which of some columns are wanted.

    Raises:
        UserError: The file cannot be read, or is no table.
    """
    import polars as pl

    # Parquet and JSON name their fields.
    if is_parquet(source, limits):
        with unpacked_parquet(source, limits) as path:
            try_parquet({path: str(source)}, [])
            fields = fields_of_types(pl.read_parquet_schema(path))
        return _head_of_objects(source, text, limits, fields, wanted, b"")
    beginning = next(read_text(source, limits, text.encoding, _HEAD_BYTES), b"")
    if is_json(beginning):
        if has_lines(beginning):
            whole = beginning.split(b"\n")[:-1][:HEAD_ROWS] or [beginning]
            lines = b"".join(line + b"\n" for line in whole)
            return _head_of_objects(source, text, limits, sample_of_lines(beginning), wanted, lines)
        values = scan(read_text(source, limits, text.encoding, _HEAD_BYTES), source)
        fields = fields_of([value for _, value in itertools.islice(values, HEAD_ROWS)])
        return _head_of_objects(source, text, limits, fields, wanted, b"")
    # Of other text, the separator and the names are to be told.
    first, text = _first_lines(source, text, limits)
    if found := re.match(r'"?sep=(.)"?\n', first):  # as Excel writes it
        first, text = first[found.end() :], replace(text, separator=text.separator or found[1])
    records = _records(first, text)
    separator = text.separator or _separator_of(records, source)
    table = [_split(record, separator) for record in records]
    width = len(table[0])
    table = [row for row in table if len(row) == width]
    has_names = not text.header and _is_header(table[0], table[1:])
    names = list(text.header) or (names_in_header(table[0]) if has_names else [])
    names += [f"column_{number}" for number in range(len(names) + 1, width + 1)]
    if len(set(names)) != width:
        raise UserError("its first line names a column twice", where=str(source), do="Rename one of them.")
    text = replace(text, separator=separator, header=[] if has_names else names)
    rows = Rows(_frame(names, table[has_names:]), source, 1 + has_names)
    return Head(names, rows, text, has_names, "".join(f"{record}\n" for record in records).encode())


def _head_of_objects(
    source: Source,
    text: TextFormat,
    limits: SizeLimits,
    fields: Fields,
    wanted: Callable[[list[str]], list[str]],
    lines: bytes,
) -> Head:
    """Returns the head of a file whose rows are objects; the objects of lists in them may be the rows."""
    names = [name for name, inside in fields.fields.items() if not inside.is_list and not inside.fields]
    for way in fields.lists():
        names += [name for name in fields.at(way).names() if name not in names]
    rows = next(read_tables([source], wanted(names), limits, text))
    return Head(names, replace(rows, frame=rows.frame.head(HEAD_ROWS)), text, True, lines)


def _first_lines(source: Source, text: TextFormat, limits: SizeLimits) -> tuple[str, TextFormat]:
    """Returns the first lines, and how they are written with the encoding if it is not UTF-8."""
    try:
        return _decoded(source, text, limits), text
    except UnicodeDecodeError:
        # Windows-1252 is latin-1 with more letters, but a few bytes mean nothing in it.
        for encoding in ("cp1252", "latin-1"):
            found = replace(text, encoding=encoding)
            try:
                return _decoded(source, found, limits), found
            except (UnicodeDecodeError, UserError):
                continue
        raise


def _decoded(source: Source, text: TextFormat, limits: SizeLimits) -> str:
    chunk = next(read_chunks(source, limits, _HEAD_BYTES, text.encoding))
    return chunk.data.decode("utf-8")


def _records(lines: str, text: TextFormat) -> list[str]:
    """Returns the first records as text; a quoted value may hold line breaks."""
    records, current = [], ""
    for line in lines.removesuffix("\n").split("\n"):
        if not current and text.comment and line.startswith(text.comment):
            continue
        current = f"{current}\n{line}" if current else line
        if current.count('"') % 2 == 0 or current.count("\n") > 50:
            records.append(current)
            current = ""
        if len(records) > HEAD_ROWS:
            break
    return records or [current]


def _separator_of(records: Sequence[str], source: Source) -> str:
    """Returns the separator that gives (nearly) all records the same number of fields; of several, of the most."""
    best, most = "", 1
    for separator in _SEPARATORS:
        widths = [len(_split(record, separator)) for record in records[:100]]
        width = widths[0]
        if most < width < _MOST_COLUMNS and widths.count(width) >= 0.98 * len(widths):
            best, most = separator, width
    if not best:
        raise UserError(
            "is no table that could be told: no separator gives its first lines the same number of fields",
            where=str(source),
            do="If it is one, set data.separator.",
        )
    return best


def _split(record: str, separator: str) -> list[str]:
    if separator == BLANKS:
        return record.split()
    if len(separator) > 1 or '"' not in record:
        return record.split(separator)
    try:
        return next(csv.reader([record], delimiter=separator))
    except csv.Error:
        return record.split(separator)


def _is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Returns whether a first row holds names: none looks like a number or a date, and none occurs below."""
    if any(not name.strip() or is_number(name) or _DATE.fullmatch(name) for name in first[1:]) or is_number(first[0]):
        return False
    return all(name not in {row[index] for row in others} for index, name in enumerate(first))


def is_number(text: str) -> bool:
    """Returns whether a text is written as a number."""
    return _NUMBER.fullmatch(text) is not None


def _frame(names: Sequence[str], table: Sequence[Sequence[str]]) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(list(table), schema=dict.fromkeys(names, pl.String), orient="row")

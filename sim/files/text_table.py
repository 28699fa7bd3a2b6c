"""Text tables, one row per line: a fast path over chunks, a careful path over lines.

Every text parser has two paths. The fast path parses a whole chunk of lines and gives up (returns None) if anything is
unusual. The careful path then reads the same chunk line by line with the standard library; it either returns the values
or names the first malformed line. So no row is dropped or altered, and the leniency of a library (skipped lines, padded
fields, stripped blanks) cannot affect the result.
"""

from __future__ import annotations

import abc
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from harness.errors import UserError
from sim.files.sources import Chunk, SizeLimits, Source, read_chunks, shorten

if TYPE_CHECKING:
    import polars as pl


MAX_ID_CHARACTERS = 256
_INT64 = np.iinfo(np.int64)
_INTEGER = re.compile(r"-?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TABLE_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


Part = TypeVar("Part")
"""The result of parsing a chunk of lines."""


@dataclass(frozen=True)
class Columns:
    """Ratings as columns, in the order of the file: the input of `sim.tables.ratings.build_rating_data`.

    Attributes:
        users: [R] user ids, integers or strings.
        items: [R] item ids, integers or strings.
        ratings: [R] ratings.
        timestamps: [R] integer seconds since 1970, or None.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray | None = None


class BadLineError(ValueError):
    """What is wrong with a line; readers turn it into a UserError."""


class LineParser(abc.ABC, Generic[Part]):
    """A text layout: how to parse a whole chunk fast, and one line carefully."""

    expected = ""
    timestamp_is_last = True

    def read_header(self, line: str) -> bool:
        """Checks the first line of the file; returns whether it is a header."""
        return False

    @abc.abstractmethod
    def parse_chunk(self, data: bytes) -> Part | None:
        """Returns the columns of whole lines, or None if anything about them is unusual."""

    @abc.abstractmethod
    def parse_line(self, line: str) -> list[Any]:
        """Returns the values of one line.

        Raises:
            BadLineError: The line is malformed.
        """

    @abc.abstractmethod
    def collect(self, rows: list[list[Any]]) -> Part:
        """Converts the values of `parse_line` to columns like those of `parse_chunk`."""


def parse_file(source: Source, parser: LineParser[Part], limits: SizeLimits) -> Iterator[tuple[Chunk, Part]]:
    """Yields the chunks of lines below the header, each with its parsed columns."""
    nothing = True
    for chunk in read_chunks(source, limits):
        body = _without_header(chunk, source, parser)
        if body.data:
            part = parser.parse_chunk(body.data)
            if part is not None:
                yield body, part
            else:
                yield from _parse_carefully(body, source, parser)
            nothing = False
    if nothing:
        raise UserError("holds a header but no rows", where=str(source), do="Get a complete copy of the file.")


def _parse_carefully(body: Chunk, source: Source, parser: LineParser[Part]) -> Iterator[tuple[Chunk, Part]]:
    """Yields the chunk with its columns; of a chunk with a malformed line, the rows before it, then its error.

    So a value that turns out to be wrong further up is named instead.
    """
    rows: list[list[Any]] = []
    problem = None
    try:
        rows.extend(careful_lines(body, source, parser.parse_line, parser.expected))
    except UserError as error:
        problem = error
    if rows:
        yield body, parser.collect(rows)
    if problem is not None:
        raise problem


def _without_header(chunk: Chunk, source: Source, parser: LineParser[Any]) -> Chunk:
    if chunk.first_line != 1:
        return chunk
    first, _, rest = chunk.data.partition(b"\n")
    try:
        is_header = parser.read_header(_decode(first))
    except BadLineError as problem:
        raise _malformed(source, 1, first, problem, parser.expected) from None
    return Chunk(rest, 2, chunk.unterminated) if is_header else chunk


def careful_lines(
    chunk: Chunk, source: Source, parse_line: Callable[[str], list[Any]], expected: str
) -> Iterator[list[Any]]:
    """Yields the values of each line.

    Raises:
        UserError: A line is malformed; the message names the first one.
    """
    lines = chunk.data[:-1].split(b"\n")
    for offset, line in enumerate(lines):
        try:
            yield parse_line(_decode(line))
        except BadLineError as problem:
            cut = chunk.unterminated and offset == len(lines) - 1
            raise _malformed(source, chunk.first_line + offset, line, problem, expected, cut_short=cut) from None


def _malformed(
    source: Source, number: int, line: bytes, problem: BadLineError, expected: str, *, cut_short: bool = False
) -> UserError:
    try:
        shown = shorten(line.decode("utf-8"))
    except UnicodeDecodeError:
        shown = shorten(line)
    hint = " This last line has no line end: the file may be cut short." if cut_short else ""
    return UserError(f"line {number:,}: {problem}: {shown}", where=str(source), do=f"Expected {expected}.{hint}")


def _decode(line: bytes) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLineError(f"byte {error.start + 1} is not valid UTF-8") from None
    if "\0" in text:
        raise BadLineError("the line contains a NUL character")
    if "\r" in text:
        raise BadLineError("the line contains a stray carriage return")
    if not text:
        raise BadLineError("the line is blank")
    return text


def compact(column: np.ndarray) -> np.ndarray:
    """Returns integers as int32 if they fit."""
    fits = len(column) == 0 or (column.min() >= -(2**31) and column.max() < 2**31)
    return column.astype(np.int32) if fits else column


def parse_integer(text: str, what: str) -> int:
    """Returns a 64-bit integer; raises BadLineError naming `what` it should be."""
    if not _INTEGER.fullmatch(text):
        raise BadLineError(f"{what} {shorten(text)} is not an integer")
    value = int(text)
    if not _INT64.min <= value <= _INT64.max:
        raise BadLineError(f"{what} {shorten(text)} does not fit in 64 bits")
    return value


def parse_number(text: str, what: str) -> float:
    """Returns a finite number; raises BadLineError naming `what` it should be."""
    if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise BadLineError(f"{what} {shorten(text)} is not a finite number")
    if not _NUMBER.fullmatch(text):
        raise BadLineError(f"{what} {shorten(text)} is not a number")
    value = float(text)
    if not np.isfinite(value):
        raise BadLineError(f"{what} {shorten(text)} is not a finite number")
    return value


def check_field_count(parts: Sequence[str], count: int) -> None:
    """Raises BadLineError unless a line has `count` fields."""
    if len(parts) != count:
        raise BadLineError(f"{len(parts)} field{'s' if len(parts) != 1 else ''} instead of {count}")


def read_csv(data: bytes, separator: str, schema: dict[str, Any]) -> Any:
    """Reads lines without a header with Polars; returns None if Polars refuses them."""
    import polars as pl

    try:
        return pl.read_csv(data, separator=separator, has_header=False, schema=schema, quote_char=None)
    except (pl.exceptions.PolarsError, ValueError):
        return None


class TextTable(LineParser["pl.DataFrame"]):
    """CSV or TSV with named columns: by its first line, or as given for a file without a header."""

    def __init__(self, source: Source, names: Sequence[str], separator: str | None, header: Sequence[str] = ()) -> None:
        """Stores the columns to read, the separator (None: by extension) and the columns of a file without a header."""
        self.names = names
        self.separator = separator or _separator_by_ending(source)
        self.given_header = header
        self.num_columns = 0
        self.column_indices: list[int] = []
        self.expected = f"the columns {', '.join(header or names)}, separated by {self.separator!r}"

    def read_header(self, line: str) -> bool:
        """Locates the columns to read; raises BadLineError if one is missing."""
        first = self._split(line)
        self.num_columns = len(first)
        if len(first) < len(self.given_header):
            check_field_count(first, len(self.given_header))
        header = self.given_header or first
        for name in self.names:
            if header.count(name) != 1:
                problem = "no column" if name not in header else "more than one column"
                hint = "" if len(header) > 1 else "; data.separator sets another separator"
                raise BadLineError(f"the header has {problem} {name!r}{hint}")
        self.column_indices = [header.index(name) for name in self.names]
        return not self.given_header

    def parse_chunk(self, data: bytes) -> pl.DataFrame | None:
        """See LineParser; values are as written, empty ones empty strings."""
        import polars as pl

        lines = data.count(b"\n")
        unusual = b'"' in data or b"\0" in data or b"\r" in data or data.startswith(b"\xef\xbb\xbf")
        if unusual or data.count(self.separator.encode()) != (self.num_columns - 1) * lines or not _is_utf8(data):
            return None
        table = read_csv(data, self.separator, {str(index): pl.String for index in range(self.num_columns)})
        if table is None or table.height != lines:
            return None
        return self._frame([table[str(index)] for index in self.column_indices])

    def parse_line(self, line: str) -> list[Any]:
        """See LineParser."""
        parts = self._split(line)
        check_field_count(parts, self.num_columns)
        return [parts[index] for index in self.column_indices]

    def collect(self, rows: list[list[Any]]) -> pl.DataFrame:
        """See LineParser."""
        return self._frame(list(zip(*rows, strict=True)))

    def _frame(self, columns: Sequence[Any]) -> pl.DataFrame:
        import polars as pl

        texts = dict(zip(self.names, columns, strict=True))
        return pl.DataFrame(texts, schema=dict.fromkeys(self.names, pl.String)).fill_null("")

    def _split(self, line: str) -> list[str]:
        if '"' not in line:
            return line.split(self.separator)
        try:
            return next(csv.reader([line], delimiter=self.separator, strict=True))
        except csv.Error as error:
            raise BadLineError(f"wrongly quoted ({error})") from None


def _separator_by_ending(source: Source) -> str:
    path = Path(source.member) if source.member is not None else source.path
    ending = (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()
    if ending not in _TABLE_SEPARATORS:
        raise UserError(
            f"the ending {ending!r} does not tell how the columns are separated",
            where=str(source),
            do="Set data.separator (a single character, or 'tab'), or name the file .csv, .tsv or .parquet.",
        )
    return _TABLE_SEPARATORS[ending]


def _is_utf8(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False

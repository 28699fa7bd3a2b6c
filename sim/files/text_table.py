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


@dataclass(frozen=True)
class TableLayout:
    """Column names of a generic table. Timestamp None: no such column; separator None: by the file's extension."""

    user_column: str = "user"
    item_column: str = "item"
    rating_column: str = "rating"
    timestamp_column: str | None = None
    separator: str | None = None

    @property
    def names(self) -> list[str]:
        """The columns to read: user, item, rating and, unless None, timestamp."""
        names = [self.user_column, self.item_column, self.rating_column]
        return names if self.timestamp_column is None else [*names, self.timestamp_column]


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
            if part is None:
                part = parser.collect(list(careful_lines(body, source, parser.parse_line, parser.expected)))
            yield body, part
            nothing = False
    if nothing:
        raise UserError("holds a header but no rows", where=str(source), do="Get a complete copy of the file.")


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


def concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenates the parts of a column; if any part is of strings, integers become strings (in canonical form)."""
    if len({part.dtype.kind for part in parts}) > 1:
        parts = [part if part.dtype.kind == "U" else part.astype(str) for part in parts]
    return np.concatenate(parts)


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


def parse_identifier(text: str, what: str) -> str:
    """Returns an id as it is written; raises BadLineError if it is empty or too long."""
    if not text:
        raise BadLineError(f"{what} is missing")
    if len(text) > MAX_ID_CHARACTERS:
        raise BadLineError(f"{what} is longer than {MAX_ID_CHARACTERS} characters")
    return text


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


class NamedColumns(LineParser[Part]):
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

    def texts_of_chunk(self, data: bytes) -> list[pl.Series] | None:
        """Returns the columns as strings (null if empty), or None if anything is unusual."""
        import polars as pl

        lines = data.count(b"\n")
        unusual = b'"' in data or b"\0" in data or b"\r" in data or data.startswith(b"\xef\xbb\xbf")
        if unusual or data.count(self.separator.encode()) != (self.num_columns - 1) * lines or not _is_utf8(data):
            return None
        table = read_csv(data, self.separator, {str(index): pl.String for index in range(self.num_columns)})
        if table is None or table.height != lines:
            return None
        return [table[str(index)] for index in self.column_indices]

    def texts_of_line(self, line: str) -> list[str]:
        """Returns the values of one line.

        Raises:
            BadLineError: The line is malformed.
        """
        parts = self._split(line)
        check_field_count(parts, self.num_columns)
        return [parts[index] for index in self.column_indices]

    def _split(self, line: str) -> list[str]:
        if '"' not in line:
            return line.split(self.separator)
        try:
            return next(csv.reader([line], delimiter=self.separator, strict=True))
        except csv.Error as error:
            raise BadLineError(f"wrongly quoted ({error})") from None


class TextTable(NamedColumns["pl.DataFrame"]):
    """A table whose values are read as written."""

    def parse_chunk(self, data: bytes) -> pl.DataFrame | None:
        """See LineParser; empty values are empty strings."""
        columns = self.texts_of_chunk(data)
        return None if columns is None else self._frame(columns)

    def parse_line(self, line: str) -> list[Any]:
        """See LineParser."""
        return self.texts_of_line(line)

    def collect(self, rows: list[list[Any]]) -> pl.DataFrame:
        """See LineParser."""
        return self._frame(list(zip(*rows, strict=True)))

    def _frame(self, columns: Sequence[Any]) -> pl.DataFrame:
        import polars as pl

        texts = dict(zip(self.names, columns, strict=True))
        return pl.DataFrame(texts, schema=dict.fromkeys(self.names, pl.String)).fill_null("")


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


def identifiers(column: pl.Series) -> np.ndarray:
    """Returns a Polars string column as integers if every text is exactly how its integer is written."""
    import polars as pl

    numbers = column.cast(pl.Int64, strict=False)
    if not numbers.null_count() and bool((numbers.cast(pl.String) == column).all()):
        return compact(numbers.to_numpy())
    return column.to_numpy().astype(str)


def parse_distinct(
    column: pl.Series, parse: Callable[[str], float], dtype: type[pl.Int64 | pl.Float64]
) -> np.ndarray | None:
    """Parses each distinct text of a column once, by the rules of the careful path.

    Args:
        column: [R] texts.
        parse: Returns the value of one text, or raises BadLineError.
        dtype: Type of the values.

    Returns:
        [R] values, or None if a text is malformed.
    """
    import polars as pl

    distinct = column.unique()
    try:
        values = pl.Series([parse(text) for text in distinct.to_list()], dtype=dtype)
    except BadLineError:
        return None
    return column.replace_strict(distinct, values).to_numpy()

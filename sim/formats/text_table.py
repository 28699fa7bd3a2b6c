"""Text tables: a fast path over chunks of lines, a careful path over records.

Every text parser has two paths. The fast path parses a whole chunk of lines and gives up (returns None) if anything is
unusual. The careful path then reads the same chunk record by record with the standard library; it either returns the
values or names the first malformed line. So no row is dropped or altered, and the leniency of a library (skipped lines,
padded fields, stripped blanks) cannot affect the result. A record is a line, or several if a quoted value contains line
breaks.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from harness.errors import UserError
from sim.formats.chunks import MAX_LINE_BYTES, Chunk, read_chunks
from sim.formats.sources import SizeLimits, Source, shorten

if TYPE_CHECKING:
    pass


MAX_ID_CHARACTERS = 256
_INT64 = np.iinfo(np.int64)
_INTEGER = re.compile(r"-?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
BLANKS = "blanks"
"""The separator of columns that are separated by one or more blanks or tabs."""


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
        lines: [R] int32 line (or row) of each rating, or None where it is not known.
        unit: "line" or "row", which these count.
        files: Index of the first rating of each file, and the file's name; empty if there is one file.
        left_out: How many rows each setting left out, by its key.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray | None = None
    lines: np.ndarray | None = None
    unit: str = field(default="line", kw_only=True)
    files: Sequence[tuple[int, str]] = field(default=(), kw_only=True)
    left_out: dict[str, int] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class TextFormat:
    """How a table is written; only `nested` matters for Parquet files.

    Attributes:
        separator: One character or several, or `BLANKS`; None: what the first line or the file's ending tells.
        header: Names of the first columns of a file without a header; empty if it has one.
        encoding: Such as "latin-1"; None: UTF-8, or UTF-16 if the file begins with its mark.
        comment: Lines that begin with this are left out; None: none are.
        nested: Name of the list of objects that are the rows; None: the only one that holds what the row does not.
        quotes: Whether values may stand in double quotes; otherwise these are letters like others.
    """

    separator: str | None = None
    header: Sequence[str] = ()
    encoding: str | None = None
    comment: str | None = None
    nested: str | None = None
    quotes: bool = True


class BadLineError(ValueError):
    """What is wrong with a line; readers turn it into a UserError."""


class _EndOfChunkError(Exception):
    """A record goes on behind the chunk."""


class LineParser(abc.ABC, Generic[Part]):
    """A text layout: how to parse a whole chunk fast, and one line carefully."""

    expected = ""
    comment: str | None = None
    max_line_bytes = MAX_LINE_BYTES

    def read_preamble(self, line: str) -> bool:
        """Returns whether the first line of the file says how it is written, and is no line of the table."""
        return False

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

    def parse_record(self, line: str, next_line: Callable[[], str]) -> list[Any]:
        """Returns the values of the record that begins with a line, and reads further lines if it goes on there.

        Raises:
            BadLineError: The record is malformed.
        """
        return self.parse_line(line)

    @abc.abstractmethod
    def collect(self, rows: list[list[Any]]) -> Part:
        """Converts the values of `parse_line` to columns like those of `parse_chunk`."""


def parse_file(
    source: Source, parser: LineParser[Part], limits: SizeLimits, encoding: str | None = None
) -> Iterator[tuple[Chunk, Part]]:
    """Yields the chunks of lines below the header, each with its parsed columns."""
    nothing = True
    carry = b""
    for chunk in _with_last(read_chunks(source, limits, encoding=encoding, max_line_bytes=parser.max_line_bytes)):
        if carry:
            first_line = chunk.first_line - carry.count(b"\n")
            chunk = dataclasses.replace(chunk, data=carry + chunk.data, first_line=first_line)
        body = _without_header(chunk, source, parser)
        carry = b""
        if body.data:
            part = parser.parse_chunk(body.data)
            if part is not None:
                yield body, part
                nothing = False
                continue
            records = CarefulRecords(body, source, parser.parse_record, parser.expected, parser.comment)
            # Of a chunk with a malformed line, first the rows before it: a wrong value further up is named instead.
            if records.rows:
                yield dataclasses.replace(body, numbers=records.numbers), parser.collect(records.rows)
                nothing = False
            if records.problem is not None:
                raise records.problem
            carry = records.rest
    if nothing:
        raise UserError("holds a header but no rows", where=str(source), do="Get a complete copy of the file.")


def _with_last(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yields the chunks, the last of them marked."""
    before = next(chunks, None)
    for chunk in chunks:
        assert before is not None
        yield before
        before = chunk
    if before is not None:
        yield dataclasses.replace(before, last=True)


def _without_header(chunk: Chunk, source: Source, parser: LineParser[Any]) -> Chunk:
    """Returns the chunk without the file's header and the comments before it."""
    if chunk.first_line != 1:
        return chunk
    number, rest = 1, chunk.data
    first, _, below = rest.partition(b"\n")
    if first.startswith((b"sep=", b'"sep=')) and parser.read_preamble(first.decode("utf-8", "replace")):
        number, rest = number + 1, below
    while parser.comment and rest.startswith(parser.comment.encode()):
        number, rest = number + 1, rest.partition(b"\n")[2]
    first, _, below = rest.partition(b"\n")
    try:
        is_header = parser.read_header(_decode(first))
    except BadLineError as problem:
        raise _malformed(source, number, first, problem, parser.expected) from None
    return dataclasses.replace(chunk, data=below if is_header else rest, first_line=number + is_header)


class CarefulRecords:
    """The records of a chunk, read one by one.

    Attributes:
        rows: The values of each record up to the first malformed one.
        numbers: Number in the file of the first line of each of these.
        problem: What is wrong with that one, or None.
        rest: The lines of a record that goes on in the next chunk.
    """

    def __init__(
        self,
        chunk: Chunk,
        source: Source,
        parse_record: Callable[[str, Callable[[], str]], list[Any]],
        expected: str,
        comment: str | None = None,
    ) -> None:
        """Reads the chunk; see LineParser for the other parameters."""
        self.rows: list[list[Any]] = []
        self.numbers: list[int] = []
        self.problem: UserError | None = None
        self.rest = b""
        lines = chunk.data[:-1].split(b"\n")
        mark = comment.encode() if comment else None
        self._next = 0

        def next_line() -> str:
            if self._next == len(lines):
                raise _EndOfChunkError
            self._next += 1
            return _decode(lines[self._next - 1], blank=True)

        # A record is a line, unless its parser asks for more.
        while self._next < len(lines) and self.problem is None:
            begin = self._next
            self._next += 1
            line = lines[begin]
            if mark and line.startswith(mark):
                continue
            try:
                self.rows.append(parse_record(_decode(line), next_line))
                self.numbers.append(chunk.first_line + begin)
            except _EndOfChunkError:
                self.rest = b"".join(line + b"\n" for line in lines[begin:])
                if chunk.last or len(self.rest) > MAX_LINE_BYTES:
                    open_quote = BadLineError("wrongly quoted (a quote is opened and not closed)")
                    self.problem = _malformed(source, chunk.first_line + begin, line, open_quote, expected)
                return
            except BadLineError as problem:
                cut = chunk.unterminated and self._next == len(lines)
                number = chunk.first_line + begin
                self.problem = _malformed(source, number, line, problem, expected, cut_short=cut)


def _malformed(
    source: Source, number: int, line: bytes, problem: BadLineError, expected: str, *, cut_short: bool = False
) -> UserError:
    try:
        shown = shorten(line.decode("utf-8"))
    except UnicodeDecodeError:
        shown = shorten(line)
    hint = " This last line has no line end: the file may be cut short." if cut_short else ""
    return UserError(f"line {number:,}: {problem}: {shown}", where=str(source), do=f"Expected {expected}.{hint}")


def _decode(line: bytes, *, blank: bool = False) -> str:
    """Returns the text of a line; raises BadLineError if it is none, or (unless allowed) blank."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "; if the file is written in another encoding, set it, as in data.encoding=latin-1"
        raise BadLineError(f"byte {error.start + 1} is not valid UTF-8{hint}") from None
    if "\0" in text:
        hint = (
            "; if the file is written in UTF-16, set data.encoding=utf-16-le (or -be)" if text.count("\0") > 1 else ""
        )
        raise BadLineError(f"the line contains a NUL character{hint}")
    if "\r" in text:
        hint = "; if all lines end so, as on an old Mac, convert them" if text.count("\r") > 1 else ""
        raise BadLineError(f"the line contains a stray carriage return{hint}")
    if not text and not blank:
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


def read_csv(data: bytes, separator: str, schema: dict[str, Any], columns: list[int] | None = None) -> Any:
    """Reads lines without a header with Polars; returns None if Polars refuses them.

    Args:
        data: Lines.
        separator: One character.
        schema: Types of all columns by name.
        columns: Ascending numbers of those to read; None: all. Too few or too many fields are then not noticed.
    """
    import polars as pl

    settings: dict[str, Any] = {"has_header": False, "schema": schema, "quote_char": None}
    try:
        return pl.read_csv(data, separator=separator, columns=columns, **settings)
    except (pl.exceptions.PolarsError, ValueError):
        return None


def is_utf8(data: bytes) -> bool:
    """Returns whether bytes are text in UTF-8."""
    try:
        return data.isascii() or bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False

"""Parsers of rating files: text in the MovieLens and Netflix layouts, and any CSV, TSV or Parquet table.

Every text parser has two paths. The fast path works on a chunk of lines at once and gives up (returns None) on anything
it is not certain about. The careful path then reads the same chunk line by line with the standard library; it either
names the first bad line or returns the values. So a row is never dropped or altered, and no library's leniency
(skipped lines, padded fields, trimmed blanks) can reach the result.
"""

from __future__ import annotations

import abc
import csv
import datetime
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from sim.errors import UserError
from sim.sources import Chunk, SizeLimits, Source, check_file, read_chunks, shorten

if TYPE_CHECKING:
    import polars as pl

PARSER_VERSION = 1
"""Raise this when the same file would be parsed to another table than before; cached tables then expire."""

READERS = ("movielens_dat", "movielens_data", "movielens_csv", "netflix", "table")
MAX_ID_CHARACTERS = 256
_INT64 = np.iinfo(np.int64)
_INTEGER = re.compile(r"-?[0-9]{1,30}")
_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TABLE_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_PARQUET = (".parquet", ".pq")

Part = TypeVar("Part")
"""What a line parser makes of a chunk of lines."""


@dataclass(frozen=True)
class Columns:
    """Ratings as columns, in the order of the file; what `sim.ratings.build_rating_data` takes.

    Attributes:
        users: [R] user ids, integers or strings.
        items: [R] item ids, integers or strings.
        ratings: [R] ratings.
        timestamps: [R] integer seconds since 1970, or None.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray | None


@dataclass(frozen=True)
class TableLayout:
    """How a generic table names its columns; the timestamp column and the separator may be None (absent; by ending)."""

    user_column: str = "user"
    item_column: str = "item"
    rating_column: str = "rating"
    timestamp_column: str | None = None
    separator: str | None = None

    @property
    def names(self) -> list[str]:
        """The wanted columns: user, item, rating and, unless None, timestamp."""
        names = [self.user_column, self.item_column, self.rating_column]
        return names if self.timestamp_column is None else [*names, self.timestamp_column]


class _BadLineError(ValueError):
    """What is wrong with one line; `read_ratings` never lets it out."""


def read_ratings(
    reader: str, sources: Sequence[Source], *, layout: TableLayout | None = None, limits: SizeLimits | None = None
) -> Columns:
    """Parses one data set.

    Args:
        reader: One of `READERS`.
        sources: The files in a fixed order. Only "netflix" takes more than one.
        layout: Columns of a generic table; unused by the other readers.
        limits: What compressed files may unpack to.

    Returns:
        The columns; ids are integers where the whole column consists of plain integers, else strings (so "007" and
        "1.0" keep their spelling in a generic table).

    Raises:
        UserError: A file is missing, empty, damaged, of another layout, or has a malformed line or value.
    """
    limits = limits or SizeLimits()
    if reader == "netflix":
        return _read_netflix(sources, limits)
    if len(sources) != 1:
        raise UserError(f"{len(sources)} files match, where one is expected", where=f"reader {reader}")
    if reader in _DELIMITED:
        return _read_lines(sources[0], _DELIMITED[reader](), limits)
    layout = layout or TableLayout()
    if reader != "table":
        raise UserError(f"unknown reader {reader!r}", where="data.reader", do=f"Choose one of: {', '.join(READERS)}.")
    if is_parquet(sources[0]):
        return _read_parquet(sources[0].path, layout)
    return _read_lines(sources[0], _Table(layout, sources[0]), limits)


# Text of one row per line


class _LineParser(abc.ABC, Generic[Part]):
    """One layout of text: how to parse a whole chunk fast, and one line carefully."""

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
            _BadLineError: The line is malformed.
        """

    @abc.abstractmethod
    def collect(self, rows: list[list[Any]]) -> Part:
        """Turns the values of `parse_line` into columns like those of `parse_chunk`."""


def _parse_file(source: Source, parser: _LineParser[Part], limits: SizeLimits) -> Iterator[tuple[Chunk, Part]]:
    """Yields the chunks of lines below the header, and what the parser makes of each."""
    nothing = True
    for chunk in read_chunks(source, limits):
        body = _without_header(chunk, source, parser)
        if body.data:
            part = parser.parse_chunk(body.data)
            yield body, _parse_carefully(body, source, parser) if part is None else part
            nothing = False
    if nothing:
        raise UserError("holds a header but no rows", where=str(source), do="Get a complete copy of the file.")


def _read_lines(source: Source, parser: _LineParser[list[np.ndarray]], limits: SizeLimits) -> Columns:
    """Reads a file of one rating per line."""
    parts: list[list[np.ndarray]] = []
    unterminated = False
    for chunk, part in _parse_file(source, parser, limits):
        parts.append(part)
        unterminated = chunk.unterminated
    columns = [_concatenate(column) for column in zip(*parts, strict=True)]
    timestamps = columns[3] if len(columns) == 4 else None
    if unterminated and parser.timestamp_is_last and timestamps is not None:
        _check_last_timestamp(timestamps, source)
    return Columns(columns[0], columns[1], columns[2], timestamps)


def _without_header(chunk: Chunk, source: Source, parser: _LineParser[Any]) -> Chunk:
    if chunk.first_line != 1:
        return chunk
    first, _, rest = chunk.data.partition(b"\n")
    try:
        is_header = parser.read_header(_decode(first))
    except _BadLineError as problem:
        raise _malformed(source, 1, first, problem, parser.expected) from None
    return Chunk(rest, 2, chunk.unterminated) if is_header else chunk


def _parse_carefully(chunk: Chunk, source: Source, parser: _LineParser[Part]) -> Part:
    """Reads a chunk line by line; raises the UserError of its first bad line."""
    return parser.collect([row for _, row in _careful_lines(chunk, source, parser.parse_line, parser.expected)])


def _careful_lines(
    chunk: Chunk, source: Source, parse_line: Callable[[str], list[Any]], expected: str
) -> Iterator[tuple[int, list[Any]]]:
    lines = chunk.data[:-1].split(b"\n")
    for offset, line in enumerate(lines):
        try:
            yield offset, parse_line(_decode(line))
        except _BadLineError as problem:
            cut = chunk.unterminated and offset == len(lines) - 1
            raise _malformed(source, chunk.first_line + offset, line, problem, expected, cut_short=cut) from None


def _malformed(
    source: Source, number: int, line: bytes, problem: _BadLineError, expected: str, *, cut_short: bool = False
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
        raise _BadLineError(f"byte {error.start + 1} is not valid UTF-8") from None
    if "\0" in text:
        raise _BadLineError("the line contains a NUL character")
    if "\r" in text:
        raise _BadLineError("the line contains a stray carriage return")
    if not text:
        raise _BadLineError("the line is blank")
    return text


def _check_last_timestamp(timestamps: np.ndarray, source: Source) -> None:
    """Refuses a last timestamp that lost digits, where the file ends without a line end.

    Losing a digit divides a timestamp by ten, which puts it before all others; a complete file would need its oldest
    rating in its last line, with fewer digits, and no line end there.
    """
    if len(timestamps) < 2:
        return
    last, others = int(timestamps[-1]), timestamps[:-1]
    if last < int(others.min()) and len(str(last)) < len(str(int(others.max()))):
        raise UserError(
            f"the last line ends with timestamp {last} and without a line end: the file looks cut short",
            where=str(source),
            do="Get a complete copy; if the file is complete, add a line end to its last line.",
        )


def _concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Joins the parts of a column; integers become strings if any part holds strings (their spelling is canonical)."""
    if len({part.dtype.kind for part in parts}) > 1:
        parts = [part if part.dtype.kind == "U" else part.astype(str) for part in parts]
    return np.concatenate(parts)


def _compact(column: np.ndarray) -> np.ndarray:
    """Returns integers as int32 if they fit."""
    fits = len(column) == 0 or (column.min() >= -(2**31) and column.max() < 2**31)
    return column.astype(np.int32) if fits else column


def _integer(text: str, what: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise _BadLineError(f"{what} {shorten(text)} is not an integer")
    value = int(text)
    if not _INT64.min <= value <= _INT64.max:
        raise _BadLineError(f"{what} {shorten(text)} does not fit in 64 bits")
    return value


def _number(text: str, what: str) -> float:
    if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise _BadLineError(f"{what} {shorten(text)} is not a finite number")
    if not _NUMBER.fullmatch(text):
        raise _BadLineError(f"{what} {shorten(text)} is not a number")
    value = float(text)
    if not np.isfinite(value):
        raise _BadLineError(f"{what} {shorten(text)} is not a finite number")
    return value


def _identifier(text: str, what: str) -> str:
    if not text:
        raise _BadLineError(f"{what} is missing")
    if len(text) > MAX_ID_CHARACTERS:
        raise _BadLineError(f"{what} is longer than {MAX_ID_CHARACTERS} characters")
    return text


def _fields(parts: Sequence[str], count: int) -> None:
    if len(parts) != count:
        raise _BadLineError(f"{len(parts)} field{'s' if len(parts) != 1 else ''} instead of {count}")


class _Delimited(_LineParser[list[np.ndarray]]):
    """The MovieLens layouts: integer user, integer item, rating, integer timestamp."""

    def __init__(self, separator: str, expected: str, header: str | None = None) -> None:
        self.separator, self.expected, self.header = separator, expected, header
        self._allowed = b"0123456789.-\n" + separator.encode()

    def read_header(self, line: str) -> bool:
        if self.header is None:
            return False
        if line != self.header:
            raise _BadLineError(f"the header is not {self.header}")
        return True

    def parse_chunk(self, data: bytes) -> list[np.ndarray] | None:
        import polars as pl

        # Only these bytes: no blanks, quotes, exponents, NaN or letters, which Polars would read in its own way.
        if data.translate(None, self._allowed):
            return None
        separator = self.separator
        if len(separator) > 1:
            data = data.replace(separator.encode(), b"\t")
            if separator[0].encode() in data:
                return None
            separator = "\t"
        lines = data.count(b"\n")
        # Polars pads short lines and refuses long ones, so the right total of separators means that no line is short.
        if data.count(separator.encode()) != 3 * lines:
            return None
        schema = {"user": pl.Int64, "item": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
        table = _read_csv(data, separator, schema)
        if table is None or table.height != lines or any(column.null_count() for column in table):
            return None
        columns = [column.to_numpy() for column in table]
        if not np.isfinite(columns[2]).all():
            return None
        return [_compact(columns[0]), _compact(columns[1]), columns[2], _compact(columns[3])]

    def parse_line(self, line: str) -> list[Any]:
        parts = line.split(self.separator)
        _fields(parts, 4)
        return [
            _integer(parts[0], "user id"),
            _integer(parts[1], "item id"),
            _number(parts[2], "rating"),
            _integer(parts[3], "timestamp"),
        ]

    def collect(self, rows: list[list[Any]]) -> list[np.ndarray]:
        users, items, ratings, timestamps = zip(*rows, strict=True)
        integers = [_compact(np.array(column, np.int64)) for column in (users, items, timestamps)]
        return [integers[0], integers[1], np.array(ratings, np.float64), integers[2]]


def _read_csv(data: bytes, separator: str, schema: dict[str, Any]) -> Any:
    """Returns the Polars table of header-less lines, or None if Polars refuses them."""
    import polars as pl

    try:
        return pl.read_csv(data, separator=separator, has_header=False, schema=schema, quote_char=None)
    except (pl.exceptions.PolarsError, ValueError):
        return None


_DELIMITED: dict[str, Callable[[], _Delimited]] = {
    "movielens_dat": lambda: _Delimited("::", "user::item::rating::timestamp"),
    "movielens_data": lambda: _Delimited("\t", "user, item, rating and timestamp, separated by tabs"),
    "movielens_csv": lambda: _Delimited(
        ",", "the columns userId,movieId,rating,timestamp", header="userId,movieId,rating,timestamp"
    ),
}


# Generic tables


class _NamedColumns(_LineParser[Part]):
    """CSV or TSV whose columns have names: in its first line, or in the order given if it has no header."""

    def __init__(self, source: Source, names: Sequence[str], separator: str | None, header: Sequence[str] = ()) -> None:
        self.names = names
        self.separator = separator or _separator_by_ending(source)
        self.given_header = header
        self.num_columns = 0
        self.places: list[int] = []
        self.expected = f"the columns {', '.join(header or names)}, separated by {self.separator!r}"

    def read_header(self, line: str) -> bool:
        first = self._split(line)
        self.num_columns = len(first)
        if len(first) < len(self.given_header):
            _fields(first, len(self.given_header))
        header = self.given_header or first
        for name in self.names:
            if header.count(name) != 1:
                problem = "no column" if name not in header else "more than one column"
                hint = "" if len(header) > 1 else "; data.separator sets another separator"
                raise _BadLineError(f"the header has {problem} {name!r}{hint}")
        self.places = [header.index(name) for name in self.names]
        return not self.given_header

    def texts_of_chunk(self, data: bytes) -> list[pl.Series] | None:
        """Returns the wanted columns as strings (empty ones are null), or None if anything is unusual."""
        import polars as pl

        lines = data.count(b"\n")
        unusual = b'"' in data or b"\0" in data or b"\r" in data or data.startswith(b"\xef\xbb\xbf")
        if unusual or data.count(self.separator.encode()) != (self.num_columns - 1) * lines or not _is_utf8(data):
            return None
        table = _read_csv(data, self.separator, {str(place): pl.String for place in range(self.num_columns)})
        if table is None or table.height != lines:
            return None
        return [table[str(place)] for place in self.places]

    def texts_of_line(self, line: str) -> list[str]:
        """Returns the wanted values of one line.

        Raises:
            _BadLineError: The line is malformed.
        """
        parts = self._split(line)
        _fields(parts, self.num_columns)
        return [parts[place] for place in self.places]

    def _split(self, line: str) -> list[str]:
        if '"' not in line:
            return line.split(self.separator)
        try:
            return next(csv.reader([line], delimiter=self.separator, strict=True))
        except csv.Error as error:
            raise _BadLineError(f"wrongly quoted ({error})") from None


class _Table(_NamedColumns[list[np.ndarray]]):
    """A table of ratings."""

    def __init__(self, layout: TableLayout, source: Source) -> None:
        super().__init__(source, layout.names, layout.separator)

    def read_header(self, line: str) -> bool:
        is_header = super().read_header(line)
        self.timestamp_is_last = len(self.places) == 4 and self.places[3] == self.num_columns - 1
        return is_header

    def parse_chunk(self, data: bytes) -> list[np.ndarray] | None:
        wanted = self.texts_of_chunk(data)
        if wanted is None:
            return None
        if any(column.null_count() or bool((column.str.len_bytes() > MAX_ID_CHARACTERS).any()) for column in wanted):
            return None
        ratings = _unique_numbers(wanted[2])
        if ratings is None:
            return None
        columns = [identifiers(wanted[0]), identifiers(wanted[1]), ratings]
        if len(wanted) == 4:
            columns.append(identifiers(wanted[3]))
            if columns[3].dtype.kind == "U":
                return None
        return columns

    def parse_line(self, line: str) -> list[Any]:
        values = self.texts_of_line(line)
        row: list[Any] = [_identifier(values[0], "user id"), _identifier(values[1], "item id")]
        row.append(_number(values[2], "rating"))
        if len(values) == 4:
            row.append(_integer(values[3], "timestamp (seconds since 1970)"))
        return row

    def collect(self, rows: list[list[Any]]) -> list[np.ndarray]:
        columns = list(zip(*rows, strict=True))
        arrays = [_identifier_array(columns[0]), _identifier_array(columns[1]), np.array(columns[2], np.float64)]
        if len(columns) == 4:
            arrays.append(_compact(np.array(columns[3], np.int64)))
        return arrays


class _TextTable(_NamedColumns["pl.DataFrame"]):
    """A table whose values are kept as they are written."""

    def parse_chunk(self, data: bytes) -> pl.DataFrame | None:
        columns = self.texts_of_chunk(data)
        return None if columns is None else self._frame(columns)

    def parse_line(self, line: str) -> list[Any]:
        return self.texts_of_line(line)

    def collect(self, rows: list[list[Any]]) -> pl.DataFrame:
        return self._frame(list(zip(*rows, strict=True)))

    def _frame(self, columns: Sequence[Any]) -> pl.DataFrame:
        import polars as pl

        texts = dict(zip(self.names, columns, strict=True))
        return pl.DataFrame(texts, schema=dict.fromkeys(self.names, pl.String)).fill_null("")


def read_texts(
    source: Source, names: Sequence[str], *, separator: str | None, header: Sequence[str], limits: SizeLimits
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yields columns of a CSV or TSV file as strings, exactly as they are written, a chunk of lines at a time.

    Args:
        source: The file.
        names: The wanted columns, without repetitions.
        separator: One character; None goes by the file's ending.
        header: Names of the first columns where the file does not begin with a header; empty where it does.
        limits: What a compressed file may unpack to.

    Yields:
        Number of the chunk's first line in the file; its rows.

    Raises:
        UserError: The file is missing, empty, damaged, lacks a column, or has a malformed line.
    """
    for chunk, frame in _parse_file(source, _TextTable(source, names, separator, header), limits):
        yield chunk.first_line, frame


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
        return _compact(numbers.to_numpy())
    return column.to_numpy().astype(str)


def _identifier_array(texts: Sequence[str]) -> np.ndarray:
    if all(_CANONICAL_INTEGER.fullmatch(text) for text in texts):
        return _compact(np.array([int(text) for text in texts], np.int64))
    return np.array(texts, str)


def _unique_numbers(column: Any) -> np.ndarray | None:
    """Parses each distinct rating once, by the rules of the careful path."""
    distinct, places = _factorise(column)
    try:
        return np.array([_number(text, "rating") for text in distinct], np.float64)[places]
    except _BadLineError:
        return None


def _factorise(column: Any) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts of a column and the place of each row's text among them."""
    import polars as pl

    distinct = column.unique(maintain_order=True)
    index = pl.Series(range(len(distinct)), dtype=pl.UInt32)
    return distinct.to_list(), column.replace_strict(distinct, index).to_numpy()


def is_parquet(source: Source) -> bool:
    """Returns whether a source is a Parquet file, by its ending."""
    return source.path.suffix.lower() in _PARQUET


def read_parquet_columns(path: Path, names: Sequence[str], keys: str) -> pl.DataFrame:
    """Returns the wanted columns of a Parquet file.

    Args:
        path: The file.
        names: The wanted columns, without repetitions.
        keys: The settings that name them, for messages.

    Raises:
        UserError: The file is missing, empty or damaged, or lacks a column.
    """
    import polars as pl

    check_file(path)
    where = str(path)
    _try_parquet(path, names)
    try:
        schema = pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_parquet(where, error) from None
    missing = [name for name in names if name not in schema]
    if missing:
        raise UserError(
            f"has no column {missing[0]!r}; its columns are {', '.join(map(repr, schema))}",
            where=where,
            do=f"Set {keys}.",
        )
    try:
        return pl.read_parquet(path, columns=list(names), glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_parquet(where, error) from None


_PARQUET_TRIAL = """
import sys
import polars
path, *names = sys.argv[1:]
schema = polars.read_parquet_schema(path)
polars.read_parquet(path, columns=[name for name in names if name in schema], glob=False)
"""


def _try_parquet(path: Path, names: Sequence[str]) -> None:
    """Reads a Parquet file in another process: damage can make the library end the process that reads it.

    Raises:
        UserError: That process did not come to a good end.
    """
    trial = [sys.executable, "-c", _PARQUET_TRIAL, str(path), *names]
    finished = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if finished.returncode:
        last = finished.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        kind, _, reason = last.partition(": ")
        known = kind.startswith("polars.exceptions.") and not kind.endswith("PanicException")
        raise _bad_parquet(str(path), reason if known else "the library that reads it gave up")


def _read_parquet(path: Path, layout: TableLayout) -> Columns:
    """Reads a Parquet file of ratings."""
    keys = "data.user_column, data.item_column, data.rating_column and data.timestamp_column"
    table, where = read_parquet_columns(path, layout.names, keys), str(path)
    for name in layout.names:
        if table[name].null_count():
            row = int(table[name].is_null().arg_max() or 0) + 1
            raise UserError(f"row {row:,} has no value in column {name!r}", where=where, do="Mend or remove the row.")
    columns = [table[name] for name in layout.names]
    ratings = _parquet_ratings(columns[2], where)
    timestamps = _parquet_timestamps(columns[3], where) if len(columns) == 4 else None
    return Columns(_parquet_ids(columns[0], where), _parquet_ids(columns[1], where), ratings, timestamps)


def _bad_parquet(where: str, error: Exception | str) -> UserError:
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=where, do="Make the file readable for this user.")
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"is not a sound Parquet file ({reason})", where=where, do="Get a fresh copy of the file.")


def _wrong_type(column: Any, where: str, expected: str) -> UserError:
    found = f"column {column.name!r} has type {column.dtype}"
    return UserError(found, where=where, do=f"Expected {expected}.")


def _parquet_ids(column: Any, where: str) -> np.ndarray:
    import polars as pl

    if column.dtype.is_integer():
        try:
            return _compact(column.cast(pl.Int64).to_numpy())
        except pl.exceptions.PolarsError:
            raise UserError(f"column {column.name!r} does not fit in 64 bits", where=where) from None
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise _wrong_type(column, where, "ids that are integers or strings")
    texts = column.cast(pl.String)
    if len(texts):
        bad = (texts.str.len_chars() > MAX_ID_CHARACTERS) | (texts == "") | texts.str.contains("\0", literal=True)
        if bad.any():
            row = int(bad.arg_max() or 0) + 1
            raise UserError(
                f"row {row:,}: {shorten(texts[row - 1])} in column {column.name!r} is no id",
                where=where,
                do=f"Expected 1 to {MAX_ID_CHARACTERS} characters.",
            )
    return texts.to_numpy().astype(str)


def _parquet_ratings(column: Any, where: str) -> np.ndarray:
    import polars as pl

    if not column.dtype.is_numeric():
        raise _wrong_type(column, where, "numeric ratings")
    ratings = column.cast(pl.Float64).to_numpy()
    finite = np.isfinite(ratings)
    if not finite.all():
        row = int(np.argmin(finite))
        raise UserError(
            f"row {row + 1:,}: rating {ratings[row]} in column {column.name!r} is not a finite number",
            where=where,
            do="Mend or remove the row.",
        )
    return ratings


def _parquet_timestamps(column: Any, where: str) -> np.ndarray:
    import polars as pl

    if column.dtype in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).dt.epoch("s").to_numpy()
    if not column.dtype.is_integer():
        raise _wrong_type(column, where, "timestamps that are integers (seconds since 1970), dates or datetimes")
    return column.cast(pl.Int64).to_numpy()


# Netflix: "movie:" lines, each followed by that movie's "user,rating,YYYY-MM-DD" lines

_NETFLIX_EXPECTED = "a line 'movie:' or a line 'user,rating,YYYY-MM-DD' with an integer rating"
_MAX_USER_DIGITS = 9
_FIRST_YEAR, _END_YEAR = 1970, 2038


def _seconds_of_dates() -> np.ndarray:
    """Returns int32 seconds since 1970 by (year, month, day) place; -1 where there is no such day."""
    table = np.full((_END_YEAR - _FIRST_YEAR, 12, 31), -1, np.int32)
    days = np.arange(np.datetime64(f"{_FIRST_YEAR}-01-01"), np.datetime64(f"{_END_YEAR}-01-01"))
    months = days.astype("datetime64[M]")
    year, month = np.divmod(months.astype(np.int64), 12)
    table[year, month, (days - months).astype(np.int64)] = days.astype(np.int64) * 86_400
    return table.ravel()


_DATE_SECONDS = _seconds_of_dates()


@dataclass
class _NetflixParts:
    """Columns collected so far and the movie that the next rating belongs to (None at the start of a file)."""

    users: list[np.ndarray] = field(default_factory=list)
    items: list[np.ndarray] = field(default_factory=list)
    ratings: list[np.ndarray] = field(default_factory=list)
    timestamps: list[np.ndarray] = field(default_factory=list)
    movie: int | None = None

    def add(self, users: np.ndarray, items: np.ndarray, ratings: np.ndarray, timestamps: np.ndarray) -> None:
        """Appends columns in the smallest common integer types."""
        small_items = len(items) == 0 or (items.min() >= 0 and items.max() < 2**15)
        self.users.append(_compact(users))
        self.items.append(items.astype(np.int16) if small_items else _compact(items))
        self.ratings.append(ratings.astype(np.uint8))
        self.timestamps.append(timestamps if timestamps.dtype == np.int32 else _compact(timestamps))


def _read_netflix(sources: Iterable[Source], limits: SizeLimits) -> Columns:
    """Reads files of one movie (`mv_*.txt`) or of many (`combined_data_*.txt`), one after the other."""
    parts = _NetflixParts()
    names = []
    for source in sources:
        names.append(str(source))
        parts.movie = None
        for chunk in read_chunks(source, limits):
            if not _parse_netflix_chunk(chunk.data, parts):
                _parse_netflix_carefully(chunk, source, parts)
    if not parts.users or not sum(map(len, parts.users)):
        raise UserError("no ratings found", where=", ".join(names[:3]) or "netflix", do="Get a complete copy.")
    # One column after the other, so that the parts of only one are held twice.
    columns = []
    for column in (parts.users, parts.items, parts.ratings, parts.timestamps):
        columns.append(np.concatenate(column))
        column.clear()
    return Columns(*columns)


def _parse_netflix_chunk(data: bytes, parts: _NetflixParts) -> bool:
    """Parses whole lines with array arithmetic on their bytes; returns False, adding nothing, if anything is unusual.

    The tail of a rating line has a fixed width, ",r,YYYY-MM-DD"; what precedes it must be 1 to 9 digits.
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    is_header = text[np.maximum(ends - 1, 0)] == ord(":")
    if (ends == starts).any() or (parts.movie is None and not is_header[0]):
        return False
    movies = _digits_before(text, starts[is_header], ends[is_header] - 1, _MAX_USER_DIGITS)
    rows = ~is_header
    tails = ends[rows] - 13
    if movies is None or (len(tails) and tails.min() < 0):
        return False
    users = _digits_before(text, starts[rows], tails, _MAX_USER_DIGITS)
    values = _fixed_digits(text, tails)
    if users is None or values is None:
        return False
    ratings, seconds = values
    owners = np.concatenate([[-1 if parts.movie is None else parts.movie], movies])
    parts.add(users, owners[np.cumsum(is_header)[rows]], ratings, seconds)
    parts.movie = int(owners[-1])
    return True


def _digits_before(text: np.ndarray, starts: np.ndarray, ends: np.ndarray, most: int) -> np.ndarray | None:
    """Returns the numbers written at [start, end) of each line, or None if one is not 1 to `most` digits."""
    lengths = ends - starts
    if len(lengths) == 0:
        return np.zeros(0, np.int32)
    if lengths.min() < 1 or lengths.max() > most:
        return None
    numbers = np.zeros(len(starts), np.int32)
    for place in range(int(lengths.max())):
        digit = text[np.minimum(starts + place, ends - 1)] - np.uint8(ord("0"))
        inside = place < lengths
        if (digit[inside] > 9).any():
            return None
        numbers = np.where(inside, numbers * 10 + digit, numbers)
    return numbers


def _fixed_digits(text: np.ndarray, tails: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the rating and the seconds of the tails ",r,YYYY-MM-DD", or None if one is not exactly that."""
    for place, character in ((0, ","), (2, ","), (7, "-"), (10, "-")):
        if (text[tails + place] != ord(character)).any():
            return None
    digits = []
    for place in (1, 3, 4, 5, 6, 8, 9, 11, 12):
        digit = text[tails + place] - np.uint8(ord("0"))
        if (digit > 9).any():
            return None
        digits.append(digit.astype(np.int32))
    rating, *year, month1, month2, day1, day2 = digits
    years = year[0] * 1000 + year[1] * 100 + year[2] * 10 + year[3]
    months, days = month1 * 10 + month2, day1 * 10 + day2
    inside = (years >= _FIRST_YEAR) & (years < _END_YEAR) & (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    if not inside.all():
        return None
    seconds = _DATE_SECONDS[((years - _FIRST_YEAR) * 12 + months - 1) * 31 + days - 1]
    return None if (seconds < 0).any() else (rating, seconds)


def _parse_netflix_carefully(chunk: Chunk, source: Source, parts: _NetflixParts) -> None:
    """Reads a chunk line by line; raises the UserError of its first bad line."""
    movie = parts.movie

    def parse_line(line: str) -> list[int]:
        nonlocal movie
        if line.endswith(":"):
            movie = _integer(line[:-1], "movie id")
            return []
        fields = line.split(",")
        _fields(fields, 3)
        if movie is None:
            raise _BadLineError("a rating before the first movie line")
        user, rating = _integer(fields[0], "user id"), _integer(fields[1], "rating")
        if not 0 <= rating <= 255:
            raise _BadLineError(f"rating {rating} is out of range")
        return [user, movie, rating, _seconds_of(fields[2])]

    rows = [row for _, row in _careful_lines(chunk, source, parse_line, _NETFLIX_EXPECTED) if row]
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    parts.add(*columns)
    parts.movie = movie


def _seconds_of(date: str) -> int:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date):
            raise ValueError
        return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days * 86_400
    except ValueError:
        raise _BadLineError(f"{shorten(date)} is not a date YYYY-MM-DD") from None

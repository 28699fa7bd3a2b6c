"""Tables with named columns that a character separates."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.formats.sources import Source
from sim.formats.text_table import BLANKS, BadLineError, LineParser, TextFormat, check_field_count, is_utf8, read_csv

if TYPE_CHECKING:
    import polars as pl

_SEPARATORS = (",", "\t", ";", "|", "::", " ", "\x01")
_NUMBER_OR_EMPTY = re.compile(r"\s*\"?[+-]?[0-9]*\.?[0-9]*\"?\s*")
_TYPED = re.compile(r"(.+):(token|float)(_seq)?")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')
_WIDE = 4  # a table with so many times more columns than are wanted is read in part
_SEPARATOR_OF_ENDING = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


class TextTable(LineParser["pl.DataFrame"]):
    """A table with named columns: by its first line, or as given for a file without a header."""

    def __init__(
        self,
        source: Source,
        names: Sequence[str],
        text: TextFormat,
        given: Collection[str] = (),
        num_columns: int = 0,
        keys: str = "",
    ) -> None:
        """Stores what to read.

        Args:
            source: The file.
            names: The columns to read.
            text: How the table is written.
            given: Columns that the file may lack.
            num_columns: Of a file without a header: the number of its columns; 0: what the first line has.
            keys: The settings that name the columns, for messages.
        """
        self.keys = keys
        self.names = list(names)
        self.given = given
        self.expected_columns = num_columns
        self.given_header = text.header
        self.comment = text.comment
        self.quotes = text.quotes
        self.separator = text.separator or ""
        self.ending = PurePosixPath(source.name).suffix.lower()
        self.num_columns = 0
        self.column_indices: list[int] = []

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The columns, for messages."""
        separated = f", separated by {self.separator!r}" if self.separator else ""
        return f"the columns {', '.join(self.given_header or self.names)}{separated}"

    def read_preamble(self, line: str) -> bool:
        """Takes the separator that Excel writes above a table, as in `sep=;`, unless another one is set."""
        found = _SEPARATOR_LINE.fullmatch(line)
        if found:
            self.separator = self.separator or found[1]
        return found is not None

    def read_header(self, line: str) -> bool:
        """Locates the columns to read; raises BadLineError if one is missing."""
        self.separator = self.separator or self._separator_of(line)
        first = self._split(line)
        self.num_columns = len(first)
        if self.given_header:
            self._check_first_row(first)
        header = list(self.given_header) or names_in_header(first)
        self.names = [name for name in self.names if name in header or name not in self.given]
        for name in self.names:
            if header.count(name) != 1:
                problem = "no column" if name not in header else "more than one column"
                raise BadLineError(f"the header has {problem} {name!r}{self._hint(line, header)}")
        self.column_indices = [header.index(name) for name in self.names]
        if not self.given_header:
            _refuse_sequences([first[index] for index in self.column_indices])
        return not self.given_header

    def _check_first_row(self, row: list[str]) -> None:
        """Raises BadLineError if a file without a header has too few columns, or others than the files before."""
        if len(row) < len(self.given_header):
            check_field_count(row, len(self.given_header))
        pairs = zip(row, self.given_header, strict=False)
        if any(
            text.strip().casefold() == name.casefold() and not name.isdigit()
            for text, name in pairs
            if name in self.names
        ):
            raise BadLineError("the first line holds the names of the columns: leave out data.column_names")
        if self.expected_columns and len(row) != self.expected_columns:
            raise BadLineError(f"{len(row)} fields, where the files before have {self.expected_columns}")

    def _hint(self, line: str, header: Sequence[str]) -> str:
        """Returns what to set if the first line seems to hold no names, or other ones."""
        mark = re.match(r"#|%|//", line)
        if mark:
            return f"; data.comment={mark[0]!r} leaves out lines that begin so"
        if re.match(r"\[?\{'", line):
            return "; it is written in Python, and not in JSON"
        if all(map(_NUMBER_OR_EMPTY.fullmatch, header)) or (not self.separator and re.match(r"[0-9]", line)):
            return "; if it holds values and no names, name them, as in 'data.column_names=[user,item,rating]'"
        if len(header) < 2:
            return "; data.separator sets another separator"
        if any(name.strip() in self.names and name not in self.names for name in header):
            return f"""; if blanks stand around values, too, set 'data.separator="{self.separator} "'"""
        return f"; set {self.keys}" if self.keys else ""

    def _separator_of(self, line: str) -> str:
        """Returns the only separator with which the first line holds the columns; otherwise that of the ending.

        Raises:
            BadLineError: Neither tells it.
        """
        fitting = [separator for separator in _SEPARATORS if self._fits(line, separator)]
        if len(fitting) == 1:
            return fitting[0]
        usual = _SEPARATOR_OF_ENDING.get(self.ending)
        if usual is None:
            hint = self._hint(line, [line])
            if not hint or "data.separator" in hint:
                hint = f"; set the names of the columns, or data.separator to a character or a few, 'tab' or '{BLANKS}'"
            raise BadLineError(
                f"neither this line nor the ending {self.ending!r} tells how the columns are separated{hint}"
            )
        return usual

    def _fits(self, line: str, separator: str) -> bool:
        try:
            parts = _split_fields(line, separator, self.quotes)
        except BadLineError:
            return False
        if self.given_header:
            return len(parts) >= max(2, len(self.given_header))
        header = names_in_header(parts)
        return len(parts) > 1 and all(header.count(name) == 1 for name in self.names if name not in self.given)

    def parse_chunk(self, data: bytes) -> pl.DataFrame | None:
        """See LineParser; values are as written, empty ones empty strings."""
        import polars as pl

        unusual = (self.quotes and b'"' in data) or b"\0" in data or b"\r" in data or data.startswith(b"\xef\xbb\xbf")
        if unusual or (self.comment and f"\n{self.comment}".encode() in b"\n" + data):
            return None
        separator = self.separator
        if len(separator.encode()) > 1:
            if separator == BLANKS:
                data = re.sub(rb"(?m)^\t|\t$", b"", re.sub(rb"[ \t]+", b"\t", data))
            elif b"\t" in data:
                return None
            data, separator = data.replace(separator.encode(), b"\t"), "\t"
        lines = data.count(b"\n")
        if data.count(separator.encode()) != (self.num_columns - 1) * lines or not is_utf8(data):
            return None
        # Of a wide table, only the wanted columns, and the last one: a line that lacks fields has none there.
        wide = self.num_columns >= _WIDE * (len(self.names) + 1)
        read = sorted({*self.column_indices, self.num_columns - 1}) if wide else None
        table = read_csv(data, separator, {str(index): pl.String for index in range(self.num_columns)}, read)
        if table is None or table.height != lines:
            return None
        if wide and table[str(self.num_columns - 1)].null_count() and not self._is_even(data, separator):
            return None
        return self._frame([table[str(index)] for index in self.column_indices])

    def _is_even(self, data: bytes, separator: str) -> bool:
        """Returns whether all lines have as many fields as there are columns."""
        signs = np.frombuffer(data, np.uint8)
        before = np.searchsorted(np.flatnonzero(signs == ord(separator)), np.flatnonzero(signs == ord("\n")))
        return bool((np.diff(before, prepend=0) == self.num_columns - 1).all())

    def parse_line(self, line: str) -> list[Any]:
        """See LineParser."""
        return self._wanted(self._split(line))

    def parse_record(self, line: str, next_line: Callable[[], str]) -> list[Any]:
        """See LineParser."""
        if '"' not in line or len(self.separator) > 1 or not self.quotes:
            return self.parse_line(line)
        taken = [line]

        def lines() -> Iterator[str]:
            yield from (f"{text}\n" for text in list(taken))
            while True:
                taken.append(next_line())
                yield f"{taken[-1]}\n"

        try:
            return self._wanted(_next_record(lines(), self.separator))
        except BadLineError:
            # A quote within quotes is usually doubled, but may follow a backslash.
            if not any('\\"' in text for text in taken):
                raise
            return self._wanted(_next_record(lines(), self.separator, escape="\\"))

    def _wanted(self, parts: list[str]) -> list[Any]:
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
        return _split_fields(line, self.separator, self.quotes)


def names_in_header(fields: list[str]) -> list[str]:
    """Returns the names of columns; those of RecBole's atomic files stand before their types (`user_id:token`)."""
    typed = [_TYPED.fullmatch(name) for name in fields]
    return [match[1] for match in typed if match] if all(typed) else fields


def _refuse_sequences(fields: list[str]) -> None:
    for name in fields:
        if (match := _TYPED.fullmatch(name)) and match[3]:
            raise BadLineError(f"the column {match[1]!r} holds sequences ({match[2]}{match[3]}), which cannot be read")


def _split_fields(line: str, separator: str, quotes: bool) -> list[str]:
    """Returns the fields of a line; raises BadLineError if it is wrongly quoted."""
    if separator == BLANKS:
        return re.split(r"[ \t]+", line.strip(" \t"))
    if '"' not in line or len(separator) > 1 or not quotes:
        return line.split(separator)
    return _next_record(iter([line]), separator)


def _next_record(lines: Iterator[str], separator: str, escape: str | None = None) -> list[str]:
    """Returns the fields of the next record; quotes within quotes are doubled, or follow `escape`."""
    reader = csv.reader(lines, delimiter=separator, strict=True, doublequote=escape is None, escapechar=escape)
    try:
        return next(reader)
    except csv.Error as error:
        raise BadLineError(f"wrongly quoted ({error})") from None

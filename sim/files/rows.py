"""Rows of a table, and their conversion to ids, numbers, times and codes.

`sim.files.tables` provides the columns chunk by chunk; here whole columns are converted, and the first value that
cannot be right is reported with its line. Ratings and events are read through this alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.errors import UserError
from sim.formats.sources import Source, shorten
from sim.formats.text_table import (
    MAX_ID_CHARACTERS,
    BadLineError,
    TextFormat,
    parse_number,
)
from sim.formats.text_times import YEAR_LAST, are_dates, seconds_of
from sim.tables.placeholders import missing_values_setting, stand_for_nothing

if TYPE_CHECKING:
    import polars as pl

TimeFormat = Literal["auto", "seconds", "milliseconds", "microseconds", "nanoseconds", "text"]
_PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_END_OF_TIME = 253_402_300_800  # the year 10,000
_LARGEST_SECONDS = 10**11  # the year 5138; as milliseconds, March 1973
_SCIENTIFIC = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?[eE]\+|[0-9]+\.[0-9]*[eE])[0-9]+$"  # 1e5 may be a name
_LARGE_FLOAT = r"^-?[0-9]{16,}\.0+$"
_EXACT_BITS = {"Float32": 24, "Float64": 53}


@dataclass(frozen=True)
class TableLayout:
    """The layout of a table of ratings.

    Attributes:
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids.
        rating_column: Name of the column of ratings; None: every row is an interaction that counts `implicit_rating`.
        timestamp_column: Name of the column of times, or None.
        text: How the file is written, if it is text.
        time_format: Unused if a Parquet column holds dates or datetimes.
        implicit_rating: See `rating_column`.
        rating_of_event: What each value of the rating column counts, if it holds names of events; None: its rows are
            left out.
        missing_ratings: Ratings that mean "not rated"; their rows are left out.
        missing_values: Texts that mean that a user, item, rating or time is not known; their rows are left out.
        rating_steps: Increasing; a number of the rating column counts 1 + how many of these it reaches. Empty: itself.
    """

    user_column: str = "user"
    item_column: str = "item"
    rating_column: str | None = "rating"
    timestamp_column: str | None = None
    text: TextFormat = field(default_factory=TextFormat)
    time_format: TimeFormat = "auto"
    implicit_rating: float = 1.0
    rating_of_event: Mapping[str, float | None] = field(default_factory=dict)
    missing_ratings: Sequence[float] = ()
    missing_values: Sequence[str] = ()
    rating_steps: Sequence[float] = ()

    @property
    def names(self) -> list[str]:
        """The columns to read: user, item and, unless None, rating and timestamp."""
        names = (self.user_column, self.item_column, self.rating_column, self.timestamp_column)
        return [name for name in names if name is not None]


@dataclass(frozen=True)
class Rows:
    """Rows of a file: strings from a text file, any column type from a Parquet file.

    Attributes:
        frame: The rows.
        source: The file.
        first: Number of the first row in the file.
        line_numbers: Number of each row in the file, if they are not consecutive.
        unit: "line" or "row", for messages.
        unterminated: Whether these are the last rows of a file whose last line is not terminated.
        missing: What data.missing_values holds, if it has had a say (`known`); for messages.
        fractional: Columns of floats that are not all whole in the file, though they may be in these rows.
    """

    frame: pl.DataFrame
    source: Source
    first: int
    line_numbers: Sequence[int] | np.ndarray | None = None
    unit: str = "line"
    unterminated: bool = False
    missing: Sequence[str] | None = None
    fractional: frozenset[str] = frozenset()

    def lines(self) -> np.ndarray:
        """Returns [R] int32 the number of each row in the file."""
        if self.line_numbers is not None:
            return np.asarray(self.line_numbers, np.int32)
        return np.arange(self.first, self.first + self.frame.height, dtype=np.int32)

    def kept(self, kept: pl.Series) -> Rows:
        """Returns some of the rows (bool), which keep their numbers."""
        if kept.all():
            return self
        return dataclasses.replace(self, frame=self.frame.filter(kept), line_numbers=self.lines()[kept.to_numpy()])

    def known(self, columns: Sequence[str | None], missing: Sequence[str]) -> Rows:
        """Returns the rows without a text of `missing` in any of the columns (None: a column that there is not).

        -1.0 is -1, as it is among ids.
        """
        self = dataclasses.replace(self, missing=missing)
        texts = [re.sub(r"(?<=[0-9])\.0+$", "", text) for text in missing]
        for column in filter(None, columns if missing else ()):
            self = self.kept(~self.texts(column).str.replace(r"\.0+$", "").is_in(texts))
        return self

    def refuse(self, column: str, bad: pl.Series, problem: str, do: str) -> None:
        """Raises a UserError that names the first invalid row, if any.

        Args:
            column: The column with the invalid value.
            bad: Bool, the invalid rows.
            problem: What is wrong with the value; it follows the value in the message.
            do: What to do about it.
        """
        if bad.any():
            row = int(bad.arg_max() or 0)
            value = "" if self.frame[column][row] is None else str(self.frame[column][row])
            what = f"{self.place(row)}: {column} {shorten(value)} {problem}"
            raise UserError(what, where=str(self.source), do=do)

    def place(self, row: int) -> str:
        """Returns where a row stands in the file, as in "line 7"."""
        number = self.first + row if self.line_numbers is None else self.line_numbers[row]
        return f"{self.unit} {number:,}"

    def texts(self, column: str) -> pl.Series:
        """Returns a column as strings, missing values as empty ones.

        Raises:
            UserError: The column's type has no text.
        """
        import polars as pl

        values = self.frame[column]
        if values.dtype == pl.String:
            return values.fill_null("")
        if values.dtype in (pl.Float32, pl.Float64):
            values = values.fill_nan(None)  # how float columns say that a value is missing
        try:
            if values.dtype.is_nested() or values.dtype in (pl.Duration, pl.Object):
                raise TypeError
            texts = values.cast(pl.String).fill_null("")
            if values.dtype != pl.Binary or not texts.str.contains(r"[\x00-\x1f\x7f]").any():
                return texts
        except (pl.exceptions.PolarsError, TypeError):
            pass
        if values.dtype == pl.Binary and values.bin.size().eq(16).all():
            return _uuid_texts(values)
        reason = {pl.Binary: ", which is neither text nor UUIDs", pl.Duration: ", which is no time of a calendar"}
        raise UserError(
            f"column {column!r} has type {values.dtype}{reason.get(values.dtype.base_type(), '')}",
            where=str(self.source),
            do="Expected numbers, strings or times: convert the column.",
        )

    def ids(self, column: str) -> pl.Series:
        """Returns a column of ids as strings, after checking them.

        Whole numbers stored as floats are ids as long as floats of that type represent them exactly.
        """
        texts = self.exact_texts(column)
        self.refuse_empty(column, texts)
        do = f"Expected ids of 1 to {MAX_ID_CHARACTERS} characters. Correct or remove the {self.unit}."
        self.refuse(column, texts.str.len_bytes() > MAX_ID_CHARACTERS, "is too long", do)
        self.refuse(column, texts.str.contains("\0", literal=True), "contains a NUL character", do)
        return texts

    def exact_texts(self, column: str) -> pl.Series:
        """Returns a column as strings, missing values as empty ones, after refusing numbers whose digits are lost."""
        import polars as pl

        values = self.frame[column]
        if values.dtype in (pl.Float32, pl.Float64):
            bits = _EXACT_BITS[str(values.dtype)]
            values = values.fill_nan(None)
            beyond = (values.abs() > 2**bits).fill_null(False)
            self.refuse(column, beyond, f"is beyond 2^{bits}, where {values.dtype} merges ids", LOST_DIGITS)
            if column not in self.fractional and (values == values.floor()).all():
                return values.cast(pl.Int64).cast(pl.String).fill_null("")
        texts = self.texts(column)
        self.refuse(column, texts.str.contains(_SCIENTIFIC), "is in scientific notation", LOST_DIGITS)
        large = texts.str.contains(_LARGE_FLOAT)
        if large.any():
            whole = texts.str.replace(r"\.0+$", "").str.strip_chars_start("-").str.zfill(20)
            self.refuse(column, large & (whole > f"{2**53:020}"), "is beyond 2^53, where floats merge ids", LOST_DIGITS)
        return texts

    def refuse_empty(self, column: str, texts: pl.Series) -> None:
        """Raises a UserError that names the first row without a value, if any."""
        do = f"Expected a value. Correct or remove the {self.unit}{self.or_leave_out('')}."
        self.refuse(column, texts == "", "is empty", do)

    def or_leave_out(self, text: str) -> str:
        """Returns the end of an advice: how to leave out rows with a text that means that there is no value."""
        if self.missing is None:
            return ""
        return f", or leave such {self.unit}s out: {missing_values_setting(self.missing, [text])}"

    def numbers(self, column: str) -> pl.Series:
        """Returns a column of finite numbers as float64."""
        import polars as pl

        values = self.frame[column]
        do = f"Expected a finite number, as in 3.5. Correct or remove the {self.unit}."
        if values.dtype.is_numeric():
            empty = f"Expected a finite number, as in 3.5. Correct or remove the {self.unit}{self.or_leave_out('')}."
            self.refuse(column, values.is_null(), "is empty", empty)
            numbers = values.cast(pl.Float64)
            self.refuse(column, numbers.is_nan(), "is not a finite number", empty)
            self.refuse(column, ~numbers.is_finite(), "is not a finite number", do)
            return numbers
        # Each distinct text is parsed once, by Python's rules.
        texts = self.texts(column)
        self.refuse_empty(column, texts)
        distinct = texts.unique()
        problems: dict[str, str] = {}
        parsed: list[float | None] = []
        for text in distinct.to_list():
            try:
                parsed.append(parse_number(text, "it"))
            except BadLineError as error:
                problems[text] = str(error).rpartition(" is ")[2]
                parsed.append(None)
        if problems:
            bad = texts.is_in(list(problems))
            first = texts[int(bad.arg_max() or 0)]
            if stand_for_nothing(pl.Series([first])).any():
                do = f"Expected a finite number, as in 3.5. Correct the {self.unit}{self.or_leave_out(first)}."
            if all(re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text) for text in problems):
                do = "Its numbers have decimal commas: export them with points."
            self.refuse(column, bad, f"is {problems[first]}", do)
        return texts.replace_strict(distinct, pl.Series(parsed, dtype=pl.Float64))

    def time_format(self, column: str) -> TimeFormat:
        """Returns the format of a column of times by its median, which few damaged values do not move."""
        import polars as pl

        texts = self.texts(column)
        numbers = texts.cast(pl.Float64, strict=False)
        median = numbers.median()
        if 2 * numbers.null_count() > len(numbers) or not isinstance(median, float) or are_dates(texts, median):
            return "text"
        units: tuple[TimeFormat, ...] = ("seconds", "milliseconds", "microseconds")
        return next((unit for unit in units if median < _LARGEST_SECONDS * _PER_SECOND[unit]), "nanoseconds")

    def times(self, column: str, time_format: TimeFormat) -> pl.Series:
        """Returns a column of times as seconds since 1970.

        Args:
            time_format: Unused if a Parquet column holds dates or datetimes.
        """
        import polars as pl

        values = self.frame[column]
        if values.dtype in (pl.Datetime, pl.Date):
            if values.null_count():
                self.refuse_empty(column, self.texts(column))
            return values.cast(pl.Datetime("us")).dt.epoch("s")
        if time_format == "auto":
            time_format = self.time_format(column)
        if time_format == "text":
            return self._text_times(column)
        other = "Set data.time_format=milliseconds, seconds or text (as in 2016-01-31 23:59:02) if it is written so."
        return self.numeric_times(column, time_format, other) // _PER_SECOND[time_format]

    def within(self, column: str, time_format: TimeFormat, begin: int, end: int) -> Rows:
        """Returns the rows whose time is from `begin` on and before `end` (seconds since 1970); no other is checked."""
        import polars as pl

        if time_format == "text" or not isinstance(self.frame[column].dtype, pl.String):
            return self.kept(self.times(column, time_format).is_between(begin, end - 1))
        unit = _PER_SECOND[time_format]
        numbers = self.texts(column).cast(pl.Float64, strict=False)
        return self.kept(numbers.is_between(begin * unit, end * unit, closed="left").fill_null(True))

    def _text_times(self, column: str) -> pl.Series:
        """Returns times such as 2016-01-31 23:59 (`sim.formats.text_times`)."""
        do = "Expected YYYY-MM-DD HH:MM:SS (UTC, or with +HH:MM), or set data.time_format=seconds or milliseconds."
        texts = self.texts(column)
        self.refuse_empty(column, texts)
        seconds = seconds_of(texts)
        bad = seconds.is_null()
        if bad.any() and re.match(YEAR_LAST, texts[int(bad.arg_max() or 0)]):
            why = "is not read, since some write the day first and others the month"
            self.refuse(column, bad, why, "Write the year first, as in 2016-01-31.")
        self.refuse(column, bad, "is not a time", do)
        self.refuse(column, ~seconds.is_between(0, _END_OF_TIME - 1), "is not a time from 1970 to 9999", do)
        return seconds

    def numeric_times(self, column: str, unit: str, otherwise: str = "") -> pl.Series:
        """Returns a column of times since 1970 as integers of their unit.

        Args:
            unit: "seconds", "milliseconds", "microseconds" or "nanoseconds".
            otherwise: Advice if the column contains something else; empty: to correct the file.
        """
        import polars as pl

        texts = self.texts(column)
        self.refuse_empty(column, texts)
        numbers = texts.cast(pl.Int64, strict=False)
        if numbers.null_count():
            numbers = numbers.fill_null(texts.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False))
        do = f"Expected {unit} since 1970. {otherwise or f'Correct or remove the {self.unit}.'}"
        self.refuse(column, numbers.is_null(), f"is not a time in {unit}", do)
        end = min(_END_OF_TIME * _PER_SECOND[unit], 2**63 - 1)
        self.refuse(column, ~numbers.is_between(0, end - 1), "is not a time from 1970 to 9999", do)
        return numbers

    def codes(self, column: str, code_of_text: Mapping[str, int], do: str) -> pl.Series:
        """Returns the code of every value, as int8."""
        import polars as pl

        texts = self.texts(column)
        self.refuse(column, ~texts.is_in(list(code_of_text)), f"is not one of {', '.join(map(repr, code_of_text))}", do)
        return texts.replace_strict(list(code_of_text), list(code_of_text.values()), return_dtype=pl.Int8)


def _uuid_texts(values: pl.Series) -> pl.Series:
    """Returns 16 bytes each as the text of a UUID; missing ones as empty texts."""
    import polars as pl

    digits = values.bin.encode("hex")
    places = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))
    parts = [digits.str.slice(place, length) for place, length in places]
    return pl.select(pl.concat_str(parts, separator="-")).to_series().fill_null("").rename(values.name)


LOST_DIGITS = "Digits of such ids are lost, and different ids become one: export the column as integers or as text."
"""Advice for users whose ids are floats."""


def integers_if_plain(column: pl.Series) -> pl.Series:
    """Returns a string column as Int64 if every text is exactly how its integer is written."""
    import polars as pl

    if column.dtype == pl.Int64:
        return column
    numbers = column.cast(pl.Int64, strict=False)
    return numbers if not numbers.null_count() and bool((numbers.cast(pl.String) == column).all()) else column

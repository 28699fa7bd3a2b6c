"""Reads a data set of ratings: the MovieLens layouts, Netflix, and tables of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from sim.files.cache import notice
from sim.files.ids import IdColumn, id_array
from sim.files.netflix import read_netflix
from sim.files.rows import Rows, TableLayout
from sim.files.tables import read_tables
from sim.formats.sources import SizeLimits, Source, describe_sources
from sim.formats.text_table import (
    BadLineError,
    Columns,
    LineParser,
    check_field_count,
    compact,
    parse_file,
    parse_integer,
    parse_number,
    read_csv,
)

if TYPE_CHECKING:
    import polars as pl

PARSER_VERSION = 6
"""Increment when the same file would be parsed differently; cached tables then expire."""

_COLUMN_KEYS = "data.user_column, data.item_column, data.rating_column and data.timestamp_column"
READERS = ("movielens_dat", "movielens_data", "movielens_csv", "netflix", "table")


def read_ratings(
    reader: str, sources: Sequence[Source], *, layout: TableLayout | None = None, limits: SizeLimits | None = None
) -> Columns:
    """Parses one data set.

    Args:
        reader: One of `READERS`.
        sources: The files in a fixed order. Only "netflix" and "table" take more than one.
        layout: Columns of a generic table; unused by the other readers.
        limits: Limits on the size of unpacked files.

    Returns:
        The columns; ids are integers where the whole column consists of plain integers (or of integers written as
        floats), else strings (so "007" keeps its spelling in a generic table).

    Raises:
        UserError: A file is missing, empty, damaged, of another layout, or has a malformed line or value.
    """
    limits = limits or SizeLimits()
    if reader == "netflix":
        return read_netflix(sources, limits)
    if reader == "table":
        return _read_table(sources, layout or TableLayout(), limits)
    if reader not in _DELIMITED:
        raise UserError(f"unknown reader {reader!r}", where="data.reader", do=f"Choose one of: {', '.join(READERS)}.")
    if len(sources) != 1:
        raise UserError(f"{len(sources)} files match, where one is expected", where=f"reader {reader}")
    return _read_lines(sources[0], _DELIMITED[reader], limits)


def _read_lines(source: Source, parser: LineParser[list[np.ndarray]], limits: SizeLimits) -> Columns:
    """Reads a file of one rating per line."""
    parts: list[list[np.ndarray]] = []
    unterminated = False
    for chunk, part in parse_file(source, parser, limits):
        parts.append(part)
        unterminated = chunk.unterminated
    columns = Columns(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if unterminated and columns.timestamps is not None:
        _check_last_timestamp(columns.timestamps, source)
    return columns


def _check_last_timestamp(timestamps: np.ndarray, source: Source) -> None:
    """Refuses a last timestamp that seems to have lost digits in a file whose last line is unterminated.

    A lost digit divides a timestamp by ten, so that it precedes all others. A complete file would look the same only if
    its last line were unterminated and had the oldest timestamp, with fewer digits.
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


def _read_table(sources: Sequence[Source], layout: TableLayout, limits: SizeLimits) -> Columns:
    """Reads a table of one file or several."""
    import polars as pl

    where = describe_sources(sources)
    users, items = IdColumn("user", where), IdColumn("item", where)
    ratings, times, lines, unit = [], list[pl.Series](), [], "line"
    source, time_format, earlier, left_out = None, layout.time_format, 0, 0
    # Chunk by chunk: leave out what is missing, then convert the rest.
    for every in read_tables(sources, layout.names, limits, layout.text, _COLUMN_KEYS):
        rows = every.known(layout.names, layout.missing_values)
        rating = _ratings(rows, layout)
        if layout.missing_ratings:
            rated = ~rating.is_in(list(layout.missing_ratings))
            rows, rating = rows.kept(rated), rating.filter(rated)
        left_out += every.frame.height - rows.frame.height
        users.add(rows.ids(layout.user_column))
        items.add(rows.ids(layout.item_column))
        ratings.append(rating)
        lines.append(rows.lines())
        unit = rows.unit
        if rows.source != source:  # each file may have its own unit of time
            source, time_format, earlier = rows.source, layout.time_format, len(times)
        if layout.timestamp_column is not None:
            if time_format == "auto":
                time_format = rows.time_format(layout.timestamp_column)
            times.append(rows.times(layout.timestamp_column, time_format))
            if rows.unterminated:
                _check_last_timestamp(pl.concat(times[earlier:]).to_numpy(), rows.source)
    # Join the chunks.
    if left_out:
        notice(f"{where}: {left_out:,} rows left out by data.missing_values and data.missing_ratings")
    return Columns(
        users=_values(users),
        items=_values(items),
        ratings=pl.concat(ratings).to_numpy(),
        timestamps=compact(pl.concat(times).to_numpy()) if times else None,
        lines=np.concatenate(lines) if len(sources) == 1 else None,
        unit=unit,
    )


def _values(column: IdColumn) -> np.ndarray:
    index, ids = column.finish()
    return id_array(ids)[index]


def _ratings(rows: Rows, layout: TableLayout) -> pl.Series:
    """Returns the ratings of some rows: as written, of the events that the column names, or the same for all."""
    import polars as pl

    if layout.rating_column is None:
        return pl.repeat(layout.implicit_rating, rows.frame.height, dtype=pl.Float64, eager=True)
    if layout.rating_steps:
        steps = np.searchsorted(np.asarray(layout.rating_steps), rows.numbers(layout.rating_column), side="right")
        return pl.Series(1.0 + steps)
    if not layout.rating_of_event:
        return rows.numbers(layout.rating_column)
    do = "Set what it counts, as in '+data.rating_of_event={view: 1, buy: 5}'."
    counts = layout.rating_of_event
    # 1.0 is what 1 is: a missing value turns a column of integers into floats.
    floats = {f"{name}.0": count for name, count in counts.items() if name.isascii() and name.isdigit()}
    return rows.codes(layout.rating_column, floats | dict(counts), do, dtype=pl.Float64)


class _Delimited(LineParser[list[np.ndarray]]):
    """The MovieLens layouts: integer user, integer item, rating, integer timestamp."""

    def __init__(self, separator: str, expected: str, header: str | None = None) -> None:
        self.separator, self.expected, self.header = separator, expected, header
        self._allowed = b"0123456789.-\n" + separator.encode()

    def read_header(self, line: str) -> bool:
        if self.header is None:
            return False
        if line != self.header:
            raise BadLineError(f"the header is not {self.header}")
        return True

    def parse_chunk(self, data: bytes) -> list[np.ndarray] | None:
        import polars as pl

        # Only these bytes: no blanks, quotes, exponents, NaN or letters, which Polars might read differently.
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
        table = read_csv(data, separator, schema)
        if table is None or table.height != lines or any(column.null_count() for column in table):
            return None
        users, items, ratings, timestamps = (column.to_numpy() for column in table)
        if not np.isfinite(ratings).all():
            return None
        return [compact(users), compact(items), ratings, compact(timestamps)]

    def parse_line(self, line: str) -> list[Any]:
        parts = line.split(self.separator)
        check_field_count(parts, 4)
        return [
            parse_integer(parts[0], "user id"),
            parse_integer(parts[1], "item id"),
            parse_number(parts[2], "rating"),
            parse_integer(parts[3], "timestamp"),
        ]

    def collect(self, rows: list[list[Any]]) -> list[np.ndarray]:
        users, items, ratings, timestamps = map(np.array, zip(*rows, strict=True))
        return [compact(users), compact(items), ratings, compact(timestamps)]


_DELIMITED = {
    "movielens_dat": _Delimited("::", "user::item::rating::timestamp"),
    "movielens_data": _Delimited("\t", "user, item, rating and timestamp, separated by tabs"),
    "movielens_csv": _Delimited(
        ",", "the columns userId,movieId,rating,timestamp", header="userId,movieId,rating,timestamp"
    ),
}

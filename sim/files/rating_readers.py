"""Reads a data set of ratings: the MovieLens layouts, Netflix, and tables of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from sim.files.ids import IdColumn, NotationError, id_array
from sim.files.netflix import read_netflix
from sim.files.rows import Rows, TableLayout
from sim.files.tables import read_tables
from sim.files.unknown_names import IGNORE, UnknownNameError, refuse_unknown, setting_of_names, with_counts
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

PARSER_VERSION = 7
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
    lines = []
    unterminated = False
    for chunk, part in parse_file(source, parser, limits):
        parts.append(part)
        numbers = chunk.numbers or range(chunk.first_line, chunk.first_line + len(part[0]))
        lines.append(np.array(numbers, np.int32))
        unterminated = chunk.unterminated
    users, items, ratings, times = (np.concatenate(column) for column in zip(*parts, strict=True))
    columns = Columns(users, items, ratings, times, np.concatenate(lines))
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
    source, time_format, earlier = None, layout.time_format, 0
    files: list[tuple[int, str]] = []
    left_out = {
        key: 0
        for key, given in (
            ("data.missing_values", layout.missing_values),
            ("data.missing_ratings", layout.missing_ratings),
        )
        if given
    }
    # Chunk by chunk: leave out what is missing, then convert the rest.
    for every in read_tables(sources, layout.names, limits, layout.text, _COLUMN_KEYS):
        rows = every.known(layout.names, layout.missing_values)
        if layout.missing_values:
            left_out["data.missing_values"] += every.frame.height - rows.frame.height
        try:
            rating = _ratings(rows, layout)
        except UnknownNameError as error:
            raise _with_counts(error, read_tables(sources, layout.names, limits, layout.text), layout) from None
        if layout.rating_of_event and rating.null_count():
            left_out["data.rating_of_event"] = left_out.get("data.rating_of_event", 0) + rating.null_count()
            rows, rating = rows.kept(rating.is_not_null()), rating.drop_nulls()
        if layout.missing_ratings:
            rated = ~rating.is_in(list(layout.missing_ratings))
            left_out["data.missing_ratings"] += int((~rated).sum())
            rows, rating = rows.kept(rated), rating.filter(rated)
        users.add(rows.ids(layout.user_column))
        items.add(rows.ids(layout.item_column))
        ratings.append(rating)
        lines.append(rows.lines())
        unit = rows.unit
        if rows.source != source:  # each file may have its own unit of time
            source, time_format, earlier = rows.source, layout.time_format, len(times)
            files.append((sum(map(len, ratings[:-1])), source.name))
        if layout.timestamp_column is not None:
            if time_format == "auto":
                time_format = rows.time_format(layout.timestamp_column)
            times.append(rows.times(layout.timestamp_column, time_format))
            if rows.unterminated:
                _check_last_timestamp(pl.concat(times[earlier:]).to_numpy(), rows.source)
    # Join the chunks.
    columns = {layout.user_column: users, layout.item_column: items}
    user_ids, item_ids = (
        _values(ids, name, lambda: read_tables(sources, layout.names, limits, layout.text))
        for name, ids in columns.items()
    )
    return Columns(
        users=user_ids,
        items=item_ids,
        ratings=pl.concat(ratings).to_numpy(),
        timestamps=compact(pl.concat(times).to_numpy()) if times else None,
        lines=np.concatenate(lines),
        unit=unit,
        files=files if len(sources) > 1 else (),
        left_out=left_out,
    )


def _values(ids: IdColumn, column: str, tables: Callable[[], Iterable[Rows]]) -> np.ndarray:
    try:
        index, distinct = ids.finish()
    except NotationError as error:
        raise error.found_in(column, tables()) from None
    return id_array(distinct)[index]


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
    texts, counts = rows.texts(layout.rating_column), _counts_of_names(layout)
    refuse_unknown(rows, layout.rating_column, texts, counts, layout.rating_of_event)
    return texts.replace_strict(list(counts), list(counts.values()), return_dtype=pl.Float64)


def _counts_of_names(layout: TableLayout) -> dict[str, float | None]:
    """Returns what each name counts; 1.0 is what 1 is, since a missing value turns a column of integers into floats."""
    counts = layout.rating_of_event
    return {f"{name}.0": count for name, count in counts.items() if name.isascii() and name.isdigit()} | dict(counts)


def _with_counts(error: UnknownNameError, tables: Iterable[Rows], layout: TableLayout) -> UserError:
    """Returns the error with all unknown names and their numbers, and what to set."""
    column, known = layout.rating_column or "", layout.rating_of_event

    def advice(names: Sequence[str]) -> str:
        meanings = [f"{name}={IGNORE if count is None else f'{count:g}'}" for name, count in known.items()]
        setting = setting_of_names("data.rating_of_event", [*meanings, *(f"{name}={IGNORE}" for name in names)])
        return f"Say what each counts, or ignore its rows, as in {setting}."

    texts = (rows.known(layout.names, layout.missing_values).texts(column) for rows in tables)
    return with_counts(error, texts, _counts_of_names(layout), list(known), advice)


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

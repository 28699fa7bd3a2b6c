"""The Netflix Prize layout: "movie:" lines, each followed by "user,rating,YYYY-MM-DD" lines."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.errors import UserError
from sim.formats.chunks import Chunk, read_chunks
from sim.formats.sources import SizeLimits, Source, shorten
from sim.formats.text_table import (
    BadLineError,
    CarefulRecords,
    Columns,
    check_field_count,
    compact,
    parse_integer,
    read_csv,
)

_EXPECTED = "a line 'movie:' or a line 'user,rating,YYYY-MM-DD' with an integer rating"
_CHUNK_BYTES = 1 << 23  # Polars' tables of a chunk take several times its bytes


@dataclass
class _NetflixParts:
    """The columns so far, and the movie of the next rating (None at the start of a file)."""

    users: list[np.ndarray] = field(default_factory=list)
    items: list[np.ndarray] = field(default_factory=list)
    ratings: list[np.ndarray] = field(default_factory=list)
    timestamps: list[np.ndarray] = field(default_factory=list)
    movie: int | None = None

    def add(self, users: np.ndarray, items: np.ndarray, ratings: np.ndarray, timestamps: np.ndarray) -> None:
        """Appends columns in the smallest common integer types."""
        small_items = len(items) == 0 or (items.min() >= 0 and items.max() < 2**15)
        self.users.append(compact(users))
        self.items.append(items.astype(np.int16) if small_items else compact(items))
        self.ratings.append(ratings.astype(np.uint8))
        self.timestamps.append(compact(timestamps))


def read_netflix(sources: Sequence[Source], limits: SizeLimits) -> Columns:
    """Reads files of one movie (`mv_*.txt`) or of many (`combined_data_*.txt`), one after the other."""
    parts = _NetflixParts()
    for source in sources:
        parts.movie = None
        for chunk in read_chunks(source, limits, _CHUNK_BYTES):
            if not _parse_chunk(chunk.data, parts):
                _parse_carefully(chunk, source, parts)
    if not sum(map(len, parts.users)):
        where = ", ".join(map(str, sources[:3])) or "netflix"
        raise UserError("no ratings found", where=where, do="Get a complete copy.")
    # One column after the other, so that only one is in memory twice.
    columns = []
    for column in (parts.users, parts.items, parts.ratings, parts.timestamps):
        columns.append(np.concatenate(column))
        column.clear()
    return Columns(*columns)


def _parse_chunk(data: bytes, parts: _NetflixParts) -> bool:
    """Parses whole lines with Polars; returns False, adding nothing, if anything is unusual."""
    import polars as pl

    # Only these bytes: no blanks, quotes or letters, which Polars might read differently.
    if data.translate(None, b"0123456789,-:\n"):
        return False
    lines, num_movies = data.count(b"\n"), data.count(b":")
    # Polars pads short lines and refuses long ones, so the right total of separators means that no line is short.
    if data.count(b",") != 2 * (lines - num_movies):
        return False
    schema = {"id": pl.Int64, "rating": pl.UInt8, "date": pl.String}
    table = read_csv(data.replace(b":", b",,"), ",", schema)
    if table is None or table.height != lines or table["id"].null_count():
        return False
    is_movie, is_rating = table["rating"].is_null(), table["date"].is_not_null()
    if is_movie.sum() != num_movies or (is_movie == is_rating).any():
        return False

    # Each rating belongs to the movie line before it, which may be in an earlier chunk.
    before = pl.lit(parts.movie, pl.Int64)
    movie = pl.when(is_movie).then("id").forward_fill().fill_null(before).alias("movie")
    table = table.with_columns(movie)
    rows = table.filter(is_rating)
    dates = rows["date"].unique()
    try:
        seconds_of_date = pl.Series(map(_seconds_of, dates.to_list()), dtype=pl.Int64)
    except BadLineError:
        return False
    if rows["movie"].null_count():
        return False
    seconds = rows["date"].replace_strict(dates, seconds_of_date).to_numpy()
    parts.add(rows["id"].to_numpy(), rows["movie"].to_numpy(), rows["rating"].to_numpy(), seconds)
    parts.movie = int(table["movie"][-1])
    return True


def _parse_carefully(chunk: Chunk, source: Source, parts: _NetflixParts) -> None:
    """Reads a chunk line by line; raises the UserError of its first bad line."""
    movie = parts.movie

    def parse_line(line: str) -> list[int]:
        nonlocal movie
        if line.endswith(":"):
            movie = parse_integer(line[:-1], "movie id")
            return []
        fields = line.split(",")
        check_field_count(fields, 3)
        if movie is None:
            raise BadLineError("a rating before the first movie line")
        user, rating = parse_integer(fields[0], "user id"), parse_integer(fields[1], "rating")
        if not 0 <= rating <= 255:
            raise BadLineError(f"rating {rating} is out of range")
        return [user, movie, rating, _seconds_of(fields[2])]

    records = CarefulRecords(chunk, source, lambda line, _: parse_line(line), _EXPECTED)
    if records.problem is not None:
        raise records.problem
    rows = [row for row in records.rows if row]
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    parts.add(*columns)
    parts.movie = movie


def _seconds_of(date: str) -> int:
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", date):
            raise ValueError
        return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days * 86_400
    except ValueError:
        raise BadLineError(f"{shorten(date)} is not a date YYYY-MM-DD") from None

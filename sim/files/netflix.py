"""The Netflix Prize layout: "movie:" lines, each followed by "user,rating,YYYY-MM-DD" lines."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from harness.errors import UserError
from sim.files.sources import Chunk, SizeLimits, Source, read_chunks, shorten
from sim.files.text_table import BadLineError, Columns, careful_lines, check_field_count, compact, parse_integer

_EXPECTED = "a line 'movie:' or a line 'user,rating,YYYY-MM-DD' with an integer rating"
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
        self.users.append(compact(users))
        self.items.append(items.astype(np.int16) if small_items else compact(items))
        self.ratings.append(ratings.astype(np.uint8))
        self.timestamps.append(timestamps if timestamps.dtype == np.int32 else compact(timestamps))


def read_netflix(sources: Iterable[Source], limits: SizeLimits) -> Columns:
    """Reads files of one movie (`mv_*.txt`) or of many (`combined_data_*.txt`), one after the other."""
    parts = _NetflixParts()
    names = []
    for source in sources:
        names.append(str(source))
        parts.movie = None
        for chunk in read_chunks(source, limits):
            if not _parse_chunk(chunk.data, parts):
                _parse_carefully(chunk, source, parts)
    if not parts.users or not sum(map(len, parts.users)):
        raise UserError("no ratings found", where=", ".join(names[:3]) or "netflix", do="Get a complete copy.")
    # One column after the other, so that the parts of only one are held twice.
    columns = []
    for column in (parts.users, parts.items, parts.ratings, parts.timestamps):
        columns.append(np.concatenate(column))
        column.clear()
    return Columns(*columns)


def _parse_chunk(data: bytes, parts: _NetflixParts) -> bool:
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

    rows = [row for _, row in careful_lines(chunk, source, parse_line, _EXPECTED) if row]
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

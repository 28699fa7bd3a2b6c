"""Files of what is asked for: a history, and lists of ids."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import UserError

_SEPARATORS = ("\t", ";", "|", ",")
_PARQUET = b"PAR1"
_ITEM = re.compile(r"(item|movie|product|sku|title|track|article|news|video|book|business)?_?(id)?s?")
_USER = re.compile(r"(user|customer|visitor|member|person)?_?(id)?s?")
_ANSWER = re.compile(r"answer|rating|stars|score|feedback|event|behaviou?r|action|type|click")
_TIME = re.compile(r"(time|timestamp|date|datetime|ts)")


def read_history(path: str, is_answer: Callable[[Any], bool], answer_kind: str) -> list[tuple[Any, Any]]:
    """Reads (item, answer) of one user in order of time.

    The columns are item, answer and perhaps time, in this order, or in any with a line of names. Without times the
    rows are in order.

    Args:
        path: CSV, TSV or Parquet.
        is_answer: Whether a value is an answer; a first row whose answer is none holds names.
        answer_kind: What an answer is, for messages.

    Raises:
        UserError: No such file, or no history in it.
    """
    rows = _read_rows(path)
    if len(rows[0]) < 2:
        raise UserError("line 1 has one column, a history has item and answer", where=path, do="Add the answers.")
    columns: Sequence[int | None] = (0, 1, 2 if len(rows[0]) > 2 else None)
    if not is_answer(rows[0][1]):
        names = [str(name).strip().lower() for name in rows.pop(0)]
        columns = [_column(names, pattern) for pattern in (_ITEM, _ANSWER, _TIME)]
        if columns[0] is None or columns[1] is None:
            raise UserError(
                f"{', '.join(names)}: an answer is {answer_kind}, or these columns are to be called item, answer, time",
                where=path,
                do="Name the columns item, answer and (if there is one) time in the first line.",
            )
    if not rows:
        raise UserError("holds no rows", where=path, do="Give a file with a row per answer.")
    item, answer, time = columns
    assert item is not None
    assert answer is not None
    if time is not None:
        rows = [rows[place] for place in _by_time([row[time] for row in rows], path)]
    return [(row[item], row[answer]) for row in rows]


def read_ids(path: str, kind: str, is_known: Callable[[Any], bool]) -> list[Any]:
    """Reads the ids in the first column of a file, each once.

    Args:
        path: A file with an id per line, CSV, TSV or Parquet.
        kind: "user" or "item": a first line that names the column so, and is no known id, is left out.
        is_known: Whether an id is one.

    Raises:
        UserError: No such file, or no ids in it.
    """
    ids = [row[0] for row in _read_rows(path)]
    named = (_USER if kind == "user" else _ITEM).fullmatch(str(ids[0]).strip().lower())
    if named and not is_known(ids[0]):
        ids.pop(0)
    if not ids:
        raise UserError(f"holds no {kind}s", where=path, do=f"Give a file with one {kind} per line.")
    return list(dict.fromkeys(ids))


def _read_rows(path: str) -> list[tuple[Any, ...]]:
    """Returns the rows of a file, of text with a first row of names if there is one, of Parquet with one."""
    place = Path(path).expanduser()
    try:
        content = place.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path, do="Name a file.") from None
    if not content.strip():
        raise UserError("the file is empty", where=path, do="Give a file with at least one row.")
    try:
        if content.startswith(_PARQUET):
            table = pl.read_parquet(io.BytesIO(content))
            return [tuple(table.columns), *table.rows()]
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        first = text.split("\n", 1)[0]
        separator = next((mark for mark in _SEPARATORS if mark in first), ",")
        table = pl.read_csv(io.StringIO(text), has_header=False, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot be read as a table ({reason})", where=path, do="Save it as CSV in UTF-8.") from None
    rows = [tuple("" if value is None else value.strip() for value in row) for row in table.rows()]
    return [row for row in rows if any(row)]


def _column(names: list[str], pattern: re.Pattern[str]) -> int | None:
    return next((place for place, name in enumerate(names) if name and pattern.fullmatch(name)), None)


def _by_time(times: list[Any], path: str) -> list[int]:
    """Returns the order of times, numbers or ISO dates; equal ones keep their order."""
    try:
        keys: list[Any] = [float(time) for time in times]
    except (TypeError, ValueError):
        parsed = pl.Series([str(time) for time in times]).str.to_datetime(strict=False, time_zone="UTC")
        if parsed.null_count():
            row = int(parsed.is_null().arg_max() or 0)
            raise UserError(
                f"the time {times[row]!r} is neither a number nor a date", where=path, do="Write 2024-05-31 12:00:00."
            ) from None
        keys = parsed.to_list()
    return sorted(range(len(times)), key=keys.__getitem__)

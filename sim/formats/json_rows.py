"""JSON objects as rows of texts, one by one, and what objects hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.formats.json_records import TWICE
from sim.formats.nested_fields import Fields, Path, Plan
from sim.formats.sources import shorten
from sim.formats.text_table import BadLineError

if TYPE_CHECKING:
    import polars as pl

NO_OBJECT = 'a row is no object with names and values, as in {"user": 1}'


def fields_of(records: Sequence[Any]) -> Fields:
    """Returns what some records hold together."""
    found = Fields()
    for record in records:
        _add(found, record)
    return found


def _add(found: Fields, record: Any) -> None:
    """Adds the fields of an object, or of the objects of a list."""
    if isinstance(record, list) and all(isinstance(entry, dict) for entry in record):
        found.is_list = True
        for entry in record:
            _add(found, entry)
    elif isinstance(record, dict):
        for name, value in record.items():
            _add(found.fields.setdefault(name, Fields()), value)


@dataclass(frozen=True)
class JsonPart:
    """Rows of some records.

    Attributes:
        frame: The rows, as strings.
        counts: The number of rows of each record; None: one each.
    """

    frame: pl.DataFrame
    counts: np.ndarray | None

    def numbers(self, of_records: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the number of each row, given that of each record."""
        return np.asarray(of_records) if self.counts is None else np.repeat(of_records, self.counts)


def rows_of(record: Any, plan: Plan) -> list[list[str]]:
    """Returns the rows of a record, as texts.

    Raises:
        BadLineError: It is no object, or a column holds something else than a value.
    """
    if not isinstance(record, dict):
        raise BadLineError(NO_OBJECT)
    values = [_text(record, way) for way in plan.row.values()]
    if plan.nested is None:
        return [values]
    name = ".".join(plan.nested)
    entries = _follow(record, plan.nested, absent=TWICE)
    if entries is TWICE:
        raise BadLineError(f"there is no list {name!r}, or there are two")
    if not isinstance(entries, list | None):
        raise BadLineError(f"{name!r} is no list of objects")
    rows = []
    for number, entry in enumerate(entries or [], start=1):
        if not isinstance(entry, dict):
            raise BadLineError(f"entry {number} of {name!r} is no object")
        rows.append(values + [_text(entry, way) for way in plan.entry.values()])
    return rows


def _follow(record: dict[str, Any], way: Path, absent: Any = None) -> Any:
    value: Any = record
    for name in way:
        if value is None:
            return absent
        if not isinstance(value, dict):
            raise BadLineError(f"{'.'.join(way)!r} is not there, because {_kind(value)} is in the place of an object")
        value = value.get(name, absent)
        if value is TWICE and absent is not TWICE:
            raise BadLineError(f"the key {name!r} occurs twice")
    return value


def _text(record: dict[str, Any], way: Path) -> str:
    """Returns a value as text; null, NaN and what is not there as an empty one."""
    value = _follow(record, way)
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        raise BadLineError(f"{'.'.join(way)!r} is {_kind(value)}, not a value")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadLineError(f"{'.'.join(way)!r} holds half a character ({shorten(value)})") from None
    return value


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return "an infinite number"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a value"


def expected(plan: Plan) -> str:
    """Returns what an object should hold, for messages."""
    inside = f"a list {'.'.join(plan.nested)!r} of objects with " if plan.nested and plan.entry else ""
    return f"objects with {', '.join([*plan.row, inside + ', '.join(plan.entry)] if inside else plan.row)}"


def collect(records: list[list[list[str]]], plan: Plan) -> JsonPart:
    """Returns the rows of some records as columns."""
    import polars as pl

    rows = list(itertools.chain.from_iterable(records))
    columns = list(zip(*rows, strict=True)) or [()] * len(plan.names)
    schema = dict.fromkeys(plan.names, pl.String)
    frame = pl.DataFrame(dict(zip(plan.names, columns, strict=True)), schema=schema)
    return JsonPart(frame, None if plan.nested is None else np.array([len(rows) for rows in records]))

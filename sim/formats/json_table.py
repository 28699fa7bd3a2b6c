"""Tables in JSON: arrays of objects, or an object per line; fields within objects, and lists of objects, as columns.

Polars parses lines; they are read carefully (`sim.formats.text_table`) wherever it might alter a value: where a wanted
key may occur twice, where an object or a list stands for a value, and where a float cannot hold a number.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from sim.formats.json_records import MAX_OBJECT_BYTES, decode, scan
from sim.formats.json_rows import NO_OBJECT, JsonPart, collect, expected, fields_of, rows_of
from sim.formats.nested_fields import Fields, Path, Plan, at, pick_columns
from sim.formats.sources import Source
from sim.formats.text_table import BadLineError, LineParser, is_utf8

if TYPE_CHECKING:
    import polars as pl

_SAMPLED = 100  # so many records tell which fields there are
_BATCH = 1 << 16
_EXPONENT = r"[0-9][eE]\+?[0-9]"
_INEXACT = re.compile(rb":\s*-?(?:[0-9]+(?:\.[0-9]+)?[eE]|[0-9]{16,}\.|[0-9]{30})")
_ESCAPED_LETTER = re.compile(rb"\\u00(?:3[0-9]|[4-7])")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")


class JsonLines(LineParser[JsonPart]):
    """A file with an object per line."""

    max_line_bytes = MAX_OBJECT_BYTES

    def __init__(self, plan: Plan, comment: str | None) -> None:
        """Stores where the columns are."""
        self.plan, self.comment = plan, comment
        self.expected = expected(plan)
        ways = [*plan.row.values(), *([plan.nested] if plan.nested else [])]
        self._schema = _schema(ways, [*plan.entry.values()], plan.nested)
        self._keys = {key for way in (*ways, *plan.entry.values()) for key in way}

    def parse_chunk(self, data: bytes) -> JsonPart | None:
        """See LineParser."""
        import polars as pl

        plain_keys = all(map(_PLAIN_NAME.fullmatch, self._keys))
        escaped = b"\\u" in data and (not plain_keys or _ESCAPED_LETTER.search(data))
        if b"\r" in data or escaped or not is_utf8(data):
            return None
        try:
            objects = pl.read_ndjson(data, schema=self._schema)
            if objects.height != data.count(b"\n") or self._may_repeat_keys(objects, data):
                return None
            frame, counts = pick_columns(objects, self.plan)
        except (pl.exceptions.PolarsError, ValueError):
            return None
        # Objects and lists have been turned into text, halves of characters into NUL, and large floats and numbers in
        # scientific notation into integers.
        if _any_text(frame, r"^[\[{]|\x00") or (_any_text(frame, r"^-?[0-9]{16,}$") and _INEXACT.search(data)):
            return None
        if pl.Series([data.decode()]).str.contains(_EXPONENT)[0] and self._has_exponents(data):
            return None
        return JsonPart(frame.fill_null(""), None if counts is None else counts.to_numpy())

    def _may_repeat_keys(self, objects: pl.DataFrame, data: bytes) -> bool:
        """Returns whether some wanted key occurs more often than it has a value."""
        for key, values in _values_by_key(objects, self.plan).items():
            quoted = json.dumps(key, ensure_ascii=False).encode()
            if data.count(quoted) != values and len(re.findall(re.escape(quoted) + rb"\s*:", data)) != values:
                return True
        return False

    def parse_line(self, line: str) -> list[Any]:
        """Returns the rows of an object; see LineParser."""
        return rows_of(decode(line), self.plan)

    def _has_exponents(self, data: bytes) -> bool:
        """Returns whether a number of some wanted key is in scientific notation."""
        keys = b"|".join(re.escape(json.dumps(key, ensure_ascii=False).encode()) for key in self._keys)
        return re.search(rb"(?:%s)\s*:\s*-?[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]" % keys, data) is not None

    def collect(self, rows: list[list[Any]]) -> JsonPart:
        """See LineParser."""
        return collect(rows, self.plan)


def _any_text(frame: pl.DataFrame, pattern: str) -> bool:
    return any(frame[name].str.contains(pattern).any() for name in frame.columns)


def _schema(ways: list[Path], entry_ways: list[Path], nested: Path | None) -> dict[str, Any]:
    """Returns Polars' types of the objects in a line, with strings for all values."""
    import polars as pl

    tree: dict[str, Any] = {}
    for way in ways:
        inside = tree
        for name in way[:-1]:
            inside = inside.setdefault(name, {})
        inside[way[-1]] = pl.List(pl.Struct(_schema(entry_ways, [], None))) if way == nested else pl.String
    return {name: _as_type(inside) for name, inside in tree.items()}


def _as_type(inside: Any) -> Any:
    import polars as pl

    return pl.Struct({name: _as_type(type_) for name, type_ in inside.items()}) if isinstance(inside, dict) else inside


def _values_by_key(objects: pl.DataFrame, plan: Plan) -> Counter[str]:
    """Returns how many values that are not null each wanted key has, at all its places together."""
    counts: Counter[str] = Counter()

    def count(frame: pl.DataFrame, ways: Collection[Path]) -> None:
        for way in {whole[:length] for whole in ways for length in range(1, len(whole) + 1)}:
            counts[way[-1]] += frame.height - frame.select(at(way)).to_series().null_count()

    count(objects, [*plan.row.values(), *([plan.nested] if plan.nested else [])])
    if plan.nested:
        lists = objects.select(at(plan.nested)).to_series()
        entries = lists.filter(lists.list.len() > 0).explode()
        if lists.null_count() or entries.null_count():
            raise ValueError("no list, or no object")
        count(entries.struct.unnest(), plan.entry.values())
    return counts


@dataclass(frozen=True)
class JsonBatch:
    """Rows of a text that is not read line by line.

    Attributes:
        frame: The rows, as strings.
        numbers: Number of each row's record: its first line, or if all are on one line, its position from 1.
        unit: "line" or "row".
    """

    frame: pl.DataFrame
    numbers: np.ndarray
    unit: str


def sample_of_lines(beginning: bytes) -> Fields:
    """Returns what the objects of a file's first lines hold."""
    records = []
    for line in beginning.split(b"\n")[:_SAMPLED]:
        try:
            records.append(decode(line.decode()))
        except (BadLineError, UnicodeDecodeError):  # reading it says what is wrong; the last one may be cut
            continue
    return fields_of(records)


def read_values(blocks: Iterator[bytes], source: Source, plan_of: Callable[[Fields], Plan]) -> Iterator[JsonBatch]:
    """Yields the rows of an array of objects, or of objects one behind another.

    Args:
        blocks: The text, in UTF-8.
        source: The file.
        plan_of: Finds the columns.

    Raises:
        UserError: The text is no JSON, ends too early, or holds something else than objects.
    """
    records = scan(blocks, source)
    sample = list(itertools.islice(records, _SAMPLED))
    if not sample:
        raise UserError("holds no rows", where=str(source), do="Get a complete copy of the file.")
    if not isinstance(sample[0][1], dict):
        raise UserError(f"line 1: {NO_OBJECT}", where=str(source), do="Write an object per row.")
    plan = plan_of(fields_of([record for _, record in sample]))
    on_one_line = len(sample) > 1 and sample[0][0] == sample[1][0]
    unit, position, problem = ("row" if on_one_line else "line"), 0, None
    records = itertools.chain(sample, records)
    while problem is None:
        rows, numbers = [], []
        # Of a batch with a malformed record, first the rows before it: a wrong value further up is named instead.
        try:
            for line, record in itertools.islice(records, _BATCH):
                position += 1
                numbers.append(position if on_one_line else line)
                rows.append(rows_of(record, plan))
        except BadLineError as error:
            what = f"{unit} {numbers.pop():,}: {error}"
            problem = UserError(what, where=str(source), do=f"Expected {expected(plan)}.")
        except UserError as error:
            problem = error
        if not numbers and problem is None:
            return
        if rows:
            part = collect(rows, plan)
            yield JsonBatch(part.frame, part.numbers(numbers), unit)
    raise problem

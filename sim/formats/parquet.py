"""Parquet tables of ratings and events: files, and folders of files as Spark and Hive write them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from harness.errors import UserError
from sim.formats.nested_fields import Fields, Plan, pick_columns
from sim.formats.packing import is_plain_parquet, read_blocks
from sim.formats.sources import SizeLimits, Source, check_file, natural_order, unreadable

if TYPE_CHECKING:
    import polars as pl

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
ROWS_AT_A_TIME = 1 << 20
_BLOCK_BYTES = 1 << 22
_ENDINGS = (".parquet", ".parq", ".pq")


def parquet_files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder and its folders, in natural order.

    Names that begin with a point or an underscore do not count (`_SUCCESS`, `_metadata`, `.part-0.crc`).

    Raises:
        UserError: There are none, or there are other files beside them.
    """
    try:
        below = [path for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise unreadable(error, str(folder)) from None
    files = [path for path in below if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    files.sort(key=lambda path: natural_order(str(path.relative_to(folder))))
    others = [path for path in files if not path.name.endswith(_ENDINGS) and not _holds_parquet(path)]
    if others or not files:
        shown = ", ".join(str(path.relative_to(folder)) for path in others[:5]) or "nothing"
        beside = " beside Parquet files" if len(others) < len(files) else ", and no Parquet files"
        do = "Name the files themselves, or a pattern such as data.path=FOLDER/*.csv."
        raise UserError(f"is a folder that holds {shown}{beside}", where=str(folder), do=do)
    return files


def _holds_parquet(path: Path) -> bool:
    return path.stat().st_size > 0 and is_plain_parquet(Source(path))


def partition_values(path: Path) -> dict[str, str]:
    """Returns the columns that the folders of a path name, as in `date=2024-01-01/part-0.parquet`."""
    pairs = (part.partition("=") for part in path.parent.parts if "=" in part)
    return {unquote(name): "" if value == _NO_VALUE else unquote(value) for name, _, value in pairs if name}


@contextmanager
def unpacked_parquet(source: Source, limits: SizeLimits) -> Iterator[Path]:
    """Gives the path of a Parquet file; of a packed one that of a temporary copy, as such files are read from the end.

    Raises:
        UserError: The file cannot be unpacked.
    """
    if is_plain_parquet(source):
        yield source.path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "unpacked.parquet"
        with copy.open("wb") as file:
            for block in read_blocks(source, limits, _BLOCK_BYTES, of_parquet=True):
                file.write(block)
        yield copy


@dataclass(frozen=True)
class ParquetPart:
    """Consecutive rows of a Parquet file.

    Attributes:
        frame: The planned columns.
        first: Number of the first row in the file, from 1.
        numbers: Number in the file of each row, if a row became several.
        fractional: Columns of floats that are not all whole, anywhere in the file.
    """

    frame: pl.DataFrame
    first: int
    numbers: np.ndarray | None
    fractional: frozenset[str]


def read_parquet_columns(path: Path, plan_of: Callable[[Fields], Plan], where: str) -> Iterator[ParquetPart]:
    """Yields columns of a Parquet file that has been tried (`try_parquet`), some rows at a time.

    Args:
        path: The file.
        plan_of: Finds the columns.
        where: What to call the file in messages.

    Raises:
        UserError: The file is missing, empty or damaged, or lacks a column.
    """
    import polars as pl

    check_file(path)
    try:
        plan = plan_of(fields_of_types(pl.read_parquet_schema(path)))
        ways = [*plan.row.values(), *([plan.nested] if plan.nested else [])]
        every = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        height = every.select(pl.len()).collect().item()
        wanted = every.select(list(dict.fromkeys(way[0] for way in ways)))
        places = _places_of_parts(height)
        fractional = _fractional_columns(wanted, places, plan) if len(places) > 1 else frozenset[str]()
        for begin, length in places:
            frame, counts = pick_columns(wanted.slice(begin, length).collect(), plan)
            numbers = None
            if counts is not None:
                numbers = np.repeat(np.arange(begin + 1, begin + 1 + len(counts)), counts.to_numpy())
            yield ParquetPart(frame, begin + 1, numbers, fractional)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_parquet(where, error) from None


def _places_of_parts(height: int) -> list[tuple[int, int]]:
    """Returns begin and length of parts of about equal length."""
    number = max(1, -(-height // ROWS_AT_A_TIME))
    bounds = [height * part // number for part in range(number + 1)]
    return [(begin, end - begin) for begin, end in itertools.pairwise(bounds)]


def _fractional_columns(wanted: pl.LazyFrame, places: Sequence[tuple[int, int]], plan: Plan) -> frozenset[str]:
    """Returns the planned columns of floats that are not all whole: whether floats are ids is told by all of a file."""
    import polars.selectors as cs

    found: set[str] = set()
    for begin, length in places:
        floats = pick_columns(wanted.slice(begin, length).collect(), plan)[0].select(cs.float())
        if len(found) == floats.width:
            break
        found |= {column.name for column in floats if (column != column.floor()).any()}
    return frozenset(found)


def fields_of_types(types: Mapping[str, Any]) -> Fields:
    """Returns what rows of these types hold."""
    import polars as pl

    found = Fields()
    for name, kind in types.items():
        in_list = isinstance(kind, pl.List)
        inner = kind.inner if in_list else kind
        if isinstance(inner, pl.Struct):
            inside = fields_of_types({field.name: field.dtype for field in inner.fields})
            found.fields[name] = Fields(inside.fields, in_list)
        else:
            found.fields[name] = Fields()
    return found


_PARQUET_TRIAL = """
import json, sys
import polars
paths, names, rows = json.load(sys.stdin)
for number, path in enumerate(paths):
    print(number, flush=True)
    schema = polars.read_parquet_schema(path)
    wanted = lambda name: any(name == other or other.startswith(name + ".") for other in names)
    columns = [name for name in schema if wanted(name) or schema[name].is_nested()]
    every = polars.scan_parquet(path, glob=False, hive_partitioning=False)
    height = every.select(polars.len()).collect().item()
    for begin in range(0, max(height, 1), rows):
        every.select(columns).slice(begin, rows).collect()
"""


def try_parquet(files: Mapping[Path, str], names: Sequence[str]) -> None:
    """Reads Parquet files in another process first: on a damaged file the library may abort the process.

    Args:
        files: What to call each file in messages.
        names: The columns to read.

    Raises:
        UserError: A file is missing or empty, or that process failed.
    """
    paths = list(files)
    for path in paths:
        check_file(path)
    trial = [sys.executable, "-c", _PARQUET_TRIAL]
    given = json.dumps([[str(path) for path in paths], list(names), ROWS_AT_A_TIME]).encode()
    finished = subprocess.run(trial, input=given, capture_output=True, check=False)
    if finished.returncode:
        last = finished.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        kind, _, reason = last.partition(": ")
        known = kind.startswith("polars.exceptions.") and not kind.endswith("PanicException")
        number = finished.stdout.split()[-1:]
        bad = paths[int(number[0])] if number else paths[0]
        raise _bad_parquet(files[bad], reason if known else "the library that reads it gave up")


def _bad_parquet(where: str, error: Exception | str) -> UserError:
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=where, do="Make the file readable for this user.")
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"is not a sound Parquet file ({reason})", where=where, do="Get a fresh copy of the file.")

"""Parquet tables of ratings and events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import UserError
from sim.files.sources import Source, check_file, shorten
from sim.files.text_table import MAX_ID_CHARACTERS, Columns, TableLayout, compact

if TYPE_CHECKING:
    import polars as pl


_PARQUET = (".parquet", ".pq")


def is_parquet(source: Source) -> bool:
    """Returns whether a source is a Parquet file, judging by its extension."""
    return source.path.suffix.lower() in _PARQUET


def read_parquet_columns(path: Path, names: Sequence[str], keys: str) -> pl.DataFrame:
    """Reads columns of a Parquet file.

    Args:
        names: Names of the columns, without repetitions.
        keys: The settings that name them, for messages.

    Raises:
        UserError: The file is missing, empty or damaged, or lacks a column.
    """
    import polars as pl

    check_file(path)
    where = str(path)
    _try_parquet(path, names)
    try:
        schema = pl.read_parquet_schema(path)
        for name in names:
            if name not in schema:
                problem = f"has no column {name!r}; its columns are {', '.join(map(repr, schema))}"
                raise UserError(problem, where=where, do=f"Set {keys}.")
        return pl.read_parquet(path, columns=list(names), glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _bad_parquet(where, error) from None


_PARQUET_TRIAL = """
import sys
import polars
path, *names = sys.argv[1:]
schema = polars.read_parquet_schema(path)
polars.read_parquet(path, columns=[name for name in names if name in schema], glob=False)
"""


def _try_parquet(path: Path, names: Sequence[str]) -> None:
    """Reads a Parquet file in another process first: on a damaged file the library may abort the process.

    Raises:
        UserError: That process failed.
    """
    trial = [sys.executable, "-c", _PARQUET_TRIAL, str(path), *names]
    finished = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if finished.returncode:
        last = finished.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        kind, _, reason = last.partition(": ")
        known = kind.startswith("polars.exceptions.") and not kind.endswith("PanicException")
        raise _bad_parquet(str(path), reason if known else "the library that reads it gave up")


def read_parquet_ratings(path: Path, layout: TableLayout) -> Columns:
    """Reads a Parquet file of ratings."""
    keys = "data.user_column, data.item_column, data.rating_column and data.timestamp_column"
    table, where = read_parquet_columns(path, layout.names, keys), str(path)
    for name in layout.names:
        if table[name].null_count():
            row = int(table[name].is_null().arg_max() or 0) + 1
            raise UserError(
                f"row {row:,} has no value in column {name!r}", where=where, do="Correct or remove the row."
            )
    users, items, ratings, *timestamps = (table[name] for name in layout.names)
    return Columns(
        _parquet_ids(users, where),
        _parquet_ids(items, where),
        _parquet_ratings(ratings, where),
        *(_parquet_timestamps(column, where) for column in timestamps),
    )


def _bad_parquet(where: str, error: Exception | str) -> UserError:
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=where, do="Make the file readable for this user.")
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"is not a sound Parquet file ({reason})", where=where, do="Get a fresh copy of the file.")


def _wrong_type(column: Any, where: str, expected: str) -> UserError:
    problem = f"column {column.name!r} has type {column.dtype}"
    return UserError(problem, where=where, do=f"Expected {expected}.")


def _parquet_ids(column: Any, where: str) -> np.ndarray:
    import polars as pl

    if column.dtype.is_integer():
        try:
            return compact(column.cast(pl.Int64).to_numpy())
        except pl.exceptions.PolarsError:
            raise UserError(f"column {column.name!r} does not fit in 64 bits", where=where) from None
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise _wrong_type(column, where, "ids that are integers or strings")
    texts = column.cast(pl.String)
    bad = (texts.str.len_chars() > MAX_ID_CHARACTERS) | (texts == "") | texts.str.contains("\0", literal=True)
    if bad.any():
        row = int(bad.arg_max() or 0) + 1
        raise UserError(
            f"row {row:,}: {shorten(texts[row - 1])} in column {column.name!r} is no id",
            where=where,
            do=f"Expected 1 to {MAX_ID_CHARACTERS} characters.",
        )
    return texts.to_numpy().astype(str)


def _parquet_ratings(column: Any, where: str) -> np.ndarray:
    import polars as pl

    if not column.dtype.is_numeric():
        raise _wrong_type(column, where, "numeric ratings")
    ratings = column.cast(pl.Float64).to_numpy()
    finite = np.isfinite(ratings)
    if not finite.all():
        row = int(np.argmin(finite))
        raise UserError(
            f"row {row + 1:,}: rating {ratings[row]} in column {column.name!r} is not a finite number",
            where=where,
            do="Correct or remove the row.",
        )
    return ratings


def _parquet_timestamps(column: Any, where: str) -> np.ndarray:
    import polars as pl

    if column.dtype in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).dt.epoch("s").to_numpy()
    if not column.dtype.is_integer():
        raise _wrong_type(column, where, "timestamps that are integers (seconds since 1970), dates or datetimes")
    return column.cast(pl.Int64).to_numpy()

"""Parquet tables of ratings and events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from sim.files.sources import check_file

if TYPE_CHECKING:
    import polars as pl


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


def _bad_parquet(where: str, error: Exception | str) -> UserError:
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=where, do="Make the file readable for this user.")
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"is not a sound Parquet file ({reason})", where=where, do="Get a fresh copy of the file.")

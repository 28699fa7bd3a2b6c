"""Tables that are handed over in Python, kept as a file, so that the run that learned from one can be repeated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import UserError
from harness.runs.run_folder import remove_if_empty


@contextmanager
def as_file(table: Any, folder: Path, name: str) -> Iterator[Path]:
    """Yields the path of a table: the path itself, or that of a new Parquet file with what a data frame holds.

    The file is removed if nothing else was written beside it when the block fails.

    Args:
        table: A path, a data frame of polars or pandas, or a mapping of names to columns.
        folder: Where the file is kept; created if need be.
        name: Name of the file, without ending.

    Raises:
        UserError: It is none of these, its columns differ in length, or the file is already there.
    """
    if isinstance(table, str | os.PathLike):
        yield Path(table)
        return
    path = folder / f"{name}.parquet"
    if path.exists():
        raise UserError("already holds a run's data", where=str(path), do="Choose another folder.")
    frame = _frame(table)
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    try:
        yield path
    except BaseException:
        if [*folder.iterdir()] == [path]:
            path.unlink()
            remove_if_empty(folder)
        raise


def _frame(table: Any) -> pl.DataFrame:
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    names: Iterable[Any] = table.keys() if isinstance(table, Mapping) else getattr(table, "columns", ())
    if not (columns := {str(name): _column(table[name]) for name in names}):
        raise UserError(
            f"a {type(table).__name__} is not a table",
            do="Give a path, a polars or pandas data frame, or columns by name.",
        )
    try:
        return pl.DataFrame(columns)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise UserError(f"the columns {', '.join(columns)} make no table: {str(error).splitlines()[0]}") from None


def _column(values: Any) -> Any:
    of_pandas = getattr(values, "to_list", None)  # its missing values become None or NaN
    return of_pandas() if of_pandas else values

"""Reads tables of any kind, in one file or in several that are one table: text with separators, JSON, Parquet."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from sim.files.rows import Rows
from sim.formats.chunks import read_text
from sim.formats.delimited import TextTable
from sim.formats.json_records import has_lines, is_json
from sim.formats.json_table import JsonLines, read_values, sample_of_lines
from sim.formats.nested_fields import Fields, Plan, plan_columns
from sim.formats.packing import is_parquet, is_plain_parquet
from sim.formats.parquet import partition_values, read_parquet_columns, try_parquet, unpacked_parquet
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import TextFormat, parse_file

_BEGINNING_BYTES = 1 << 21
_BLOCK_BYTES = 1 << 22


def read_tables(
    sources: Sequence[Source], names: Sequence[str], limits: SizeLimits, text: TextFormat, keys: str = ""
) -> Iterator[Rows]:
    """Yields columns of a table, chunk by chunk, file by file; of a text file as strings, exactly as written.

    Args:
        sources: The files; all need to have the columns, in any order.
        names: Names of the columns to read, without repetitions.
        limits: Limits on the size of unpacked files.
        text: How the files are written.
        keys: The settings that name the columns, for messages.

    Raises:
        UserError: A file is missing, empty, damaged, lacks a column, or has a malformed line.
    """
    in_parquet = [source for source in sources if is_parquet(source, limits)]
    if plain := {source.path: str(source) for source in in_parquet if is_plain_parquet(source)}:
        try_parquet(plain, names)
    num_columns = 0
    for source in sources:
        given = partition_values(source.path)
        plan_of = functools.partial(
            plan_columns, names=names, nested=text.nested, given=given, where=str(source), keys=keys
        )
        if source in in_parquet:
            with unpacked_parquet(source, limits) as path:
                if path not in plain:
                    try_parquet({path: str(source)}, names)
                for part in read_parquet_columns(path, plan_of, str(source)):
                    rows = Rows(part.frame, source, part.first, part.numbers, unit="row", fractional=part.fractional)
                    yield _with_given(rows, names, given)
        elif is_json(beginning := next(read_text(source, limits, text.encoding, _BEGINNING_BYTES), b"")):
            for rows in _json_rows(source, limits, text, beginning, plan_of):
                yield _with_given(rows, names, given)
        else:
            table = TextTable(source, names, text, given, num_columns, keys)
            for chunk, frame in parse_file(source, table, limits, text.encoding):
                rows = Rows(frame, source, chunk.first_line, chunk.numbers, unterminated=chunk.unterminated)
                yield _with_given(rows, names, given)
            num_columns = table.num_columns


def _json_rows(
    source: Source, limits: SizeLimits, text: TextFormat, beginning: bytes, plan_of: Callable[[Fields], Plan]
) -> Iterator[Rows]:
    """Yields the rows of a JSON file that begins so."""
    if not has_lines(beginning):
        for batch in read_values(read_text(source, limits, text.encoding, _BLOCK_BYTES), source, plan_of):
            yield Rows(batch.frame, source, 1, batch.numbers, batch.unit)
        return
    lines = JsonLines(plan_of(sample_of_lines(beginning)), text.comment)
    for chunk, part in parse_file(source, lines, limits, text.encoding):
        numbers: Sequence[int] | np.ndarray | None = chunk.numbers
        if part.counts is not None:
            of_lines = numbers or np.arange(chunk.first_line, chunk.first_line + len(part.counts))
            numbers = part.numbers(of_lines)
        yield Rows(part.frame, source, chunk.first_line, numbers, unterminated=chunk.unterminated)


def _with_given(rows: Rows, names: Sequence[str], given: Mapping[str, str]) -> Rows:
    """Adds the columns that the file's folders name."""
    import polars as pl

    missing = [pl.lit(given[name]).alias(name) for name in names if name not in rows.frame.columns]
    return dataclasses.replace(rows, frame=rows.frame.with_columns(missing)) if missing else rows

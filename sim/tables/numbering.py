"""Ids as their ranks among the distinct ones, in little more memory than the ids take."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_SLICE = 1 << 22


def numbered(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct integers of a column, ascending, and the index into these of every value.

    It is `np.unique(np.concatenate(parts), return_inverse=True)` without copies of the column.

    Args:
        parts: The column in parts, of any signed integer types; the list is emptied.

    Returns:
        [D] distinct values (of the widest type), and [R] int32 index.
    """
    kind = np.result_type(*parts)
    if len(parts) == 1 and _are_ranks(parts[0]):
        return np.arange(parts[0].max() + 1, dtype=kind), parts.pop()
    low = min(int(part.min()) for part in parts if len(part))
    high = max(int(part.max()) for part in parts if len(part))
    number = sum(map(len, parts))
    index = np.empty(number, np.int32)
    if high - low > 2 * number + (1 << 20):
        ids = _distinct(parts)
        for place, values in _slices(parts):
            index[place : place + len(values)] = np.searchsorted(ids, values)
        return ids.astype(kind), index
    # A table of all integers in between is small enough.
    occurs = np.zeros(high - low + 1, bool)
    for part in parts:
        for _, values in _slices([part]):
            occurs[values - low] = True
    ranks = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    for place, values in _slices(parts):
        index[place : place + len(values)] = ranks[values - low]
    return (np.flatnonzero(occurs) + low).astype(kind), index


def num_distinct(index: np.ndarray, number: int) -> int:
    """Returns how many of the numbers 0 to `number` - 1 occur in a column."""
    occurs = np.zeros(number, bool)
    occurs[index] = True
    return int(occurs.sum())


def _are_ranks(column: np.ndarray) -> bool:
    """Returns whether a column is int32 and its values are 0 to D - 1, so that it is its own index."""
    if column.dtype != np.int32 or not len(column) or column.min() != 0 or column.max() >= len(column):
        return False
    return num_distinct(column, int(column.max()) + 1) == int(column.max()) + 1


def _distinct(parts: list[np.ndarray]) -> np.ndarray:
    """Returns the distinct values, ascending."""
    distinct = np.empty(0, np.int64)
    for part in parts:
        for _, values in _slices([part]):
            distinct = np.union1d(distinct, values)
    return distinct


def _slices(parts: list[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the values as int64 from the last to the first, some at a time, with their place; empties the list."""
    end = sum(map(len, parts))
    while parts:
        part = parts.pop()
        for stop in range(len(part), 0, -_SLICE):
            begin = max(0, stop - _SLICE)
            yield end - len(part) + begin, part[begin:stop].astype(np.int64)
        end -= len(part)

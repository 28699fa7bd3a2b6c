"""The hash of a table as it was built, by which runs know whether they are about the same data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, TypeVar

import numpy as np

_BLOCK = 1 << 22

Table = TypeVar("Table")
"""A dataclass with a field `table_hash`, such as `sim.tables.ratings.RatingData`."""


def hashed(table: Table, fields: tuple[str, ...]) -> Table:
    """Returns the table with the hash of some of its fields as `table_hash`.

    It takes about a second per gigabyte; the cache of tables keeps it.

    Args:
        table: A table.
        fields: Names of arrays (or None) and JSON values. Left out are names of things, and floating-point numbers that
            generators compute: processors differ in their last bits.
    """
    digest = hashlib.sha256()
    for name in fields:
        value = getattr(table, name)
        if not isinstance(value, np.ndarray):
            digest.update(f"{name}={json.dumps(value, sort_keys=True)};".encode())
            continue
        digest.update(f"{name}: {value.dtype.str} {value.shape};".encode())
        flat = value.reshape(-1)
        for first in range(0, len(flat), _BLOCK):
            digest.update(np.ascontiguousarray(flat[first : first + _BLOCK]).tobytes())
    replacement: Any = {"table_hash": f"sha256:{digest.hexdigest()}"}
    return dataclasses.replace(table, **replacement)  # type: ignore[type-var]

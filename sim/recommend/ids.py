"""Original ids and their indices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from harness.errors import UserError

_SHOWN = 5


class Ids:
    """The ids of users or items, looked up by value or by text."""

    def __init__(self, ids: np.ndarray, kind: str, source: str) -> None:
        """Keeps the ids.

        Args:
            ids: [n] integers or text, each once.
            kind: "user" or "item", for messages.
            source: Where they are known from, for messages.
        """
        self.ids = np.asarray(ids)  # of a memory map every slice would be one
        self._kind, self._source = kind, source

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    @cached_property
    def _ascending(self) -> np.ndarray:
        return self.ids[self._order]

    def find(self, wanted: Sequence[Any]) -> np.ndarray:
        """Returns [m] int64 indices of ids, -1 for those that are not known; numbers may be given as text."""
        known = self._ascending
        if known.dtype.kind in "iu":
            values = [_integer(value) for value in wanted]
            readable = np.array([value is not None for value in values], bool)
            queries = np.array([0 if value is None else value for value in values], np.int64)
        else:
            readable = np.ones(len(wanted), bool)
            queries = np.array([str(value) for value in wanted], dtype=str) if len(wanted) else np.zeros(0, "U1")
        place = np.minimum(np.searchsorted(known, queries), len(known) - 1)
        found = readable & (known[place] == queries)
        return np.where(found, self._order[place], -1)

    def refuse(self, unknown: Sequence[Any]) -> UserError:
        """Returns the error that says which ids are not known."""
        return UserError(
            self.described(unknown),
            where=self._source,
            do="Correct them, or set unknown=skip (leave them out) or unknown=cold (a user without a history).",
        )

    def described(self, unknown: Sequence[Any]) -> str:
        """Returns which ids are not known, in words."""
        shown = ", ".join(str(value) for value in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
        kind = self._kind if len(unknown) == 1 else f"{self._kind}s"
        return f"unknown {kind}: {shown}{more}"


def _integer(value: Any) -> int | None:
    """Returns an id as an integer of 64 bits; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    exact = number == value or (isinstance(value, str) and value.strip() == str(number))
    return number if exact and -(2**63) <= number < 2**63 else None

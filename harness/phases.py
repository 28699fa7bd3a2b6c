"""Where a process spends its time: wall-clock seconds per phase, for the run's record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """A clock with named phases; the time of a nested phase does not count for the outer one."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._within: list[str] = []
        self._since = self._started

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the block's time to a phase."""
        self._count()
        self._within.append(name)
        try:
            yield
        finally:
            self._count()
            self._within.pop()

    def seconds(self) -> dict[str, float]:
        """Returns seconds per phase in the order they began, then "other" (outside all phases) and "total"."""
        self._count()
        counted = {name: round(value, 3) for name, value in self._seconds.items()}
        total = self._since - self._started
        return {**counted, "other": round(total - sum(self._seconds.values()), 3), "total": round(total, 3)}

    def _count(self) -> None:
        now = time.monotonic()
        if self._within:
            name = self._within[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now

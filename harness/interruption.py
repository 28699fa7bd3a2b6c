"""Ctrl-C and SIGTERM ask a run to stop at its next safe point instead of killing it."""

from __future__ import annotations

import os
import signal
from types import FrameType


class StopRequest:
    """While open, stores the first SIGINT or SIGTERM in `signal_number`; a second one acts as usual."""

    def __init__(self) -> None:
        """Starts without a request."""
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        """Installs the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        """Restores the previous handlers."""
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()
        # Unbuffered: the handler may interrupt a write to a buffered stream.
        os.write(2, b"\nstopping after this chunk (press again to stop immediately)\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

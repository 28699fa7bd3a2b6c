"""Ctrl-C and SIGTERM ask a run to stop at its next safe point instead of killing it."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class StopRequest:
    """While open, remembers the first SIGINT or SIGTERM in `signal_number`; a second one acts as usual."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        """Installs the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the former handlers back."""
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()
        # No buffered stream: a handler may run in the middle of a write to it.
        os.write(2, b"\nstopping after this chunk (once more to stop at once)\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

"""Standard output that never ends a command: what it computed counts more than whether somebody reads it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class LastingOutput:
    """A text stream that writes nowhere once its file cannot be written any more."""

    def __init__(self, stream: Any) -> None:
        """Wraps a stream; characters that its encoding lacks are escaped from now on."""
        self._stream = stream
        self.failure: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Writes text; returns its length, as a stream does."""
        with self._noticed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hands on what has been written."""
        with self._noticed():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's."""
        return getattr(self._stream, name)

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            with suppress(OSError):  # what is still in the buffer must not fail again when Python ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def lasting_output() -> Iterator[LastingOutput]:
    """Replaces standard output within."""
    stream = sys.stdout
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="backslashreplace")
    output = LastingOutput(stream)
    sys.stdout = output
    try:
        yield output
    finally:
        output.flush()
        sys.stdout = stream

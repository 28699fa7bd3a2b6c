"""What Orbax says besides the exceptions that it raises: for a user, tracebacks around the one message that matters."""

from __future__ import annotations

import logging
import sys

_usual_hook = sys.unraisablehook


def silence_orbax() -> None:
    """Silences its logs, and reads and writes that end after another one has failed; their error was raised once."""
    for name in ("absl", "asyncio"):  # Orbax logs every save, asyncio the failures of its writers
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _without_late_reads


def _without_late_reads(unraisable: sys.UnraisableHookArgs) -> None:
    """Passes over Orbax's coroutines that nobody waits for any more, and reports to its event loop that is gone."""
    code = getattr(unraisable.object, "cr_code", None)
    abandoned = code is not None and "orbax" in code.co_filename
    late = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
    if not (abandoned or late):
        _usual_hook(unraisable)

"""The first moments of a command, before anything else is imported: whose modules are found, and how it is stopped.

`python -m tpgr_jax.train` imports the package `tpgr_jax` first, which calls `begin_command`; the console commands call
it themselves. It imports nothing that takes time: Ctrl-C must be heard while the rest is imported.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_GARBAGE_THRESHOLDS = (50_000, 10, 10)
"""Python's own (700 new objects) make it look for garbage, among modules that stay, a sixth of the time of imports."""
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_received: list[int] = []


class Stopped(BaseException):
    """SIGTERM came; like KeyboardInterrupt no Exception, so that nothing takes it for an error of its own."""


def begin_command() -> None:
    """Makes our packages come before modules of the working folder, and Ctrl-C and SIGTERM end the process in a line.

    A user's own modules are found there all the same, after everything that is installed: an agent's module that a
    configuration names may lie there, a file called `sim.py` or `numpy.py` hides nothing.
    """
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it has been removed
        here = ""
    paths = sys.path[1:] if sys.path[0] == own else list(sys.path)  # the package has put it there to find this module
    paths = [path for path in paths if path not in ("", here)]
    if own not in paths:
        paths.insert(0, own)
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    sys.path[:] = paths if here in ("", own) else [*paths, here]
    for number in _WORDS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # `nohup` ignores some
            signal.signal(number, _end_at_once)


@contextmanager
def raised_signals() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM raise KeyboardInterrupt and `Stopped`, so that half-made things are removed."""
    _received.clear()
    usual = (signal.SIG_DFL, signal.default_int_handler, _end_at_once)
    previous = {number: signal.getsignal(number) for number in _WORDS}
    ours = [number for number, handler in previous.items() if handler in usual]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, previous[number])


def stopped_by() -> int | None:
    """Returns the signal that came within `raised_signals`, if any: other code may have caught what it raised."""
    return _received[0] if _received else None


def word_for(number: int) -> str:
    """Returns what is said when a signal ends a command."""
    return _WORDS[signal.Signals(number)]


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{word_for(number)}\n".encode())
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped

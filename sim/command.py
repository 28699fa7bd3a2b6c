"""How every command starts and how it fails: one clear line for a user's mistake, never a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sim.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def task(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wraps a Hydra task function so that mistakes of the user end the process before Hydra prints a traceback.

    Args:
        function: Takes the composed configuration.
    """

    @functools.wraps(function)
    def guarded(config: Any) -> None:
        run_command(lambda: function(config))

    return guarded


def run_command(main: Callable[[], None]) -> None:
    """Calls `main`; prints a `UserError` (or lack of memory, or Ctrl-C) as one message on stderr.

    Raises:
        SystemExit: With code 2 for a user's mistake or too little memory, 130 for Ctrl-C.
    """
    try:
        main()
    except UserError as error:
        _fail(str(error), EXIT_USER_ERROR)
    except MemoryError as error:
        _fail(_memory_message(str(error)), EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except RuntimeError as error:  # XLA reports a full device as a RuntimeError subclass
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _fail(_memory_message(str(error).splitlines()[0]), EXIT_USER_ERROR)


def _memory_message(detail: str) -> str:
    return f"not enough memory: {detail}\n  Lower train.episodes_per_step or use a smaller data set or deeper tree."


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)

"""How every command starts and fails: a user's mistake is one clear message, never a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from harness.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def task(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wraps a Hydra task function so that a user's mistake ends the process before Hydra reports it in its own way.

    In a multirun the error goes to Hydra instead, which runs the remaining jobs first and then raises it.

    Args:
        function: The task; it takes the composed configuration.
    """

    @functools.wraps(function)
    def guarded(config: Any) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            function(config)
        else:
            run_command(lambda: function(config))

    return guarded


def run_command(main: Callable[[], None]) -> None:
    """Calls `main`; prints a user's mistake (or lack of memory, or Ctrl-C) as one message on stderr.

    Raises:
        SystemExit: With code 2 for a user's mistake or too little memory, 130 for Ctrl-C.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets Hydra's own errors through to here
    try:
        main()
    except UserError as error:
        _fail(str(error), EXIT_USER_ERROR)
    except (HydraException, OmegaConfBaseException) as error:
        causes = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        _fail("\n  ".join(line for cause in causes for line in cause.splitlines()), EXIT_USER_ERROR)
    except MemoryError as error:
        _fail(_memory_message(str(error)), EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (such as `head`) has exited; Python would report it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}", EXIT_USER_ERROR)
    except RuntimeError as error:  # XLA reports a full device as a RuntimeError subclass
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _fail(_memory_message(str(error).splitlines()[0]), EXIT_USER_ERROR)


def _memory_message(detail: str) -> str:
    return f"not enough memory: {detail}\n  Use smaller batches or a smaller data set."


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)

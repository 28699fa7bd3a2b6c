"""How every command starts and fails: a user's mistake is one clear message, never a traceback."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from harness import old_names
from harness.errors import OtherProcessError, UserError

CONFIGURATION = str(Path(__file__).resolve().parents[1] / "conf")
"""The folder of configuration files, found by its place: by name, a user's own folder `conf` would hide it."""

EXIT_BUG = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def task(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wraps a Hydra task function so that a user's mistake ends the process before Hydra reports it in its own way.

    In a sweep the error goes to Hydra instead, and to `harness.training.sweep`: the remaining jobs still run.

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


def hydra_command(config_name: str) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Returns the decorator of a command's main function, a `task` for which Hydra composes `conf/CONFIG_NAME.yaml`."""
    decorate = hydra.main(version_base="1.3", config_path=CONFIGURATION, config_name=config_name)

    def command(function: Callable[[Any], None]) -> Callable[[], None]:
        main: Any = decorate(task(function))
        main.config_name = config_name
        return cast(Callable[[], None], main)

    return command


def run_command(main: Callable[[], None]) -> None:
    """Calls `main`; prints a user's mistake (or lack of memory, or Ctrl-C) as one message on stderr.

    Raises:
        SystemExit: With code 2 for a user's mistake or too little memory, 130 for Ctrl-C.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets Hydra's own errors through to here
    try:
        main()
    except BrokenPipeError:
        # The reader of our output (such as `head`) has exited; Python would report it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_BUG) from None
    except (Exception, KeyboardInterrupt) as error:
        described = describe_error(error)
        processes = sys.modules.get("harness.processes")  # only a command that may have others has imported it
        if described is None and processes and (message := processes.other_refusal()):
            error, described = OtherProcessError(message), (message, EXIT_USER_ERROR)  # a consequence, not a bug
        if described is None:
            if processes and processes.joined():
                traceback.print_exc()
                processes.end_together(f"{type(error).__name__}: {error}", EXIT_BUG)
            raise
        message, code = described
        print(message if isinstance(error, OtherProcessError) else f"error: {message}", file=sys.stderr, flush=True)
        if processes:
            processes.end_together(message, code, getattr(main, "config_name", None))
        raise SystemExit(code) from None


def describe_error(error: BaseException) -> tuple[str, int] | None:
    """Returns the message and the exit code for an error that the user can fix; None for a bug."""
    if isinstance(error, UserError):
        return str(error), EXIT_USER_ERROR
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        causes = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        causes += filter(None, [old_names.advice(causes[0])])
        return "\n  ".join(line for cause in causes for line in cause.splitlines()), EXIT_USER_ERROR
    if isinstance(error, MemoryError):
        return _memory_message(str(error)), EXIT_USER_ERROR
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}", EXIT_USER_ERROR
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):  # how XLA reports a full device
        return _memory_message(str(error).splitlines()[0]), EXIT_USER_ERROR
    return None


def _memory_message(detail: str) -> str:
    return f"not enough memory: {detail}\n  Use smaller batches or a smaller data set."

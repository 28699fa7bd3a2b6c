"""How every command starts and fails: a user's mistake is one clear message, never a traceback."""

from __future__ import annotations

import errno
import functools
import os
import signal
import string
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.commands import old_names
from harness.commands.command_words import as_hydra, configuration_of, is_multirun
from harness.commands.configuration import CONFIGURATION, Configuration, without_hydra
from harness.commands.mistaken_words import check_keys, explained
from harness.commands.output import lasting_output
from harness.commands.start import Stopped, raised_signals, stopped_by, word_for
from harness.errors import OtherProcessError, UserError

EXIT_BUG = 1
EXIT_USER_ERROR = 2
_HELP = ("-h", "--help")
_FOLDER_ADVICE = (
    "Check permissions and free space, or choose another folder: hydra.run.dir=FOLDER for a run, out=FOLDER for a "
    "report, data.cache=FOLDER (or TPGR_JAX_CACHE) for parsed tables."
)


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
    """Returns the decorator of a command's main function, for which Hydra composes `conf/CONFIG_NAME.yaml`."""
    decorate = hydra.main(version_base="1.3", config_path=CONFIGURATION, config_name=config_name)

    def decorated(function: Callable[[Any], None]) -> Callable[[], None]:
        composed = decorate(task(function))

        @functools.wraps(function)
        def command() -> None:
            configuration = configuration_of(config_name, sys.argv[1:])
            sys.argv[1:] = words = as_hydra(configuration, sys.argv[1:])
            with explained(configuration, words):
                if any(word in _HELP for word in words):
                    print(_help(configuration, words))
                    return
                if is_multirun(words):
                    check_keys(configuration, words)  # once for all jobs, and before any
                composed()

        main: Any = command
        main.config_name = config_name
        return cast(Callable[[], None], main)

    return decorated


def _help(configuration: Configuration, words: list[str]) -> str:
    """Returns the help of a command: its template with its own choices and keys."""
    composed = configuration.composed([word for word in words if not word.startswith("-")])
    template = composed.hydra.help.template
    keys = OmegaConf.to_yaml(without_hydra(composed))
    groups = "".join(f"{group}: {', '.join(configuration.choices(group))}\n" for group in configuration.groups)
    return string.Template(template).safe_substitute(APP_CONFIG_GROUPS=groups, CONFIG=keys)


def run_command(main: Callable[[], None]) -> None:
    """Calls `main`; prints a user's mistake (or lack of memory, or Ctrl-C) as one message on stderr.

    Raises:
        SystemExit: With code 2 for a user's mistake or too little memory, 128 + signal for Ctrl-C and SIGTERM, 1 if
            standard output could not be written to the end.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets Hydra's own errors through to here
    with lasting_output() as output, raised_signals():
        _run(main)
    if output.failure is not None:
        if not isinstance(output.failure, BrokenPipeError):  # the reader (such as `head`) has seen enough
            print(f"error: standard output: {output.failure.strerror}", file=sys.stderr)
        raise SystemExit(EXIT_BUG)


def _run(main: Callable[[], None]) -> None:
    try:
        main()
    except (Exception, KeyboardInterrupt, Stopped) as error:
        described = describe_error(error)
        if number := stopped_by():
            described = word_for(number), 128 + number
        processes = sys.modules.get("harness.compute.processes")  # only a command that may have others has imported it
        if described is None and processes and (message := processes.other_refusal()):
            error, described = OtherProcessError(message), (message, EXIT_USER_ERROR)  # a consequence, not a bug
        if described is None:
            if processes and processes.joined():
                traceback.print_exc()
                processes.end_together(f"{type(error).__name__}: {error}", EXIT_BUG)
            raise
        message, code = described
        itself = isinstance(error, OtherProcessError) or stopped_by()
        print(message if itself else f"error: {message}", file=sys.stderr, flush=True)
        if processes:
            processes.end_together(message, code, functools.partial(_devices_set, main))
        raise SystemExit(code) from None


def _devices_set(main: Callable[[], None]) -> Mapping[str, Any]:
    """Returns what the user has set of `devices` in a command whose configuration may be what has failed."""
    from harness.runs.composition import devices_among  # what imports JAX, is imported after the command has begun

    return devices_among(getattr(main, "config_name", None), sys.argv[1:])


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
        return word_for(signal.SIGINT), 128 + signal.SIGINT
    if isinstance(error, OSError):
        advice = f"\n  {_FOLDER_ADVICE}" if _cannot_write(error) else ""
        return f"{error.filename or 'a file'}: {error.strerror or error}{advice}", EXIT_USER_ERROR
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):  # how XLA reports a full device
        return _memory_message(str(error).splitlines()[0]), EXIT_USER_ERROR
    if isinstance(error, RuntimeError | AssertionError) and (missing := _missing_backend()):
        return missing, EXIT_USER_ERROR
    return None


def _memory_message(detail: str) -> str:
    return f"not enough memory: {detail}\n  Use smaller batches or a smaller data set."


def _missing_backend() -> str | None:
    """Returns what to do about a device that JAX was asked for and does not have; None: it has it."""
    wanted = os.environ.get("JAX_PLATFORMS")
    if not wanted or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
    except (RuntimeError, AssertionError) as error:  # for some, JAX only asserts that there is one
        why = f" ({str(error).splitlines()[0].partition(' (set JAX')[0]})" if str(error) else ""
        return (
            f"JAX_PLATFORMS={wanted}: JAX finds no such device here{why}\n"
            "  Unset JAX_PLATFORMS, set it to cpu, or install what the device needs, such as '.[cuda]'."
        )
    return None


def _cannot_write(error: OSError) -> bool:
    if isinstance(error, FileNotFoundError) and str(error.filename).startswith(("/proc/", "/sys/")):
        return True  # so these file systems refuse new folders
    full = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
    return isinstance(error, PermissionError | FileExistsError | NotADirectoryError) or error.errno in full

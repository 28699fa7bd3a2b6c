"""Several processes of one run: they join, agree, wait for each other, and end together.

What they say to each other goes through the key-value store of JAX's coordination service, not through devices: a
process that waits in a computation hears of nothing, whereas one that waits for a key can be told that another one has
refused to go on.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src.distributed import global_state  # JAX has no public way to its key-value store
from jax.experimental import multihost_utils

from harness.compute.devices import DETECT, DevicesConfig
from harness.errors import OtherProcessError, UserError

_JOIN_SECONDS = 120
_REFUSAL_SECONDS = 5  # within which the others hear of a refusal
_GRACE_SECONDS = 2.0  # for a process to end by itself once another has refused
_POLL_SECONDS = 0.3
_ROOT = "processes"  # of our keys; others keep theirs in the same store
_REFUSAL = f"{_ROOT}/refusal"
_ENDED = f"{_ROOT}/ended"

_messages = itertools.count()  # all processes exchange the same messages in the same order
_expected: Mapping[str, Any] | None = None  # settings by which this process is going to join others
_gave_up = False  # whether an attempt to join goes on in vain


def join_processes(config: DevicesConfig) -> None:
    """Connects this process to the others, if any, saying so; call it before anything is computed.

    From then on a refusal of any process ends all of them, even one that waits in a computation.

    Raises:
        UserError: The other processes cannot be reached.
    """
    if config.coordinator is None or joined():
        return
    explicit = config.coordinator != DETECT
    who = f"process {config.process} of {config.processes}" if explicit else "a process that the scheduler started"
    where = config.coordinator if explicit else "the address that it names"
    print(f"{who}: waiting for the others at {where}", file=sys.stderr, flush=True)
    address = config.coordinator if explicit else None
    _connect(address, config.processes, config.process, f"devices.coordinator={config.coordinator}")
    stop = threading.Event()
    watch = threading.Thread(target=_watch_for_refusal, args=(stop,), daemon=True)
    watch.start()

    def end_watch() -> None:
        stop.set()
        watch.join()

    atexit.register(end_watch)


def _connect(address: str | None, processes: int | None, process: int | None, where: str) -> None:
    """Calls JAX, which would abort this process if it waited in vain."""
    global _gave_up
    failures: list[Exception] = []

    def connect() -> None:
        try:
            jax.distributed.initialize(address, processes, process, initialization_timeout=2 * _JOIN_SECONDS)
        except (RuntimeError, ValueError) as error:
            failures.append(error)

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(_JOIN_SECONDS)
    _gave_up = attempt.is_alive()
    if _gave_up or failures:
        why = str(failures[0]).splitlines()[0] if failures else f"not all are there after {_JOIN_SECONDS} s"
        raise UserError(
            f"the processes cannot be joined ({why})",
            where=where,
            do="Check address, numbers and firewall; every process has to start within two minutes.",
        )


def joined() -> bool:
    """Returns whether this process is one of several."""
    return bool(jax.distributed.is_initialized())


def is_first_process() -> bool:
    """Returns whether this process writes the files and prints."""
    return _index() == 0


@contextmanager
def silent_unless_first() -> Iterator[None]:
    """Silences all processes but the first, except for errors that end a process."""
    if is_first_process():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def meet() -> None:
    """Waits until every process has reached this point.

    Raises:
        OtherProcessError: Another process has refused to go on.
    """
    if _count() > 1:
        _exchange("")


def agreed(number: int) -> int:
    """Returns the largest of the numbers that the processes pass."""
    return int(multihost_utils.process_allgather(np.int32(number)).max()) if _count() > 1 else number


def agreed_seconds(seconds: float) -> float:
    """Returns the time of the slowest process, so that all take the same decisions by it."""
    return seconds if _count() == 1 else agreed(round(1000 * seconds)) / 1000


def agreed_path(path: Path) -> Path:
    """Returns the path of the first process; the others' may differ, as it can contain the time.

    Raises:
        OtherProcessError: Another process has refused to go on.
    """
    return path if _count() == 1 else Path(_exchange(str(path.absolute()))[0])


def check_same_settings(settings: Mapping[str, Any]) -> None:
    """Checks that all processes have the same settings.

    Args:
        settings: JSON values by dotted key.

    Raises:
        UserError: In the first process, if they differ; the message names keys and values.
        OtherProcessError: In the others then.
    """
    if _count() == 1:
        return
    first, *others = (json.loads(text) for text in _exchange(json.dumps(dict(settings))))
    for process, other in enumerate(others, 1):
        differing = [key for key in sorted({*first, *other}) if first.get(key) != other.get(key)]
        if differing and is_first_process():
            listed = "; ".join(
                f"{key} is {first.get(key)} in process 0, {other.get(key)} in process {process}"
                for key in differing[:3]
            )
            raise UserError(
                f"{listed}{' and so on' if len(differing) > 3 else ''}",
                do="Processes of one run share all settings but devices.process and hydra.run.dir.",
            )
    _exchange("")  # the first one has not refused


def other_refusal() -> str | None:
    """Returns why another process of this run has ended; None if it has not, or if there is none."""
    refusal = _refusal() if joined() else None
    return _of_another(refusal) if refusal and refusal["process"] != _index() else None


def expect_processes(devices: Mapping[str, Any]) -> None:
    """Says by which settings this process is going to join others, in case it refuses before.

    Args:
        devices: The values of `DevicesConfig`, unchecked.
    """
    global _expected
    _expected = devices


def end_together(message: str, code: int, devices_set: Callable[[], Mapping[str, Any]] = dict) -> None:
    """Tells the other processes of this run, if any, that this one ends; then ends it without waiting for them.

    JAX's own end would wait minutes for the others, or abort them. Without other processes nothing happens.

    Args:
        message: Why, for the others' users.
        code: Of this process and of the others.
        devices_set: Returns what the user set of `DevicesConfig`, unchecked; asked unless `expect_processes` was.
    """
    if _gave_up:
        _exit(code)
    elif joined():
        _refuse(message, code)
    else:
        _join_to_refuse(message, code, devices_set() if _expected is None else _expected)


def _refuse(message: str, code: int) -> None:
    refusal = {"process": _index(), "message": message, "code": code}
    with suppress(jax.errors.JaxRuntimeError):  # another one has refused already
        _client().key_value_set(_REFUSAL, json.dumps(refusal))
    _leave(code)


def _join_to_refuse(message: str, code: int, devices: Mapping[str, Any]) -> None:
    """Tells processes that wait for this one, if its settings say that there are any.

    A process of its own joins them for this: JAX aborts it if there is none to join.
    """
    address = devices.get("coordinator")
    if address is None:
        return
    try:
        count, number = (None if address == DETECT else int(devices[key]) for key in ("processes", "process"))
    except (KeyError, TypeError, ValueError):
        return
    where = None if address == DETECT else str(address)
    with warnings.catch_warnings(action="ignore"):  # JAX's and Python's, about threads that do not survive a fork
        child = os.fork()
    if child:
        deadline = time.monotonic() + 2 * _REFUSAL_SECONDS
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        jax.distributed.initialize(where, count, number, initialization_timeout=_REFUSAL_SECONDS)
        _refuse(message, code)
    finally:
        os._exit(code)


def _client() -> Any:
    return global_state.client


def _index() -> int:
    """Returns which process this is. JAX's own functions would wait for the devices of all processes first."""
    return int(global_state.process_id)


def _count() -> int:
    return int(global_state.num_processes)


def _exchange(text: str) -> list[str]:
    """Returns what each process passes; waits for all of them."""
    client, keys = _client(), f"{_ROOT}/messages/{next(_messages)}"
    client.key_value_set(f"{keys}/{_index()}", text)
    if is_first_process():
        texts = [_value(f"{keys}/{process}") for process in range(_count())]
        client.key_value_set(f"{keys}/all", json.dumps(texts))
        return texts
    exchanged: list[str] = json.loads(_value(f"{keys}/all"))
    return exchanged


def _value(key: str) -> str:
    """Returns the value of a key as soon as there is one; raises OtherProcessError if there will be none."""
    while True:
        try:
            return str(_client().blocking_key_value_get(key, int(1000 * _POLL_SECONDS)))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if refusal := _refusal():
            raise OtherProcessError(_of_another(refusal))


def _refusal() -> dict[str, Any] | None:
    """Returns why a process refuses to go on; None if none does."""
    try:
        refusal: dict[str, Any] = json.loads(_client().key_value_try_get(_REFUSAL))
    except jax.errors.JaxRuntimeError:
        return None
    return refusal


def _of_another(refusal: Mapping[str, Any]) -> str:
    return f"process {_index()} ends, since process {refusal['process']} does: {refusal['message']}"


def _watch_for_refusal(stop: threading.Event) -> None:
    """Ends this process if another has refused and this one, in a computation perhaps, does not notice."""
    while not stop.wait(_POLL_SECONDS):
        if refusal := _refusal():
            if not stop.wait(_GRACE_SECONDS):
                print(_of_another(refusal), file=sys.__stderr__, flush=True)
                _leave(refusal["code"])
            return


def _leave(code: int) -> None:
    """Ends this process at once; the first one, which serves the others, after all others."""
    client = _client()
    with suppress(jax.errors.JaxRuntimeError):
        client.key_value_set(f"{_ENDED}/{_index()}", "", allow_overwrite=True)
        if is_first_process():
            deadline = time.monotonic() + _REFUSAL_SECONDS
            while len(client.key_value_dir_get(f"{_ENDED}/")) < _count() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            time.sleep(_POLL_SECONDS)
    _exit(code)


def _exit(code: int) -> None:
    """Ends this process without JAX's farewell, which waits for others."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)

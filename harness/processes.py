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
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from harness.devices import DETECT, DevicesConfig
from harness.errors import OtherProcessError, UserError

_JOIN_SECONDS = 120
_REFUSAL_SECONDS = 5  # within which the others hear of a refusal
_GRACE_SECONDS = 2.0  # for a process to end by itself once another has refused
_POLL_SECONDS = 0.3
_REFUSAL = "refusal"

_messages = itertools.count()  # all processes exchange the same messages in the same order


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
    try:
        jax.distributed.initialize(
            config.coordinator if explicit else None,
            config.processes,
            config.process,
            initialization_timeout=_JOIN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes cannot be joined ({str(error).splitlines()[0]})",
            where=f"devices.coordinator={config.coordinator}",
            do="Check address, numbers and firewall; every process has to start within two minutes.",
        ) from None
    stop = threading.Event()
    watch = threading.Thread(target=_watch_for_refusal, args=(stop,), daemon=True)
    watch.start()

    def end_watch() -> None:
        stop.set()
        watch.join()

    atexit.register(end_watch)


def joined() -> bool:
    """Returns whether this process is one of several."""
    return bool(jax.distributed.is_initialized())


def is_first_process() -> bool:
    """Returns whether this process writes the files and prints."""
    return jax.process_index() == 0


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
    if jax.process_count() > 1:
        _exchange("")


def agreed(number: int) -> int:
    """Returns the largest of the numbers that the processes pass."""
    return int(multihost_utils.process_allgather(np.int32(number)).max()) if jax.process_count() > 1 else number


def agreed_path(path: Path) -> Path:
    """Returns the path of the first process; the others' may differ, as it can contain the time.

    Raises:
        OtherProcessError: Another process has refused to go on.
    """
    return path if jax.process_count() == 1 else Path(_exchange(str(path.absolute()))[0])


def check_same_settings(settings: Mapping[str, Any]) -> None:
    """Checks that all processes have the same settings.

    Args:
        settings: JSON values by dotted key.

    Raises:
        UserError: In the first process, if they differ; the message names keys and values.
        OtherProcessError: In the others then.
    """
    if jax.process_count() == 1:
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
    return _of_another(refusal) if refusal and refusal["process"] != jax.process_index() else None


def end_together(message: str, code: int) -> None:
    """Tells the other processes of this run, if any, that this one ends; then ends it without waiting for them.

    JAX's own end would wait minutes for the others, or abort them. Without other processes nothing happens.

    Args:
        message: Why, for the others' users.
        code: Of this process and of the others.
    """
    if not joined() and not _joined_to_refuse():
        return
    process = jax.process_index()
    with suppress(jax.errors.JaxRuntimeError):  # another one has refused already
        _client().key_value_set(_REFUSAL, json.dumps({"process": process, "message": message, "code": code}))
    _leave(code)


def _client() -> Any:
    from jax._src.distributed import global_state  # JAX has no public way to its key-value store

    return global_state.client


def _exchange(text: str) -> list[str]:
    """Returns what each process passes; waits for all of them."""
    client, number = _client(), next(_messages)
    client.key_value_set(f"{number}/{jax.process_index()}", text)
    if is_first_process():
        texts = [_value(f"{number}/{process}") for process in range(jax.process_count())]
        client.key_value_set(f"{number}/all", json.dumps(texts))
        return texts
    exchanged: list[str] = json.loads(_value(f"{number}/all"))
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
    return f"process {jax.process_index()} ends, since process {refusal['process']} does: {refusal['message']}"


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
    process, client = jax.process_index(), _client()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(jax.errors.JaxRuntimeError):
        client.key_value_set(f"{_REFUSAL}/{process}", "", allow_overwrite=True)
        if is_first_process():
            deadline = time.monotonic() + _REFUSAL_SECONDS
            while len(client.key_value_dir_get(f"{_REFUSAL}/")) < jax.process_count() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            time.sleep(_POLL_SECONDS)
    os._exit(code)


def _joined_to_refuse() -> bool:
    """Joins processes that wait for this one, if the command line says that there are any, only to tell them."""
    settings = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith("devices.") and "=" in word)
    try:
        address, number, process = (settings[f"devices.{key}"] for key in ("coordinator", "processes", "process"))
        jax.distributed.initialize(address, int(number), int(process), initialization_timeout=_REFUSAL_SECONDS)
    except (KeyError, ValueError, RuntimeError):
        return False
    return True

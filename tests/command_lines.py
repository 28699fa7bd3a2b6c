"""What tests of real command lines share: starting commands, reading a run folder without the project's code."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SERVER = Path(__file__).parent / "command_server.py"
TIMEOUT = 600  # seconds that a command may take


class CommandServer:
    """A process that has imported the project and starts commands by forking (see `tests/command_server.py`).

    Args:
        environment: Its own, hence that of the imports; `run` may be given another one.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, folder: Path, environment: dict[str, str], module: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Does what `run_module` does."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, SERVER],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as errors:
            request = {"folder": str(folder), "environment": environment, "module": module, "arguments": arguments}
            files = {"stdout": out.name, "stderr": errors.name}
            print(json.dumps(request | files), file=self._process.stdin, flush=True)
            answered, _, _ = select.select([self._process.stdout], [], [], TIMEOUT)
            written = [Path(file.name).read_text() for file in (out, errors)]
            if not answered:
                self.close()
                raise subprocess.TimeoutExpired([module, *arguments], TIMEOUT, *written)
            return subprocess.CompletedProcess([module, *arguments], int(self._process.stdout.readline()), *written)

    def close(self) -> None:
        """Ends the process, if there is one, and a command that is still running in it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


_servers: list[CommandServer] = []


@contextmanager
def commands_forked(environment: dict[str, str]) -> Iterator[None]:
    """Lets `run_module` start commands quickly, where they are started without `fresh`."""
    if sys.platform == "linux":
        _servers.append(CommandServer(environment))
    yield
    while _servers:
        _servers.pop().close()


def run_module(
    folder: Path,
    environment: dict[str, str],
    module: str,
    *arguments: str,
    prepare: Callable[[], None] | None = None,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m MODULE ARGUMENTS` in a folder, after `prepare()` in it; returns the finished process.

    Args:
        folder: To start in.
        environment: Of the process. Without `fresh`, what Python and JAX read while they are imported may be older.
        module: Whose command it is.
        arguments: Of the command.
        prepare: Called in the process before the command starts.
        fresh: Whether a new interpreter has to import everything.
    """
    if _servers and prepare is None and not fresh:
        return _servers[-1].run(folder, environment, module, *arguments)
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
        preexec_fn=prepare,
    )


def killed_after_a_checkpoint(
    folder: Path, environment: dict[str, str], run: Path, number: int, module: str, *arguments: str
) -> tuple[int, str]:
    """Starts a command, sends it a signal at the first checkpoint in `run`; returns its exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not checkpoint_steps(run) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def trained_run(folder: Path, environment: dict[str, str], module: str, *arguments: str) -> tuple[Path, Any]:
    """Trains in the folder `run` below a folder; returns it and the finished process."""
    finished = run_module(folder, environment, module, *arguments, "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    return folder / "run", finished


def metrics_without_times(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key not in ("seconds", "episodes_per_second")} for row in rows]


def assert_same_metrics(folder: Path, other: Path, tolerance: float) -> None:
    """Compares the rows of two runs, numbers to a relative tolerance."""
    for row, other_row in zip(metrics_without_times(folder), metrics_without_times(other), strict=True):
        assert row.keys() == other_row.keys()
        for key, value in other_row.items():
            expected = value if isinstance(value, str) else pytest.approx(value, rel=tolerance, abs=tolerance)
            assert row[key] == expected, f"step {row['step']}: {key}"


def parameters(folder: Path, step: int) -> list[np.ndarray]:
    """All arrays of a checkpoint, read without our code, whatever devices it was written on."""
    import jax
    import orbax.checkpoint as ocp

    path = (folder / "checkpoints" / str(step) / "state").absolute()
    with ocp.PyTreeCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        restored = checkpointer.restore(path, restore_args=as_numpy)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored)]


def checkpoint_steps(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]


def assert_one_message(finished: subprocess.CompletedProcess, *parts: str) -> None:
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("error: ") == 1
    for part in parts:
        assert part in finished.stderr

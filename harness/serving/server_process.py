"""A server in a process of its own, to be measured, stopped and killed."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import UserError

_ADDRESS = re.compile(r"serving .* on http://\S+:(\d+)\n")


class ServerProcess:
    """`python -m harness.serving`, which has begun to serve."""

    def __init__(
        self, model: Path, *words: str, environment: Mapping[str, str] | None = None, command: Sequence[str] = ()
    ):
        """Starts it and waits until it serves.

        Args:
            model: Folder of the export.
            words: Other settings; any free port unless one is set.
            environment: Of the process; None: of this one.
            command: In place of `python -m harness.serving`.

        Raises:
            UserError: It ended before it served; the message has what it wrote.
        """
        start = list(command) or [sys.executable, "-m", "harness.serving"]
        self.process = subprocess.Popen(
            [*start, f"model={model}", "port=0", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=None if environment is None else dict(environment),
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        found = _ADDRESS.fullmatch(line)
        if found is None:
            self.process.kill()
            _, written = self.process.communicate()
            raise UserError(f"the server did not start: {line}{written[-2000:]}")
        self.port = int(found[1])

    def resident_mib(self) -> float:
        """Returns its resident memory (Linux)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def end(self, number: int) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


@contextlib.contextmanager
def serving(model: Path, *words: str) -> Iterator[ServerProcess]:
    """Serves until the block ends."""
    server = ServerProcess(model, *words)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(15)

"""What a server decided and what was answered, appended to files that `data=served_log` reads.

A line is a JSON object: a decision {"decision", "time", "model", "policy", "user", "items", "scores", "probabilities"}
or an answer {"answer_to", "time", "item", "answer", "user"}. Every process writes files of its own, so that several
servers can share a folder.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATTERN = "served-*.jsonl"
RETRY_SECONDS = 1.0
"""After a failure, how long nothing is kept until a new file is tried."""
_FILES_IN_FOLDER = 4
_LIVE_SECONDS = 3600.0  # without locks a file that was written to in this time is another server's


class DecisionLog:
    """Appends lines to files of limited size; the oldest files are removed where the folder becomes too large.

    Files that a living server appends to are locked and never removed. Where the disk is full or gone, lines are
    dropped and counted, and now and then a new file is tried.

    Attributes:
        errors: Lines that were dropped, and files that could not be begun.
        removed: Files that were removed.
    """

    def __init__(self, folder: str | Path, file_mb: float = 64, folder_mb: float = 4096) -> None:
        """Makes the folder and its first file.

        Args:
            folder: Of the files.
            file_mb: MiB after which a new file begins; at most a quarter of the folder's.
            folder_mb: MiB of all files; files beyond, oldest first, are removed.

        Raises:
            UserError: The folder cannot be written.
        """
        self.folder = Path(folder).expanduser()
        self._folder_bytes = int(folder_mb * 2**20)
        self._file_bytes = min(int(file_mb * 2**20), self._folder_bytes // _FILES_IN_FOLDER)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._number = 0
        self.errors = self.removed = 0
        self._retry_at = 0.0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = self._begin()
        except OSError as error:
            raise UserError(
                f"cannot be written ({error.strerror or error})",
                where=str(self.folder),
                do="Choose another: log=FOLDER",
            ) from None

    def decision(
        self,
        decision: str,
        model: str,
        policy: str,
        user: Any,
        items: list[Any],
        scores: list[float],
        chances: list[float],
    ) -> bool:
        """Appends a list that was given, with the probability of each item at its place; returns whether it is kept."""
        line = {"decision": decision, "time": time.time(), "model": model, "policy": policy, "user": user}
        return self._append(line | {"items": items, "scores": scores, "probabilities": chances})

    def answer(self, decision: str | None, item: Any, answer: Any, user: Any) -> bool:
        """Appends an answer to an item of a decision, or to one that nobody recommended (None); see `decision`."""
        return self._append({"answer_to": decision, "time": time.time(), "item": item, "answer": answer, "user": user})

    def close(self) -> None:
        """Closes the file; nothing is in memory."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _append(self, line: dict[str, Any]) -> bool:
        """Writes a line at once; returns whether it was written as a whole."""
        content = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            if self._file is None:
                if time.monotonic() < self._retry_at:
                    self.errors += 1
                    return False
                self._file = self._begin()
            if self._file.write(content) != len(content):
                raise OSError("the disk is full")
        except OSError as error:
            # A part of the line may stand at the end of the file, where readers leave it out: never append to it.
            self._failed(error)
            self.close()
            return False
        if self._file.tell() >= self._file_bytes and time.monotonic() >= self._retry_at:
            try:
                following = self._begin()
            except OSError as error:
                self._failed(error)  # the present file goes on
            else:
                self._file.close()
                self._file = following
        return True

    def _failed(self, error: OSError) -> None:
        if not self.errors:  # once: the counter says how often
            print(f"warning: the log {self.folder} cannot be written ({error.strerror or error})", file=sys.stderr)
        self.errors += 1
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _begin(self) -> BinaryIO:
        self._remove_oldest()
        self._number += 1
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")  # names are in order of time
        path = self.folder / f"served-{moment}-{self._name}-{self._number:04d}.jsonl"
        file = path.open("ab", buffering=0)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return file

    def _remove_oldest(self) -> None:
        files = sorted(self.folder.glob(PATTERN), reverse=True)
        total, removed = self._file_bytes, []  # room for the one that begins
        for file in files:
            with suppress(OSError):
                total += file.stat().st_size
                if total > self._folder_bytes and not _in_use(file):
                    file.unlink()
                    removed.append(file.name)
        if removed:
            self.removed += len(removed)
            limit = f"{self._folder_bytes / 2**20:g} MiB (log_mb)"
            print(
                f"warning: {len(removed)} oldest files removed from {self.folder}, which may hold {limit}: up to "
                f"{removed[0]}",
                file=sys.stderr,
                flush=True,
            )


def _in_use(path: Path) -> bool:
    """Whether a living server appends to a file."""
    if fcntl is None:
        return time.time() - path.stat().st_mtime < _LIVE_SECONDS
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return time.time() - path.stat().st_mtime < _LIVE_SECONDS
    return False

"""What a server decided and what was answered, appended to files that `data=served_log` reads.

A line is a JSON object: a decision {"decision", "time", "model", "policy", "user", "items", "scores", "probabilities"}
or an answer {"answer_to", "time", "item", "answer", "user"}. Every process writes files of its own, so that several
servers can share a folder.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from harness.errors import UserError

PATTERN = "served-*.jsonl"


class DecisionLog:
    """Appends lines to files of limited size; the oldest files are removed where the folder becomes too large."""

    def __init__(self, folder: str | Path, file_mb: int = 64, folder_mb: int = 4096) -> None:
        """Makes the folder and its first file.

        Args:
            folder: Of the files.
            file_mb: MiB after which a new file begins.
            folder_mb: MiB of all files; files beyond, oldest first, are removed.

        Raises:
            UserError: The folder cannot be written.
        """
        self.folder = Path(folder).expanduser()
        self._file_bytes, self._folder_bytes = file_mb * 2**20, folder_mb * 2**20
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._number = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._begin()
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
    ) -> None:
        """Appends a list that was given, with the probability of each item at its place."""
        line = {"decision": decision, "time": time.time(), "model": model, "policy": policy, "user": user}
        self._append(line | {"items": items, "scores": scores, "probabilities": chances})

    def answer(self, decision: str | None, item: Any, answer: Any, user: Any) -> None:
        """Appends an answer to an item of a decision, or to one that nobody recommended (None)."""
        self._append({"answer_to": decision, "time": time.time(), "item": item, "answer": answer, "user": user})

    def close(self) -> None:
        """Writes what is still in memory."""
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
        if self._file.tell() >= self._file_bytes:
            self._file.close()
            self._file = self._begin()

    def _begin(self) -> TextIO:
        self._remove_oldest()
        self._number += 1
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return (self.folder / f"served-{moment}-{self._name}-{self._number:04d}.jsonl").open("a", encoding="ascii")

    def _remove_oldest(self) -> None:
        files = sorted(self.folder.glob(PATTERN), reverse=True)
        total = self._file_bytes  # room for the one that begins
        for file in files:
            with suppress(OSError):
                total += file.stat().st_size
                if total > self._folder_bytes:
                    file.unlink()

"""Logs that grow: a run notes how much of each file it was trained on, and later reads no more than that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from sim.files.locate import Paths, bad_setting, named_paths
from sim.formats.sources import Source, checksum_of, describe_sources, unreadable

if TYPE_CHECKING:  # it imports JAX, which reading a file does not need
    from harness.runs.seeds import Run

LOG_PARTS = "log_parts"
"""Key of the settings of growing logs: `FILE:BYTES` for each file, in order; empty: all that is there."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class LogPart:
    """The first bytes of a file."""

    path: Path
    size: int

    def lines(self) -> Iterator[bytes]:
        """Yields its lines with their ends; the last one may be cut."""
        left = self.size
        try:
            with self.path.open("rb") as file:
                while left and (line := file.readline(left)):
                    left -= len(line)
                    yield line
        except OSError as error:
            raise unreadable(error, str(self.path)) from None

    def digest(self) -> str:
        """Returns the SHA-256 of these bytes."""
        left, digest = self.size, hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while left and (block := file.read(min(left, _BLOCK))):
                    left -= len(block)
                    digest.update(block)
        except OSError as error:
            raise unreadable(error, str(self.path)) from None
        return digest.hexdigest()


def log_sources(path: Paths) -> list[Source]:
    """Returns the files of a log that `data.path` names, without empty ones: a server has just begun them.

    Raises:
        UserError: It is not set, nothing is there, or everything is empty.
    """
    if not path:
        raise bad_setting("path", "is not set", "Set it to a server's log, as in 'data.path=served/*.jsonl'.")
    entries = [path] if isinstance(path, str) else path
    sources = [Source(place) for entry in entries for place in named_paths(entry, "data")]
    if not (filled := [source for source in dict.fromkeys(sources) if _size(source)]):
        raise UserError("the log is empty", where=describe_sources(sources), do="Ask the server for lists first.")
    return filled


def log_parts(sources: Sequence[Source], noted: Sequence[str] = ()) -> list[LogPart]:
    """Returns what is read of the files of a log.

    Args:
        sources: The files that are there.
        noted: What a run noted (`LOG_PARTS`); empty: all of them as they are now.

    Raises:
        UserError: A file cannot be read, is no longer there or is shorter than it was, or a note is none.
    """
    sizes = [(source.path, _size(source)) for source in sources]
    if not noted:
        return [LogPart(path, size) for path, size in sizes]
    parts, place = [], 0
    for note in noted:
        name, _, number = note.rpartition(":")
        if not name or not number.isascii() or not number.isdigit():
            raise bad_setting(LOG_PARTS, f"{note!r} is none", "Write FILE:BYTES, or leave it empty to read everything.")
        # In the order of the files, as two in different folders may have one name.
        while place < len(sizes) and sizes[place][0].name != name:
            place += 1
        if place == len(sizes):
            do = "Restore it (the oldest files are removed beyond log_mb: keep copies), or train again."
            raise UserError(f"the run was trained on {name}, which is not there", where=_folder(sources), do=do)
        path, size = sizes[place]
        place += 1
        if size < int(number):
            do = "Restore it, or train again."
            raise UserError(f"has {size:,} bytes, the run was trained on {int(number):,} of it", where=str(path), do=do)
        parts.append(LogPart(path, int(number)))
    return parts


def checksum_of_parts(parts: Sequence[LogPart]) -> str:
    """Returns the checksum of what is read, which is that of the files as long as they do not grow."""
    return checksum_of([(part.path.name, part.digest()) for part in parts])


def with_log_parts(runs: list[Run]) -> list[Run]:
    """Returns new runs whose settings note how much of a growing log there is; data of other kinds have no such key.

    Raises:
        UserError: The log is not there.
    """
    data: dict[str, Any] = runs[0].values.get("data", {})
    if LOG_PARTS not in data or data[LOG_PARTS] or not data.get("path"):
        return runs
    parts = log_parts(log_sources(data["path"]))
    noted = [f"{part.path.name}:{part.size}" for part in parts]
    return [run._replace(values=run.values | {"data": run.values["data"] | {LOG_PARTS: noted}}) for run in runs]


def _size(source: Source) -> int:
    try:
        return source.path.stat().st_size
    except OSError as error:
        raise unreadable(error, str(source.path)) from None


def _folder(sources: Sequence[Source]) -> str:
    return str(sources[0].path.parent) if sources else ""

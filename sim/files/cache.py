"""Parsed rating tables on disk: a folder of .npy files and meta.json each, written atomically, read as memory maps."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import typing
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

FORMAT_VERSION = 2
_BLOCK = 1 << 24

Table = TypeVar("Table")
"""A dataclass of arrays (possibly None) and JSON values, such as `sim.tables.ratings.RatingData`."""


def notice(message: str) -> None:
    """Prints one line on stderr."""
    print(message, file=sys.stderr, flush=True)


def cached(kind: type[Table], root: Path, key: dict[str, Any], build: Callable[[], Table]) -> Table:
    """Returns the table stored under `key`, or builds and stores it.

    A damaged entry is rebuilt with a notice; if the cache cannot be written, there is only a notice.

    Args:
        kind: The table's dataclass.
        root: Folder of all cached tables.
        key: Everything that determines the table, apart from its kind, as JSON values.
        build: Builds the table; its errors are passed on.
    """
    text = json.dumps({"format": FORMAT_VERSION, **key}, sort_keys=True)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        return load(kind, folder)
    except FileNotFoundError:
        damaged = folder.exists()
        reason = "a file is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = True
        reason = str(error)
    if damaged:
        notice(f"notice: the cached table {folder} is unusable ({reason}); rebuilding it")
    data = build()
    try:
        save(folder, data)
    except OSError as error:
        notice(f"warning: cannot cache the parsed table in {folder} ({error.strerror or error}); set data.cache")
    return data


def _is_array(hint: Any) -> bool:
    """Returns whether a field of this type contains an array (or None)."""
    return hint is np.ndarray or np.ndarray in typing.get_args(hint)


def save(folder: Path, data: Any) -> None:
    """Writes a table to a temporary folder and renames it to `folder`, replacing any earlier entry.

    Raises:
        OSError: The folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    arrays: dict[str, int] = {}
    values: dict[str, Any] = {}
    try:
        temporary.mkdir(parents=True)
        for name, hint in typing.get_type_hints(type(data)).items():
            value = getattr(data, name)
            if not _is_array(hint):
                values[name] = value
            elif value is not None:
                np.save(temporary / f"{name}.npy", value, allow_pickle=False)
                arrays[name] = _crc(temporary / f"{name}.npy")
        (temporary / "meta.json").write_text(json.dumps({"arrays": arrays, **values}, indent=1), "utf-8")
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Renames `temporary` to `folder`; an existing entry is moved aside first (its open maps stay valid)."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except OSError:
        if not (folder / "meta.json").exists():  # else another process has just written the same table
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(OSError):  # it may not have been a folder
            aside.unlink()


def load(kind: type[Table], folder: Path) -> Table:
    """Returns the table in `folder`, its arrays memory-mapped and read-only.

    Raises:
        FileNotFoundError: There is no complete entry.
        OSError: A file cannot be read.
        ValueError, KeyError, TypeError: A file is damaged.
    """
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    values: dict[str, Any] = {}
    newer = {field.name for field in dataclasses.fields(cast(Any, kind)) if _has_default(field)} - meta.keys()
    for name, hint in typing.get_type_hints(kind).items():
        if not _is_array(hint):
            if name not in newer:  # an entry of an earlier version lacks what has a default
                values[name] = meta[name]
        elif name in meta["arrays"]:
            path = folder / f"{name}.npy"
            if _crc(path) != meta["arrays"][name]:
                raise ValueError(f"{path.name} has changed")
            values[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        elif hint is not np.ndarray:
            values[name] = None
    return kind(**values)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _crc(path: Path) -> int:
    """Returns the CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value

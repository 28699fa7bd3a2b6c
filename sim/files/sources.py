"""Source files of ratings: plain, gzip or a member of a zip archive, read as checked chunks of whole lines.

Nothing is unpacked to disk. Any reason why a file cannot be read becomes a `UserError` that names the file.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from harness.errors import UserError

CHUNK_BYTES = 1 << 25
MAX_LINE_BYTES = 1 << 20
MAX_SHOWN_CHARACTERS = 80
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DAMAGED = "The file is damaged or incomplete: get a fresh copy."


@dataclass(frozen=True)
class SizeLimits:
    """Guards against decompression bombs.

    Attributes:
        max_bytes: Maximum unpacked size in bytes.
        max_ratio: Maximum ratio of unpacked to packed size; ratings as text have about 5.
        ratio_from: Unpacked size in bytes from which the ratio is checked.
    """

    max_bytes: int = 16 << 30
    max_ratio: float = 200.0
    ratio_from: int = 1 << 24

    def check(self, unpacked: int, packed: int, where: str) -> None:
        """Raises UserError if `packed` bytes may not unpack to `unpacked` bytes."""
        if unpacked > self.max_bytes:
            raise UserError(
                f"unpacks to more than the allowed {self.max_bytes / 2**30:g} GiB",
                where=where,
                do="If you trust the file, raise data.max_unpacked_gib.",
            )
        if unpacked >= self.ratio_from and unpacked > self.max_ratio * max(packed, 1):
            raise UserError(
                f"unpacks to more than {self.max_ratio:g} times its packed size, like a decompression bomb",
                where=where,
                do="Unpack it yourself if you trust it, and name the unpacked file.",
            )


@dataclass(frozen=True)
class Source:
    """A data file: a path, and the name of the member if the path is a zip archive."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        """The path (and member) as messages show it."""
        return str(self.path) if self.member is None else f"{self.path} (member {self.member})"


@dataclass(frozen=True)
class Chunk:
    r"""Whole lines of a text file.

    Attributes:
        data: The lines, each terminated by `\n` (CRLF normalised, byte order mark and final blank lines removed).
        first_line: Number of the first line in the file, from 1.
        unterminated: Whether this is the end of the file and its last line is not terminated.
    """

    data: bytes
    first_line: int
    unterminated: bool = False


def check_file(path: Path) -> None:
    """Raises UserError unless `path` is an existing, regular, non-empty file."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(error, str(path)) from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError("is a directory, not a file", where=str(path), do="Name the file itself.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError("is not a regular file", where=str(path), do="Name a regular file.")
    if status.st_size == 0:
        raise UserError("the file is empty", where=str(path), do=_DAMAGED)


def checksum(paths: Sequence[Path]) -> str:
    """Returns "sha256:..." of one file; of several files, that of the lines "hash  name" in the given order.

    Raises:
        UserError: A file cannot be read.
    """
    digests = []
    for path in paths:
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise _unreadable(error, str(path)) from None
    if len(digests) == 1:
        return f"sha256:{digests[0]}"
    listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, paths, strict=True))
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def find_members(path: Path, pattern: str) -> list[str]:
    """Returns the file members of the zip archive at `path` that match `pattern` (`*` matches any characters).

    Raises:
        UserError: The archive is missing or damaged, or no member matches.
    """
    check_file(path)
    with _explained(str(path)), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    members = sorted({name for name in names if fnmatch.fnmatchcase(name, pattern)}, key=natural_order)
    if not members:
        shown = ", ".join(shorten(name) for name in names[:5]) or "nothing"
        raise UserError(
            f"has no member {pattern}; it holds {shown}{', ...' if len(names) > 5 else ''}",
            where=str(path),
            do="Check that this is the right archive, and data.member.",
        )
    return members


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that orders `part_2` before `part_10`."""
    return tuple((int(digits or 0), text) for digits, text in re.findall(r"([0-9]*)([^0-9]*)", name))


def shorten(text: str | bytes) -> str:
    """Returns the repr of `text`, shortened for a message."""
    cut = text[:MAX_SHOWN_CHARACTERS]
    return repr(cut) + ("..." if len(cut) < len(text) else "")


def read_chunks(source: Source, limits: SizeLimits, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Yields the text of a source in order, as chunks of whole lines; memory is bounded by the chunk size.

    Args:
        source: The file; gzip is recognised by its first bytes.
        limits: Limits on the size of unpacked files.
        chunk_bytes: Approximate bytes per chunk.

    Raises:
        UserError: The file is missing, empty, a directory, unreadable, damaged, unsafe (see `SizeLimits` and
            `_check_member`) or has a line of more than 1 MiB.
    """
    line, carry, seen = 1, b"", False
    for block in _read_blocks(source, limits, chunk_bytes):
        if not seen and line == 1 and not carry:
            block = block.removeprefix(_BYTE_ORDER_MARK)
        text = carry + block
        cut = _end_of_last_text_line(text)
        carry, text = text[cut:], text[:cut]
        if len(carry) > MAX_LINE_BYTES:
            number = line + text.count(b"\n")
            raise UserError(f"line {number:,} goes on for more than 1 MiB", where=str(source), do=_DAMAGED)
        if text:
            chunk = Chunk(_normalise(text), line)
            yield chunk
            line, seen = line + chunk.data.count(b"\n"), True
    if carry.strip(b"\r\n"):
        yield Chunk(_normalise(carry + b"\n"), line, unterminated=True)
    elif not seen:
        raise UserError("the file is empty", where=str(source), do=_DAMAGED)


def _normalise(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def _end_of_last_text_line(text: bytes) -> int:
    """Returns the end of the last terminated line that is not blank; final blank lines remain for the next chunk."""
    end = text.rfind(b"\n") + 1
    while True:
        blank = 2 if text.endswith(b"\n\r\n", 0, end) else 1 if text.endswith(b"\n\n", 0, end) else 0
        if not blank:
            return end if text[:end].strip(b"\r\n") else 0
        end -= blank


def _read_blocks(source: Source, limits: SizeLimits, chunk_bytes: int) -> Iterator[bytes]:
    """Yields the unpacked bytes of a source while checking their number."""
    where, total = str(source), 0
    check_file(source.path)
    with _explained(where), _opened(source, limits) as (file, packed):
        while block := file.read(chunk_bytes):
            total += len(block)
            if packed is not None:
                limits.check(total, packed, where)
            yield block


@contextmanager
def _opened(source: Source, limits: SizeLimits) -> Iterator[tuple[BinaryIO, int | None]]:
    """Opens a source; yields the stream and its packed size (None if it is not compressed)."""
    if source.member is not None:
        with zipfile.ZipFile(source.path) as archive:
            info = _check_member(archive, source, limits)
            with archive.open(info) as member:
                yield cast(BinaryIO, member), info.compress_size
        return
    with source.path.open("rb") as file:
        magic = file.read(len(_GZIP_MAGIC))
        file.seek(0)
        if magic != _GZIP_MAGIC and source.path.suffix != ".gz":
            yield file, None
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(BinaryIO, unpacked), source.path.stat().st_size


def _check_member(archive: zipfile.ZipFile, source: Source, limits: SizeLimits) -> zipfile.ZipInfo:
    """Returns the entry of a member, after refusing unsafe ones (links, absolute paths, duplicates)."""
    name, where = cast(str, source.member), str(source)
    entries = [info for info in archive.infolist() if info.filename == name]
    if len(entries) != 1:
        problem = "has no such member" if not entries else f"holds this member {len(entries)} times"
        raise UserError(problem, where=where, do="Check that this is the right archive, and data.member.")
    info = entries[0]
    # orig_filename keeps what zipfile normalises away (backslashes and NUL bytes).
    for spelling in (name, info.orig_filename.replace("\\", "/")):
        path = PurePosixPath(spelling)
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", spelling) or "\0" in spelling:
            raise UserError("the member's path leaves the archive", where=where, do="Do not use this archive.")
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise UserError("the member is a link or special file", where=where, do="Do not use this archive.")
    limits.check(info.file_size, info.compress_size, where)
    return info


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turns any error of opening, unpacking or reading into a UserError."""
    try:
        yield
    except EOFError:
        raise UserError("the compressed data ends too early", where=where, do=_DAMAGED) from None
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError) as error:
        raise UserError(f"is not a sound compressed file ({error})", where=where, do=_DAMAGED) from None
    except (NotImplementedError, RuntimeError) as error:
        # zipfile reports encrypted members and unknown compression so. GeneratorExit is no RuntimeError.
        raise UserError(f"cannot be unpacked ({error})", where=where, do="Unpack the archive yourself.") from None
    except OSError as error:
        raise _unreadable(error, where) from None


def _unreadable(error: OSError, where: str) -> UserError:
    """Returns the UserError for a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return UserError("no such file", where=where, do="Check the path.")
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=where, do="Make the file readable for this user.")
    if isinstance(error, IsADirectoryError):
        return UserError("is a directory, not a file", where=where, do="Name the file itself.")
    return UserError(f"cannot be read ({error.strerror or error})", where=where, do="Check the file and its disk.")

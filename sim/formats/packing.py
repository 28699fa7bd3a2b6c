"""How source files are packed, told by their first bytes and not by their names; members of archives, unpacked bytes.

Nothing but Parquet is unpacked to disk. Any reason why a file cannot be unpacked becomes a `UserError` that names it.
"""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import zstandard

from harness.errors import UserError
from sim.formats.sources import SizeLimits, Source, check_file, explained, natural_order, shorten

_MOST_LAYERS = 3  # such as gzip in a zip
_TAR_MARK = slice(257, 262)

_PARQUET_MARK = b"PAR1"
WEB_PAGE = "a web page, not the file that it may link to"
LFS_POINTER = "a pointer of Git LFS, not the file that it stands for"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ARCHIVES = {b"PK\3\4": "zip", b"PK\5\6": "zip"}
_PACKED = ("an LZ4 file", "a compressed file (compress)", "a Snappy file", "an old LZMA file")
_NO_TABLES = {
    _PARQUET_MARK: "a Parquet file",
    **dict(zip((b"\x04\x22\x4d\x18", b"\x1f\x9d", b"\xff\x06\0\0sNaPpY", b"]\0\0"), _PACKED, strict=True)),
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML", b"\n<!DOCTYPE"), WEB_PAGE),
    b"<?xml": "an XML document",
    b"version https://git-lfs": LFS_POINTER,
    b"<stata_dta>": "a Stata file",
    b"RDX": "an R data file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"ARROW1": "a Feather or Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    **dict.fromkeys((b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"), "a Python pickle"),
    b"%PDF": "a PDF document",
    b"Obj\1": "an Avro file",
    b"ORC": "an ORC file",
}
_UNPACK = "Unpack it yourself, and name the unpacked file."
_GET = "Get the file itself."
_ADVICE = {WEB_PAGE: _GET, LFS_POINTER: f"{_GET} In a clone, git lfs pull does."} | dict.fromkeys(_PACKED, _UNPACK)
_FIRST_BYTES = 512
_BLOCK_BYTES = 1 << 20


def is_plain_parquet(source: Source) -> bool:
    """Returns whether a source is a Parquet file that is not packed, by its first bytes.

    Raises:
        UserError: The file cannot be read.
    """
    if source.member is not None:
        return False
    check_file(source.path)
    with explained(str(source)), source.path.open("rb") as file:
        return file.read(len(_PARQUET_MARK)) == _PARQUET_MARK


def is_parquet(source: Source, limits: SizeLimits) -> bool:
    """Returns whether a source is a Parquet file once it is unpacked.

    Raises:
        UserError: The file cannot be read. One that cannot be unpacked is none: reading it says what is wrong.
    """
    if is_plain_parquet(source):
        return True
    with suppress(UserError), explained(str(source)), ExitStack() as stack:
        file, _ = _opened(source, limits, stack)
        return file.read(len(_PARQUET_MARK)) == _PARQUET_MARK
    return False


def is_archive(path: Path) -> bool:
    """Returns whether a file is a zip or tar archive, the latter possibly compressed.

    Raises:
        UserError: The file cannot be read.
    """
    check_file(path)
    with explained(str(path)), path.open("rb") as file:
        return _kind(file.read(_FIRST_BYTES), _ARCHIVES) is not None or _is_tar(path)


def find_members(path: Path, pattern: str) -> list[str]:
    """Returns the file members of an archive that match `pattern` (`*` matches any characters).

    A member with exactly that name comes before any match. The folders and marks that a Mac adds do not count.

    Raises:
        UserError: The archive is missing or damaged, or no member matches.
    """
    check_file(path)
    with explained(str(path)):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        else:
            if not _is_tar(path):
                raise zipfile.BadZipFile("neither a zip nor a tar archive")
            with tarfile.open(path) as tar:
                names = [info.name for info in tar if not info.isdir()]
    if "[Content_Types].xml" in names or {"mimetype", "content.xml"} <= set(names):
        do = "Save the sheet as CSV, and name that file."
        raise UserError("is an Excel workbook (or another office document)", where=str(path), do=do)
    if pattern in names:
        return [pattern]
    members = sorted({name for name in names if fnmatch.fnmatchcase(name, pattern)}, key=natural_order)
    members = [name for name in members if not _is_mark_of_a_mac(name)]
    if not members:
        shown = ", ".join(shorten(name) for name in names[:5]) or "nothing"
        raise UserError(
            f"has no member {pattern}; it holds {shown}{', ...' if len(names) > 5 else ''}",
            where=str(path),
            do="Check that this is the right archive, and data.member.",
        )
    return members


def read_blocks(source: Source, limits: SizeLimits, block_bytes: int, *, of_parquet: bool = False) -> Iterator[bytes]:
    """Yields the unpacked bytes of a source while checking their number.

    Args:
        source: The source.
        limits: Limits on the size of unpacked files.
        block_bytes: How many bytes at a time.
        of_parquet: Whether it is a Parquet file (`is_parquet`), which is refused otherwise.

    Raises:
        UserError: The file is missing, empty, a directory, unreadable, damaged, unsafe (see `SizeLimits` and
            `_check_path`), or known to be no text.
    """
    where, total = str(source), 0
    check_file(source.path)
    with explained(where), ExitStack() as stack:
        file, packed = _opened(source, limits, stack)
        while block := file.read(block_bytes):
            if not total and _kind(block, _ARCHIVES) is not None:
                do = "Name the archive by data.path, and the file in it by data.member."
                raise UserError("is an archive", where=where, do=do)
            if not total and block[_TAR_MARK] == b"ustar":
                raise UserError(
                    "is a tar archive that is packed otherwise than by gzip, bzip2 or xz", where=where, do=_UNPACK
                )
            if not total and not of_parquet and (kind := _kind(block, _NO_TABLES)) is not None:
                raise UserError(f"is {kind}", where=where, do=_ADVICE.get(kind, "Export it as CSV, TSV or Parquet."))
            total += len(block)
            if packed is not None:
                limits.check(total, packed, where)
            yield block


def _opened(source: Source, limits: SizeLimits, stack: ExitStack) -> tuple[BinaryIO, int | None]:
    """Opens a source; returns the unpacked stream and its packed size (None if nothing is packed)."""
    packed: int | None = None
    if source.member is None:
        file: BinaryIO = stack.enter_context(source.path.open("rb"))
        size = source.path.stat().st_size
    elif zipfile.is_zipfile(source.path):
        archive = stack.enter_context(zipfile.ZipFile(source.path))
        info = _check_zip_member(archive, source, limits)
        file, size = cast(BinaryIO, stack.enter_context(archive.open(info))), info.compress_size
        packed = size
    else:
        tar = stack.enter_context(tarfile.open(source.path))  # noqa: SIM115 (the stack closes it)
        member = _check_tar_member(tar, source)
        extracted = tar.extractfile(member)
        assert extracted is not None, "a regular member has contents"
        file, size = cast(BinaryIO, stack.enter_context(extracted)), source.path.stat().st_size
        packed = size
    # What the file holds may be compressed itself.
    for _ in range(_MOST_LAYERS):
        buffered = io.BufferedReader(cast(Any, file), _BLOCK_BYTES)
        file = cast(BinaryIO, buffered)
        first = buffered.peek(_FIRST_BYTES)
        kind = _kind(first, _COMPRESSED)
        damaged = source.path.suffix == ".gz" and any(byte < 9 for byte in first[:_FIRST_BYTES])
        if kind is None and source.member is None and damaged and packed is None:
            kind = "gzip"
        if kind is None:
            return file, packed
        file, packed = _unpacked(file, kind, stack), size
    raise UserError("is packed too many times", where=str(source), do="Unpack it yourself.")


def _unpacked(file: BinaryIO, kind: str, stack: ExitStack) -> BinaryIO:
    if kind == "zstd":
        return cast(BinaryIO, stack.enter_context(io.BufferedReader(_ZstdReader(file))))
    if kind == "gzip":
        return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb")))
    return cast(BinaryIO, stack.enter_context(bz2.BZ2File(file) if kind == "bzip2" else lzma.LZMAFile(file)))


class _ZstdReader(io.RawIOBase):
    """Unpacks one or more zstd frames; unlike the library's reader it notices where the last one is cut short."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._unpacked = file, b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            if self._frame.eof:
                packed = self._frame.unused_data or self._file.read(_BLOCK_BYTES)
                if not packed:
                    return 0
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            elif not (packed := self._file.read(_BLOCK_BYTES)):
                raise EOFError
            self._unpacked = self._frame.decompress(packed)
        number = min(len(buffer), len(self._unpacked))
        buffer[:number], self._unpacked = self._unpacked[:number], self._unpacked[number:]
        return number


def _kind(first: bytes, kinds: dict[bytes, str]) -> str | None:
    return next((kind for mark, kind in kinds.items() if first.startswith(mark)), None)


def _is_tar(path: Path) -> bool:
    """Returns whether a file is a tar archive, possibly compressed."""
    with path.open("rb") as file:
        kind = _kind(file.read(8), _COMPRESSED)
        file.seek(0)
        if kind is None:
            return file.read(_FIRST_BYTES)[_TAR_MARK] == b"ustar"
        if kind == "zstd":
            return False
        with ExitStack() as stack:
            try:
                return _unpacked(file, kind, stack).read(_FIRST_BYTES)[_TAR_MARK] == b"ustar"
            except (EOFError, OSError, zlib.error, lzma.LZMAError):
                return False  # reading it says what is wrong


def _is_mark_of_a_mac(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


def _check_zip_member(archive: zipfile.ZipFile, source: Source, limits: SizeLimits) -> zipfile.ZipInfo:
    """Returns the entry of a member, after refusing unsafe ones (links, absolute paths, duplicates)."""
    where = str(source)
    info = _only([info for info in archive.infolist() if info.filename == source.member], where)
    # orig_filename keeps what zipfile normalises away (backslashes and NUL bytes).
    for spelling in (info.filename, info.orig_filename.replace("\\", "/")):
        _check_path(spelling, where)
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise UserError("the member is a link or special file", where=where, do="Do not use this archive.")
    limits.check(info.file_size, info.compress_size, where)
    return info


def _check_tar_member(tar: tarfile.TarFile, source: Source) -> tarfile.TarInfo:
    """The same for a tar archive; its compressed size is that of the whole."""
    where = str(source)
    info = _only([info for info in tar if info.name == source.member], where)
    _check_path(info.name, where)
    if not info.isreg():
        raise UserError("the member is a link or special file", where=where, do="Do not use this archive.")
    return info


Entry = TypeVar("Entry", zipfile.ZipInfo, tarfile.TarInfo)


def _only(entries: list[Entry], where: str) -> Entry:
    if len(entries) != 1:
        problem = "has no such member" if not entries else f"holds this member {len(entries)} times"
        raise UserError(problem, where=where, do="Check that this is the right archive, and data.member.")
    return entries[0]


def _check_path(name: str, where: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise UserError("the member's path leaves the archive", where=where, do="Do not use this archive.")

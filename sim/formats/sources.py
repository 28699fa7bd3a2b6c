"""Source files of data: what names one, which may be read at all, and what is said of those that cannot be."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import zstandard

from harness.errors import UserError

COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zstd")
DAMAGED = "The file is damaged or incomplete: get a fresh copy."
MAX_SHOWN_CHARACTERS = 80


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
    """A data file: a path, and the name of the member if the path is a zip or tar archive."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        """The path (and member) as messages show it."""
        return str(self.path) if self.member is None else f"{self.path} (member {self.member})"

    @property
    def name(self) -> str:
        """The name of the file itself, without folders and without the ending of its compression."""
        name = PurePosixPath(self.member).name if self.member is not None else self.path.name
        ending = next((ending for ending in COMPRESSED_ENDINGS if name.lower().endswith(ending)), "")
        return name[: len(name) - len(ending)]


def describe_sources(sources: Sequence[Source]) -> str:
    """Returns the files as text for messages."""
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    return f"{sources[0]}{more}"


def check_file(path: Path) -> None:
    """Raises UserError unless `path` is an existing, regular, non-empty file."""
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(error, str(path)) from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError("is a directory, not a file", where=str(path), do="Name the file itself.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError("is not a regular file", where=str(path), do="Name a regular file.")
    if status.st_size == 0:
        raise UserError("the file is empty", where=str(path), do=DAMAGED)


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
            raise unreadable(error, str(path)) from None
    return checksum_of([(path.name, digest) for path, digest in zip(paths, digests, strict=True)])


def checksum_of(digests: Sequence[tuple[str, str]]) -> str:
    """Returns the checksum of files, see `checksum`, from their names and SHA-256."""
    if len(digests) == 1:
        return f"sha256:{digests[0][1]}"
    listing = "".join(f"{digest}  {name}\n" for name, digest in digests)
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that orders `part_2` before `part_10`."""
    return tuple((int(digits or 0), text) for digits, text in re.findall(r"([0-9]*)([^0-9]*)", name))


def shorten(text: str | bytes) -> str:
    """Returns the repr of `text`, shortened for a message."""
    cut = text[:MAX_SHOWN_CHARACTERS]
    return repr(cut) + ("..." if len(cut) < len(text) else "")


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns any error of opening, unpacking or reading into a UserError."""
    try:
        yield
    except EOFError:
        raise UserError("the compressed data ends too early", where=where, do=DAMAGED) from None
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):
            raise UserError(f"is not a sound compressed file ({error})", where=where, do=DAMAGED) from None
        do = "Get a fresh copy; or, if you know what it is, unpack the file yourself (gzip -dc) and name the result."
        raise UserError("is damaged, or something else follows its compressed data", where=where, do=do) from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"is not a sound compressed file ({error})", where=where, do=DAMAGED) from None
    except (zstandard.ZstdError, struct.error, ValueError) as error:
        raise UserError(f"is not a sound compressed file ({error})", where=where, do=DAMAGED) from None
    except (NotImplementedError, RuntimeError) as error:
        # zipfile reports encrypted members and unknown compression so. GeneratorExit is no RuntimeError.
        raise UserError(f"cannot be unpacked ({error})", where=where, do="Unpack the archive yourself.") from None
    except OSError as error:
        raise unreadable(error, where) from None


def unreadable(error: OSError, where: str) -> UserError:
    """Returns the UserError for a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return UserError("no such file", where=where, do="Check the path.")
    if isinstance(error, PermissionError):
        return UserError("permission denied", where=where, do="Make the file readable for this user.")
    if isinstance(error, IsADirectoryError):
        return UserError("is a directory, not a file", where=where, do="Name the file itself.")
    if error.errno is None:  # bz2 and gzip say so of damaged data
        return UserError(f"is not a sound compressed file ({error})", where=where, do=DAMAGED)
    return UserError(f"cannot be read ({error.strerror or error})", where=where, do="Check the file and its disk.")

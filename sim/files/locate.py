"""Where the files of a data set are and where parsed tables are cached, for all kinds of data sets.

Files are searched in this order, and the first match is used (`data.root` is the folder; if null, that of the
environment variable TPGR_JAX_DATA; if unset, the user's cache folder):

1. only `data.path`, if it is set: a file, a pattern, or a list of these;
2. each entry of `data.files` in order, as written and with `.gz`; `*` matches any characters and several files;
3. the archive `data.archive` with its member `data.member`;
4. only if `data.root` itself is set: the bare names of `data.files` in the root (the data set's own folder).

Several files are in natural order; a folder stands for its Parquet files.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from harness.errors import UserError
from harness.folders import CACHE_VARIABLE, ROOT_VARIABLE, named_folder
from harness.settings import CountOrZero, Otherwise, Positive
from sim.formats.packing import find_members, is_archive
from sim.formats.parquet import parquet_files
from sim.formats.sources import SizeLimits, Source, natural_order
from sim.formats.text_table import BLANKS, TextFormat

_LONGEST_SEPARATOR = 8
_EXACT = 2.0**53
Paths = Annotated[
    str | list[str] | None, Otherwise("Write a path, a pattern such as data.path=FOLDER/*.csv, or a list of these.")
]

_QUOTE = """Write a list; quotes tell text from null, true and numbers, as in 'data.missing_values=[NA,"null",""]'."""
_NOT_A_NUMBER = ("nan", "NaN", "NAN")


def _as_written(values: Any) -> Any:
    """Returns texts in place of what YAML and Hydra read as numbers: NaN in all its spellings, whole numbers as such.

    Others are refused, such as infinity and 1e20, whose spelling is lost.
    """
    if not isinstance(values, list):
        return values
    texts: list[Any] = []
    for value in values:
        if isinstance(value, float) and value != value:
            texts += _NOT_A_NUMBER
        elif isinstance(value, float) and (not abs(value) < _EXACT or "e" in str(value)):
            raise PydanticCustomError("unquoted", "{advice}", {"advice": _QUOTE})
        else:
            texts.append(f"{value:.0f}" if isinstance(value, float) and value.is_integer() else value)
    return texts


Texts = Annotated[list[str], Otherwise(_QUOTE), BeforeValidator(_as_written)]


@dataclass(frozen=True)
class FilesConfig:
    """The settings that all data sets share; `conf/data/*.yaml` contain and explain the values."""

    name: str
    reader: str
    root: str | None
    cache: str | None
    max_unpacked_gib: Positive
    files: list[str]
    archive: str | None
    member: str | None
    path: Paths
    separator: str | None
    seed: CountOrZero
    column_names: list[str] = field(default_factory=list, kw_only=True)
    encoding: str | None = field(default=None, kw_only=True)
    comment: str | None = field(default=None, kw_only=True)
    nested: str | None = field(default=None, kw_only=True)
    quotes: bool = field(default=True, kw_only=True)
    missing_values: Texts = field(default_factory=list, kw_only=True)
    log_parts: Texts = field(default_factory=list, kw_only=True)

    def check_files(self) -> None:
        """Checks these settings.

        Raises:
            UserError: A value is out of range; the message names its key.
        """
        if not self.name.strip():
            raise bad_setting("name", "is empty", "Name the data set.")
        check_text_format(self.text_format, "data")

    @property
    def text_format(self) -> TextFormat:
        """How the files are written, if they are text."""
        return text_format(self.separator, self.column_names, self.encoding, self.comment, self.nested, self.quotes)

    @property
    def limits(self) -> SizeLimits:
        """The limits on unpacked sizes."""
        return SizeLimits(max_bytes=int(self.max_unpacked_gib * 2**30))

    @property
    def root_folder(self) -> Path:
        """The folder of data sets."""
        return named_folder(self.root, ROOT_VARIABLE, "data", "data.root")

    @property
    def cache_folder(self) -> Path:
        """The folder of parsed tables."""
        return named_folder(self.cache, CACHE_VARIABLE, "tables", "data.cache")

    @property
    def archive_path(self) -> Path | None:
        """The path of the archive."""
        return self.root_folder / self.archive if self.archive else None

    def check_choice(self, key: str, choices: Collection[str]) -> None:
        """Raises UserError unless the setting is one of `choices`."""
        value = getattr(self, key)
        if value not in choices:
            raise bad_setting(key, f"unknown value {value!r}", f"Choose one of: {', '.join(choices)}.")

    def check_named_columns(self, *keys: str) -> None:
        """Raises UserError unless each of these settings names a column."""
        for key in keys:
            if not getattr(self, key):
                raise bad_setting(key, "is not set", "Set it to the column's name.")

    def stored_sources(self) -> list[Source]:
        """Returns the files of the data set in a fixed order; an empty list if there are none.

        Raises:
            UserError: `data.path` does not exist, or an archive is damaged.
        """
        if self.path:
            return named_sources(self.path, self.member)
        root, archive = self.root_folder, self.archive_path
        for entry in self.files:
            if sources := matching_files(root, entry):
                return sources
        if archive is not None and (archive.is_file() or archive.is_dir()):
            return self.members(archive)
        if self.root:
            for entry in self.files:
                if sources := matching_files(root, Path(entry).name):
                    return sources
        return []

    def members(self, archive: Path) -> list[Source]:
        """Returns the members of an archive that belong to the data set."""
        return [Source(archive, member) for member in find_members(archive, self.member or "*")]

    def what_was_missed(self) -> str:
        """Returns a message that names the missing files."""
        searched = [f"{entry}[.gz]" for entry in self.files] + ([self.archive] if self.archive else [])
        return f"no files of this data set under {self.root_folder} (looked for {', '.join(searched)})"


NOT_AUTO = {"auto": "data=auto is only for python -m sim.data, which prints the settings of a file: copy them."}
"""Advice for users who train on a file without having seen how it would be read."""
STORE_THEM = f"Store its files there, or set data.root or {ROOT_VARIABLE} to the folder that holds them."
"""Advice for users whose files are not found."""


def bad_setting(key: str, problem: str, do: str, group: str = "data") -> UserError:
    """Returns the error of an impossible value of `data.KEY` (or of another group's)."""
    return UserError(problem, where=f"{group}.{key}", do=do)


def text_format(
    separator: str | None,
    column_names: list[str],
    encoding: str | None,
    comment: str | None,
    nested: str | None = None,
    quotes: bool = True,
) -> TextFormat:
    """Returns how files are written, from settings."""
    named = "\t" if separator == "tab" else separator or None
    if named and re.fullmatch(r"(\\t|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4})+", named):
        named = named.encode("ascii").decode("unicode_escape")
    return TextFormat(named, column_names, encoding, comment, nested or None, quotes)


def check_text_format(text: TextFormat, group: str) -> None:
    """Checks the settings of a group that say how files are written.

    Raises:
        UserError: A value is out of range; the message names its key.
    """
    separator = text.separator
    if separator is not None and (len(separator) > _LONGEST_SEPARATOR or set(separator) & set('"\n\r\0')):
        do = f"Set a character or a few, 'tab', '{BLANKS}', or null."
        raise bad_setting("separator", f"{separator!r} cannot be used", do, group)
    try:
        "".encode(text.encoding or "utf-8")  # refuses codecs that are no encodings of text, too
    except LookupError:
        do = "Set utf-8, latin-1 or so."
        raise bad_setting("encoding", f"unknown encoding {text.encoding!r}", do, group) from None


def named_sources(path: str | list[str], member: str | None, group: str = "data") -> list[Source]:
    """Returns the files that `data.path` names, of folders their Parquet files, and of archives the members.

    Raises:
        UserError: One does not exist, nothing matches a pattern, or an archive is damaged or holds several files.
    """
    entries = [path] if isinstance(path, str) else path
    places = (place for entry in entries for place in named_paths(entry, group))
    return list(dict.fromkeys(source for place in places for source in _stored_in(place, member, group)))


def _stored_in(path: Path, member: str | None, group: str) -> list[Source]:
    """Returns the files of a folder, the members of an archive, or the file itself."""
    if path.is_dir() or not is_archive(path):
        return _files_at(path)
    members = find_members(path, member or "*")
    if len(members) > 1 and not member:
        do = f"Set {group}.member to the one to read, or to a pattern for several."
        raise UserError(f"holds {len(members)} files: {', '.join(members[:5])}", where=str(path), do=do)
    return [Source(path, name) for name in members]


def fingerprint(source: Source) -> list[Any]:
    """Identifies the version of a file; a missing file is reported when it is read."""
    try:
        status = source.path.stat()
    except OSError:
        return [str(source.path), source.member]
    # The time of change and the inode tell a replacement of the same size whose time was set back.
    changed = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    return [str(source.path.resolve()), source.member, *changed]


def check_count(name: str, source: str, what: str, count: int, expected: int | None) -> None:
    """Checks a count of a table against that of the data set.

    Raises:
        UserError: The count differs from `expected` (None: anything is accepted).
    """
    if expected is not None and count != expected:
        raise UserError(
            f"holds {count:,} {what} where {name} has {expected:,}: another data set, or an incomplete file",
            where=source,
            do=f"Get the right file, or set data.expected_{what}=null (and the other expected_*) to take it.",
        )


def matching_files(root: Path, entry: str) -> list[Source]:
    """Returns the existing files that match an entry of `data.files`."""
    if "*" in entry:
        paths = _without_twins([*root.glob(entry), *root.glob(f"{entry}.gz")])
        return [source for path in paths for source in _files_at(path)]
    for name in (entry, f"{entry}.gz"):
        # A dangling link with this name is reported when it is read, not ignored here.
        if os.path.lexists(root / name):
            return _files_at(root / name)
    return []


def named_paths(entry: str, group: str) -> list[Path]:
    """Returns the paths that an entry of `data.path` names: a path, or a pattern.

    Raises:
        UserError: Nothing matches the pattern.
    """
    path = Path(entry).expanduser()
    if os.path.lexists(path) or not glob.has_magic(entry):
        return [path]
    paths = _without_twins([Path(found) for found in glob.glob(str(path), recursive=True)])
    if not paths:
        raise UserError("no file matches this pattern", where=str(path), do=f"Check {group}.path.")
    return paths


def _files_at(path: Path) -> list[Source]:
    return [Source(file) for file in parquet_files(path)] if path.is_dir() else [Source(path)]


def _without_twins(paths: Collection[Path]) -> list[Path]:
    """Returns paths in natural order; of a file and its gzip, only the file."""
    every = set(paths)
    twins = {path for path in every if path.suffix == ".gz" and path.with_suffix("") in every}
    return sorted(every - twins, key=_reading_order)


def _reading_order(path: Path) -> tuple[tuple[tuple[int, str], ...], Path]:
    return natural_order(str(path).removesuffix(".gz")), path

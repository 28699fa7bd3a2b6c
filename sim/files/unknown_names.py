"""Names of events whose meaning is not known: all of them, how often each occurs, and the known one that is meant."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from harness.commands.nearest import nearest
from harness.errors import UserError
from sim.formats.sources import shorten

if TYPE_CHECKING:
    import polars as pl

    from sim.files.rows import Rows

IGNORE = "ignore"
"""What is said of names whose rows are left out."""
_MOST_NAMES = 12
_MOST_ROWS_COUNTED = 2_000_000
_LONGEST_NAME = 50


class UnknownNameError(UserError):
    """A name whose meaning no setting tells."""


def refuse_unknown(rows: Rows, column: str, texts: pl.Series, known: Collection[str], named: Collection[str]) -> None:
    """Refuses rows with a name that is not known.

    Args:
        rows: The rows.
        column: Of the names.
        texts: What it holds.
        known: All spellings of known names.
        named: The known names, for messages.

    Raises:
        UnknownNameError: There are some; it names the first.
    """
    try:
        rows.refuse(column, ~texts.is_in(list(known)), f"is not one of {', '.join(map(repr, named))}", "")
    except UserError as error:
        raise UnknownNameError(error.what, where=error.where) from None


def with_counts(
    error: UnknownNameError,
    tables: Iterable[pl.Series],
    known: Collection[str],
    named: Sequence[str],
    advice: Callable[[Sequence[str]], str],
) -> UserError:
    """Returns the error with all unknown names, how often each occurs and which known ones are near, and what to set.

    Args:
        error: Of the first unknown name.
        tables: The column of names, from the beginning of the files.
        known: All spellings of known names.
        named: The known names.
        advice: Says what to set, given the unknown names that fit in a setting.
    """
    counts: Counter[str] = Counter()
    looked_at = 0
    try:
        for texts in tables:
            if looked_at > _MOST_ROWS_COUNTED:
                break
            looked_at += len(texts)
            counts.update(dict(texts.filter(~texts.is_in(list(known))).value_counts().iter_rows()))
    except UserError:
        pass  # what is wrong further down is said once the names are known
    often = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_MOST_NAMES]
    more = f" and {len(counts) - len(often):,} more" if len(counts) > len(often) else ""
    where = f" among the first {looked_at:,} rows" if looked_at > _MOST_ROWS_COUNTED else ""
    listed = ", ".join(f"{shorten(name)} ({count:,}{_like(name, named)})" for name, count in often)
    what = f"{error.what}; unknown{where}: {listed}{more}"
    return UserError(what, where=error.where, do=advice([name for name, _ in often if len(name) <= _LONGEST_NAME]))


def _like(name: str, named: Sequence[str]) -> str:
    near = nearest(name, named, most=1)
    return f", like {near[0]!r}" if near else ""


def setting_of_names(key: str, meanings: Sequence[str]) -> str:
    """Returns the words for a shell that set what names mean, from NAME=MEANING, to be edited."""
    from harness.commands.command_words import override_value

    return shlex.quote(f"{key}={override_value(list(meanings))}")

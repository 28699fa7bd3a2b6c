"""Names of columns in tables whose rows hold objects, or lists of objects: JSON, and structures in Parquet files.

A name with dots leads into an object: `user.id`. If a row holds a list of objects, such as the events of a session,
these objects may be the rows; the row's other fields then belong to each of them. `events.item` names a field of the
list's objects, and so does `item` if the row itself has no such field.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import UserError
from sim.formats.sources import shorten

if TYPE_CHECKING:
    import polars as pl

Path = tuple[str, ...]
"""The names that lead from a row, or from an object of its list, to a value."""
_MOST_NAMED = 20
_LIST = "\0list"


@dataclass
class Fields:
    """What an object, or each object of a list, holds; a plain value holds nothing.

    Attributes:
        fields: Name -> what is there.
        is_list: Whether it is a list of objects, whose fields these are.
    """

    fields: dict[str, Fields] = field(default_factory=dict)
    is_list: bool = False

    def find(self, name: str) -> Path | None:
        """Returns the way to a field; of a name with dots, the one with the fewest steps."""
        if name in self.fields:
            return (name,)
        for head in sorted(self.fields, key=len, reverse=True):
            inside = self.fields[head]
            if name.startswith(f"{head}.") and not inside.is_list:
                rest = inside.find(name[len(head) + 1 :])
                if rest is not None:
                    return (head, *rest)
        return None

    def at(self, path: Path) -> Fields:
        """Returns what is at the end of a way."""
        return self.fields[path[0]].at(path[1:]) if path else self

    def lists(self) -> Iterator[Path]:
        """Yields the ways to all lists of objects, except those within such lists."""
        for name, inside in self.fields.items():
            if inside.is_list:
                yield (name,)
            else:
                yield from ((name, *path) for path in inside.lists())

    def names(self) -> Iterator[str]:
        """Yields the names of all values, with dots."""
        for name, inside in self.fields.items():
            if inside.fields:
                yield from (f"{name}.{inner}" for inner in inside.names())
            else:
                yield name


@dataclass(frozen=True)
class Plan:
    """Where each column is.

    Attributes:
        row: Column -> the way from the row.
        entry: Column -> the way from an object of the row's list.
        nested: The way to that list; None: the rows are the rows.
    """

    row: dict[str, Path]
    entry: dict[str, Path]
    nested: Path | None = None

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [*self.row, *self.entry]


def plan_columns(
    fields: Fields, names: Sequence[str], nested: str | None, given: Collection[str], where: str, keys: str
) -> Plan:
    """Finds the columns in the fields of a row.

    Args:
        fields: What the rows hold.
        names: The columns.
        nested: Name of the list of objects that are the rows; None: the only one that holds what the row does not.
        given: Columns that are known otherwise, if the rows do not hold them.
        where: The file, for messages.
        keys: The settings that name the columns, for messages.

    Raises:
        UserError: A column is not there, or several lists may be meant.
    """
    row = {name: path for name in names if (path := fields.find(name)) is not None}
    wanted = [name for name in names if name not in row]
    if nested is not None:
        path = fields.find(nested)
        if path is None or not fields.at(path).is_list:
            lists = ", ".join(map(repr, map(".".join, fields.lists()))) or "none"
            what = f"{nested!r} is no list of objects in the first rows; lists of objects there: {lists}"
            raise UserError(what, where=where, do="Set data.nested to one, or to null.")
        ways = [path]
    else:
        needed = [name for name in wanted if name not in given]
        ways = [path for path in fields.lists() if needed and all(_in_list(fields, path, name) for name in needed)]
    if len(ways) > 1:
        what = f"{' and '.join(repr('.'.join(path)) for path in ways)} both hold {', '.join(map(repr, wanted))}"
        raise UserError(what, where=where, do="Set data.nested to the list whose objects are the rows.")
    entry = {name: way for name in wanted for path in ways if (way := _in_list(fields, path, name)) is not None}
    missing = [name for name in wanted if name not in entry and name not in given]
    if missing:
        shown = [shorten(name) for name in fields.names()]
        more = ", ..." if len(shown) > _MOST_NAMED else ""
        what = f"has no column {missing[0]!r}; its columns are {', '.join(shown[:_MOST_NAMED]) or 'none'}{more}"
        raise UserError(what, where=where, do=f"Set {keys or 'the names of the columns'}.")
    return Plan(row, entry, ways[0] if ways else None)


def _in_list(fields: Fields, path: Path, name: str) -> Path | None:
    inside = fields.at(path)
    prefix = ".".join(path) + "."
    return inside.find(name.removeprefix(prefix)) or inside.find(name)


def pick_columns(frame: pl.DataFrame, plan: Plan) -> tuple[pl.DataFrame, pl.Series | None]:
    """Returns the planned columns of a frame with structures and lists, and the number of rows that each row becomes.

    The numbers are None if the rows stay as they are.
    """
    import polars as pl

    picked = [at(path).alias(name) for name, path in plan.row.items()]
    if plan.nested is None:
        return frame.select(picked), None
    lists = frame.select(at(plan.nested).alias(_LIST))[_LIST]
    counts = lists.list.len().fill_null(0)
    # An empty list would become a row of nulls.
    exploded = frame.select(*picked, lists).filter(counts > 0).explode(_LIST)
    entries = exploded[_LIST].struct.unnest()
    columns = [exploded[name] for name in plan.row]
    columns += [entries.select(at(path).alias(name))[name] for name, path in plan.entry.items()]
    return pl.DataFrame(columns), counts


def at(path: Path) -> pl.Expr:
    """Returns the expression of a column of a frame with structures."""
    import polars as pl

    expression = pl.col(path[0])
    for name in path[1:]:
        expression = expression.struct.field(name)
    return expression

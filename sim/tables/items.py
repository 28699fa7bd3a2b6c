"""What is known of items besides how they are answered: titles, categories, and when they can be recommended."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from harness.errors import UserError

ITEMS_FILE = "items.npz"
"""The item table in a run folder."""
ALWAYS = np.iinfo(np.int64).max
"""End of an item that stays available; its negative is the beginning of one that always was."""


@dataclass(frozen=True)
class ItemTable:
    """What a table of items says about the I items of a data set, in the data set's order.

    Attributes:
        item_ids: [I] original ids, as in the data set.
        titles: [I] titles; empty where none is known.
        category_names: [C] names of the categories, ascending.
        category_starts: [I + 1] int64; the categories of item i are entries starts[i] to starts[i + 1].
        categories: [K] int32 index into `category_names`.
        available_from: [I] int64 seconds since 1970 of the first moment at which an item can be recommended; -ALWAYS
            where none is known.
        available_until: [I] int64 the first moment at which it no longer can; ALWAYS where none is known.
        has_row: [I] bool, which items the table has a row of.
        source: The file.
        rows: Rows of the file.
        other_rows: Rows of items that are not in the data set.
        repeated_rows: Rows of items that had one before, which do not count.
    """

    item_ids: np.ndarray
    titles: Sequence[str]
    category_names: Sequence[str]
    category_starts: np.ndarray
    categories: np.ndarray
    available_from: np.ndarray
    available_until: np.ndarray
    has_row: np.ndarray
    source: str
    rows: int
    other_rows: int
    repeated_rows: int

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    @property
    def has_dates(self) -> bool:
        """Whether the table says of any item when it can be recommended."""
        return bool((self.available_from > -ALWAYS).any() or (self.available_until < ALWAYS).any())

    def label(self, item: int) -> str:
        """Returns an item for people: its title on one line, or its id where no title is known."""
        return " ".join(self.titles[item].split()) or str(self.item_ids[item])

    def categories_of(self, item: int) -> list[str]:
        """Returns the names of an item's categories."""
        first, last = self.category_starts[item : item + 2]
        return [self.category_names[index] for index in self.categories[first:last]]

    def available_at(self, time: int) -> np.ndarray:
        """Returns [I] bool, which items can be recommended at a time (seconds since 1970)."""
        return (self.available_from <= time) & (time < self.available_until)

    def category_matrix(self) -> scipy.sparse.csr_array:
        """Returns [I, C] float32, 1 where an item is in a category."""
        ones = np.ones(len(self.categories), np.float32)
        shape = (self.num_items, len(self.category_names))
        return scipy.sparse.csr_array((ones, self.categories, self.category_starts), shape)

    def counts(self) -> dict[str, int]:
        """Returns what of the file was used, as JSON values."""
        return {
            "rows": self.rows,
            "items_with_row": int(self.has_row.sum()),
            "items_without_row": int((~self.has_row).sum()),
            "rows_of_other_items": self.other_rows,
            "repeated_rows": self.repeated_rows,
        }

    def describe(self) -> str:
        """Returns these counts for people."""
        repeated = f"; {self.repeated_rows:,} repeat an item, whose first row counts" if self.repeated_rows else ""
        return (
            f"{self.source}: {int(self.has_row.sum()):,} of {self.num_items:,} items have a row; {self.other_rows:,} "
            f"of {self.rows:,} rows are of other items{repeated}"
        )

    def write(self, folder: Path) -> None:
        """Writes `items.npz` into a run folder.

        Raises:
            UserError: The folder cannot be written.
        """
        from harness.runs.run_folder import write_arrays

        arrays = {name: np.asarray(getattr(self, name)) for name in (*_ARRAYS, *_SCALARS)}
        for name in _TEXTS:
            encoded = [text.encode() for text in getattr(self, name)]
            arrays[f"{name}_utf8"] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"{name}_starts"] = np.append(0, np.cumsum([len(text) for text in encoded])).astype(np.int64)
        write_arrays(folder / ITEMS_FILE, arrays)


_ARRAYS = ("item_ids", "category_starts", "categories", "available_from", "available_until", "has_row")
_TEXTS = ("titles", "category_names")
_SCALARS = ("source", "rows", "other_rows", "repeated_rows")


def read_item_table(folder: Path) -> ItemTable | None:
    """Returns the item table of a run folder; None if the run has none.

    Raises:
        UserError: It is damaged.
    """
    from harness.runs.run_folder import read_arrays

    path = folder / ITEMS_FILE
    if not path.exists():
        return None
    stored = read_arrays(path, (*_ARRAYS, *_SCALARS, *(f"{name}_{part}" for name in _TEXTS for part in _PARTS)))
    values: dict[str, Any] = {name: stored[name] for name in _ARRAYS} | {name: stored[name].item() for name in _SCALARS}
    try:
        for name in _TEXTS:
            utf8, starts = stored[f"{name}_utf8"].tobytes(), stored[f"{name}_starts"].tolist()
            values[name] = tuple(utf8[a:b].decode() for a, b in itertools.pairwise(starts))
    except UnicodeDecodeError as error:
        raise UserError(f"is damaged ({error})", where=str(path), do="Restore the file.") from None
    table = ItemTable(**values)
    lengths = {len(table.titles), *(len(getattr(table, name)) for name in ("available_from", "available_until"))}
    if lengths != {table.num_items} or len(table.category_starts) != table.num_items + 1:
        raise UserError("is damaged (its arrays differ in length)", where=str(path), do="Restore the file.")
    return table


_PARTS = ("utf8", "starts")

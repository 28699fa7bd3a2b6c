"""Reads a table of items, any text table or Parquet file, for the items of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import UserError
from sim.files.rows import Rows, TimeFormat
from sim.files.tables import read_tables
from sim.formats.sources import SizeLimits, Source, describe_sources, shorten
from sim.formats.text_table import TextFormat
from sim.tables.items import ALWAYS, ItemTable

if TYPE_CHECKING:
    import polars as pl

_COLUMN_KEYS = "data.id_column, data.title_column, data.categories_column and data.available_*_column"


@dataclass(frozen=True)
class ItemLayout:
    """The layout of a table of items.

    Attributes:
        id_column: Name of the column of item ids.
        title_column: Name of the column of titles, or None.
        categories_column: Name of the column of categories, or None.
        category_separator: What separates an item's categories; None: it has one.
        category_flags: Names of columns of 0 and 1, each of which is a category, in place of `categories_column`.
        available_from_column: Name of the column of the times from which items are available, or None.
        available_until_column: The same for the times at which they no longer are.
        time_format: Unused where a Parquet column holds dates or datetimes.
        text: How the file is written, if it is text.
        missing_values: Texts that mean that a title, category or time is not known, as an empty one does.
    """

    id_column: str
    title_column: str | None = None
    categories_column: str | None = None
    category_separator: str | None = "|"
    category_flags: Sequence[str] = ()
    available_from_column: str | None = None
    available_until_column: str | None = None
    time_format: TimeFormat = "auto"
    text: TextFormat = field(default_factory=TextFormat)
    missing_values: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The columns to read, each once."""
        named = (self.id_column, self.title_column, self.categories_column, *self.category_flags)
        return list(dict.fromkeys(filter(None, (*named, self.available_from_column, self.available_until_column))))


def read_items(sources: Sequence[Source], layout: ItemLayout, item_ids: np.ndarray, limits: SizeLimits) -> ItemTable:
    """Reads what a table says about some items.

    Args:
        sources: The files, one table.
        layout: Its columns.
        item_ids: [I] ids of the data set, integers or strings.
        limits: Limits on the size of unpacked files.

    Raises:
        UserError: The file is missing, empty, damaged, lacks a column, has a malformed line or value, or a row of none
            of the items.
    """
    import polars as pl

    wanted = pl.DataFrame({"id": item_ids.astype(str), "item": np.arange(len(item_ids), dtype=np.int64)})
    parts, example, num_rows = [], "", 0
    for rows in read_tables(sources, layout.names, limits, layout.text, _COLUMN_KEYS):
        ids = rows.ids(layout.id_column)
        example, num_rows = example or ids[0], num_rows + len(ids)
        if item_ids.dtype.kind in "iu":  # such an id may be written as a float, as it may be in the data themselves
            ids = ids.str.replace(r"\.0+$", "")
        item = ids.to_frame("id").join(wanted, on="id", how="left", maintain_order="left")["item"]
        parts.append(_described(rows.kept(item.is_not_null()), layout).with_columns(item=item.drop_nulls()))
    found = pl.concat(parts)
    if found.is_empty():
        raise UserError(
            f"none of its {num_rows:,} ids, such as {shorten(example)}, is one of the {len(item_ids):,} items of the "
            f"data, such as {shorten(str(item_ids[0]))}",
            where=describe_sources(list(sources)),
            do="Set items.id_column to the column with the same ids as the data, or name another file.",
        )
    first = found.unique("item", keep="first", maintain_order=True)
    counts = {"rows": num_rows, "other_rows": num_rows - found.height, "repeated_rows": found.height - first.height}
    return _table(first, item_ids, describe_sources(list(sources)), counts)


def _described(rows: Rows, layout: ItemLayout) -> pl.DataFrame:
    """Returns title, categories (lists of texts), available_from and available_until of some rows."""
    import polars as pl

    missing = ["", *layout.missing_values]
    title = rows.texts(layout.title_column) if layout.title_column else _repeated("", rows)
    begin = _moments(rows, layout.available_from_column, layout.time_format, missing, -ALWAYS)
    end = _moments(rows, layout.available_until_column, layout.time_format, missing, ALWAYS)
    if layout.available_until_column:
        rows.refuse(layout.available_until_column, end < begin, "is before the item is available", "Correct the row.")
    columns = {"title": title.replace(missing, ""), "available_from": begin, "available_until": end}
    return pl.DataFrame(columns).with_columns(categories=_categories(rows, layout, missing))


def _categories(rows: Rows, layout: ItemLayout, missing: Sequence[str]) -> pl.Series:
    """Returns the list of categories of each row."""
    import polars as pl

    if layout.category_flags:
        do = "Expected 0 or 1: remove the column from items.category_flags."
        named = [
            rows.codes(name, {"0": 0, "1": 1}, do).replace_strict({1: name}, default="", return_dtype=pl.String)
            for name in layout.category_flags
        ]
        lists = pl.select(pl.concat_list(named)).to_series()
    elif layout.categories_column is None:
        lists = _repeated("", rows).reshape((-1, 1)).arr.to_list()
    elif layout.category_separator:
        lists = rows.texts(layout.categories_column).str.split(layout.category_separator)
    else:
        lists = rows.texts(layout.categories_column).reshape((-1, 1)).arr.to_list()
    named_only = pl.element().str.strip_chars()
    return lists.list.eval(named_only.filter(~named_only.is_in(list(missing))))


def _moments(
    rows: Rows, column: str | None, time_format: TimeFormat, missing: Sequence[str], otherwise: int
) -> pl.Series:
    """Returns a column of times as seconds since 1970, and something else where none is written."""
    import polars as pl

    moments = np.full(rows.frame.height, otherwise, np.int64)
    if column is not None:
        known = ~rows.texts(column).is_in(list(missing))
        if known.any():
            moments[known.to_numpy()] = rows.kept(known).times(column, time_format).to_numpy()
    return pl.Series(moments)


def _repeated(text: str, rows: Rows) -> pl.Series:
    import polars as pl

    return pl.repeat(text, rows.frame.height, dtype=pl.String, eager=True)


def _table(described: pl.DataFrame, item_ids: np.ndarray, source: str, counts: dict[str, int]) -> ItemTable:
    """Returns the table of all items from what is known of some (`item`: their index)."""
    import polars as pl

    every = pl.DataFrame({"item": np.arange(len(item_ids), dtype=np.int64)})
    every = every.join(described, on="item", how="left", maintain_order="left")
    # Categories as numbers.
    pairs = every.select("item", "categories").explode("categories").drop_nulls().unique(maintain_order=True)
    names = pairs["categories"].unique().sort()
    numbered = pl.DataFrame({"categories": names, "number": np.arange(len(names), dtype=np.int32)})
    number = pairs.join(numbered, on="categories", how="left", maintain_order="left")["number"]
    lengths = np.bincount(pairs["item"].to_numpy(), minlength=len(item_ids))
    return ItemTable(
        item_ids=item_ids,
        titles=tuple(every["title"].fill_null("").to_list()),
        category_names=tuple(names.to_list()),
        category_starts=np.append(0, np.cumsum(lengths)),
        categories=number.to_numpy(),
        available_from=every["available_from"].fill_null(-ALWAYS).to_numpy(),
        available_until=every["available_until"].fill_null(ALWAYS).to_numpy(),
        has_row=every["title"].is_not_null().to_numpy(),
        source=source,
        **counts,
    )

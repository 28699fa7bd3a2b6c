"""The table of items by configuration: titles, categories and dates of the items of a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from harness.errors import UserError
from sim.files.cache import notice
from sim.files.item_reader import ItemLayout, read_items
from sim.files.locate import FilesConfig, bad_setting, check_text_format, matching_files, named_sources, text_format
from sim.files.rows import TimeFormat
from sim.formats.packing import find_members
from sim.formats.sources import Source
from sim.formats.text_table import TextFormat
from sim.tables.items import ITEMS_FILE, ItemTable, read_item_table

_KEYS_OF_READERS = re.compile(
    r"\bdata\.(?=id_|title_|categor|available_|separator|encoding|member|time_format|column_)"
)


@dataclass(frozen=True)
class ItemsConfig:
    """Where the table of items is and how it is written; `conf/items/*.yaml` contain and explain the values.

    Raises:
        UserError: A value is out of range; the message names its key.
    """

    path: str | list[str] | None = None
    beside: str | None = None
    member: str | None = None
    id_column: str | None = None
    title_column: str | None = "title"
    categories_column: str | None = None
    category_separator: str | None = "|"
    category_flags: list[str] = field(default_factory=list)
    available_from_column: str | None = None
    available_until_column: str | None = None
    time_format: TimeFormat = "auto"
    missing_values: list[str] = field(default_factory=list)
    separator: str | None = None
    column_names: list[str] = field(default_factory=list)
    encoding: str | None = None
    comment: str | None = None
    quotes: bool = True

    def __post_init__(self) -> None:
        """Checks settings against each other."""
        check_text_format(self._text_format, "items")
        if self.category_flags and self.categories_column:
            raise bad_setting("category_flags", "and items.categories_column exclude each other", "Set one.", "items")

    @property
    def _text_format(self) -> TextFormat:
        return text_format(self.separator, self.column_names, self.encoding, self.comment, quotes=self.quotes)

    def layout(self, id_column: str) -> ItemLayout:
        """Returns the columns; `id_column` is used unless one is set."""
        return ItemLayout(
            id_column=self.id_column or id_column,
            title_column=self.title_column or None,
            categories_column=self.categories_column or None,
            category_separator=self.category_separator or None,
            category_flags=self.category_flags,
            available_from_column=self.available_from_column or None,
            available_until_column=self.available_until_column or None,
            time_format=self.time_format,
            text=self._text_format,
            missing_values=self.missing_values,
        )


NO_ITEMS = ItemsConfig()
"""No table, as in runs of earlier versions."""


def load_items(config: ItemsConfig, data: FilesConfig, item_ids: np.ndarray, synthetic: bool) -> ItemTable | None:
    """Returns the table of a data set's items; None if none is configured, or a preset's is not beside the data.

    Args:
        config: The settings.
        data: Those of the data set.
        item_ids: [I] its items.
        synthetic: Whether it is generated; then no file is beside it.

    Raises:
        UserError: The file that `items.path` names is missing, or the table is damaged or about none of the items.
    """
    if config.path:
        sources = named_sources(config.path, config.member, "items")
    else:
        sources = [] if synthetic or not config.beside else _beside(config.beside, data.stored_sources())
    if not sources:
        return None
    column: Any = getattr(data, "item_column", None)
    try:
        return read_items(sources, config.layout(column or "item"), item_ids, data.limits)
    except UserError as error:
        what, do = (_KEYS_OF_READERS.sub("items.", text) for text in (error.what, error.do))
        raise UserError(what, where=error.where, do=do) from None


def items_of_run(
    config: ItemsConfig, data: FilesConfig, item_ids: np.ndarray, synthetic: bool, folders: Sequence[Path]
) -> ItemTable | None:
    """Returns the table that the run folders already hold, else as `load_items` does.

    Raises:
        UserError: See `load_items`; or the table of a run folder is damaged or about other items.
    """
    table = read_item_table(folders[0])
    if table is None:
        return load_items(config, data, item_ids, synthetic)
    if not np.array_equal(table.item_ids, item_ids):
        raise UserError("its item table is about other items", where=str(folders[0]), do="Restore items.npz.")
    return table


def write_items(table: ItemTable | None, folders: Sequence[Path]) -> None:
    """Writes the table, if there is one, into run folders that lack it, and says what of the file was used.

    Raises:
        UserError: A folder cannot be written.
    """
    missing = [folder for folder in folders if table is not None and not (folder / ITEMS_FILE).exists()]
    for folder in missing:
        assert table is not None
        table.write(folder)
    if table is not None and missing:
        notice(f"items: {table.describe()}")


def _beside(name: str, sources: Sequence[Source]) -> list[Source]:
    """Returns the files of that name in the folders (or archive folders) of a data set's files."""
    found: list[Source] = []
    for source in sources:
        if source.member is None:
            found += matching_files(source.path.parent, name)
        elif (wanted := str(PurePosixPath(source.member).parent / name)) in find_members(source.path, "*"):
            found.append(Source(source.path, wanted))
    return list(dict.fromkeys(found))

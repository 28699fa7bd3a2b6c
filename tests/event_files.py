"""What tests of logs share: files of events, and reading them."""

import gzip
import zipfile
from pathlib import Path

import pytest

from harness.errors import UserError
from sim.files.event_layout import EventLayout
from sim.files.event_readers import EventColumns, read_events
from sim.formats.sources import SizeLimits, Source

LAYOUT = EventLayout(
    "user", "item", "time", "event", feedback_of_event={"view": "click", "buy": "order", "x": "ignore"}
)


def store(folder: Path, text: str, name: str = "log.csv") -> Source:
    """Writes a file, gzipped or zipped as its name says."""
    path = folder / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("set/log.csv", text)
        return Source(path, "set/log.csv")
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return Source(path)


def read(*sources: Source, reader: str = "events_table", order_proxy=(), **changes) -> EventColumns:
    layout = EventLayout(**{**LAYOUT.__dict__, **changes})
    return read_events(reader, sources, layout, SizeLimits(), order_proxy)


def as_rows(columns: EventColumns) -> list[tuple]:
    users, items = columns.user_ids[columns.users].tolist(), columns.item_ids[columns.items].tolist()
    rows = [users, items, columns.times.tolist(), columns.feedback.tolist()]
    return list(zip(*rows, *([] if columns.sessions is None else [columns.sessions.tolist()]), strict=True))


def message(*sources: Source, **changes) -> str:
    """Returns the message of the UserError that reading must raise, checked to name a file or its folder."""
    with pytest.raises(UserError) as caught:
        read(*sources, **changes)
    assert any(str(source.path.parent) in str(caught.value) for source in sources)
    assert caught.value.do
    return str(caught.value)

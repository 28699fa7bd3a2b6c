"""Parsers of logs of recommendations: any CSV, TSV or Parquet table of events, the files of Diginetica and KuaiRand.

`sim.files.text_table` provides the text as strings with line numbers, chunk by chunk; here whole columns are converted
to times, feedback and ids, and the first invalid value is reported with its line.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.errors import UserError
from sim.files.parquet import is_parquet, read_parquet_columns
from sim.files.sources import SizeLimits, Source, shorten
from sim.files.text_table import MAX_ID_CHARACTERS, TextTable, identifiers, parse_file
from sim.tables.events import CLICK, FEEDBACK_NAMES, ORDER, SKIP

if TYPE_CHECKING:
    import polars as pl

EVENT_PARSER_VERSION = 1
"""Increment when the same files would be parsed differently; cached logs then expire."""

EVENT_READERS = ("events_table", "diginetica", "kuairand")
IGNORE = "ignore"
FeedbackChoice = Literal["skip", "click", "order", "ignore"]
FEEDBACK_CHOICES = (*FEEDBACK_NAMES, IGNORE)
TimeFormat = Literal["seconds", "milliseconds", "text"]
OrderProxy = Literal["is_like", "is_follow", "is_comment", "is_forward", "long_view", "is_profile_enter"]
"""Columns of KuaiRand that may count as orders: 0 or 1, and stronger than a click (dislikes are excluded)."""
_END_OF_TIME = 253_402_300_800  # the year 10,000
_TEXT_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}:\d{2}(\.\d+)?( ?UTC|Z)?)?$"
_COLUMN_KEYS = "data.user_column, data.item_column, data.time_column, data.feedback_column and data.session_column"


@dataclass(frozen=True)
class EventColumns:
    """A log as columns; what `sim.tables.events.build_event_log` takes, with ids as indices.

    The rows are in the order of the files (of KuaiRand, in order of time).

    Attributes:
        users: [R] int32 index into `user_ids`.
        items: [R] int32 index into `item_ids`.
        times: [R] int64 seconds since 1970.
        feedback: [R] int8, 0 skip, 1 click, 2 order.
        sessions: [R] int32 session numbers, or None where the log has none.
        user_ids: Original ids, ascending; integers where all are plain integers (or all end in ".0"), else strings.
        item_ids: The same for items.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    feedback: np.ndarray
    sessions: np.ndarray | None
    user_ids: np.ndarray
    item_ids: np.ndarray


@dataclass(frozen=True)
class EventLayout:
    """The layout of a table of events.

    Attributes:
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids.
        time_column: Name of the column of times.
        feedback_column: Name of the column of event names; None if the file determines the feedback, or all are clicks.
        session_column: Name of the column of sessions, or None.
        separator: One character; None goes by the file's ending.
        header: Names of the first columns where files have no header; empty where they have one.
        time_format: Unused where a Parquet column holds dates or datetimes.
        feedback_of_event: Event name -> one of `FEEDBACK_CHOICES`.
        ignore_unknown: Whether events with other names are ignored; otherwise they are an error.
        feedback_of_file: File name pattern -> feedback of all rows; files that match none are ignored. Empty: all
            files are read, and without a feedback column all rows are clicks.
    """

    user_column: str
    item_column: str
    time_column: str
    feedback_column: str | None = None
    session_column: str | None = None
    separator: str | None = None
    header: Sequence[str] = ()
    time_format: str = "seconds"
    feedback_of_event: Mapping[str, str] = field(default_factory=dict)
    ignore_unknown: bool = False
    feedback_of_file: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The columns to read; one with two roles is listed once."""
        named = (self.user_column, self.item_column, self.time_column, self.feedback_column, self.session_column)
        return list(dict.fromkeys(name for name in named if name is not None))


def read_events(
    reader: str, sources: Sequence[Source], layout: EventLayout, limits: SizeLimits, order_proxy: Sequence[str] = ()
) -> EventColumns:
    """Parses one log.

    Args:
        reader: One of `EVENT_READERS`.
        sources: The files of the log in a fixed order.
        layout: The layout of a generic table; only used by the reader "events_table".
        limits: Limits on the size of unpacked files.
        order_proxy: Columns that count as orders; only used by the reader "kuairand".

    Raises:
        UserError: A file is missing, empty, damaged, of another layout, or has a malformed line or value.
    """
    if reader == "diginetica":
        frames = _read_diginetica(sources, limits)
    elif reader == "kuairand":
        frames = _read_kuairand(sources, order_proxy, limits)
    else:
        frames = _read_tables(sources, layout, limits)
    return _as_columns(frames, ", ".join(map(str, sources[:3])))


def _as_columns(frames: list[pl.DataFrame], where: str) -> EventColumns:
    """Concatenates frames with the columns user, item, time, feedback and possibly session."""
    import polars as pl

    table = pl.concat(frames)
    frames.clear()
    if table.is_empty():
        raise UserError("holds no events", where=where, do="Check that these are the right files and event names.")
    times, feedback = table["time"].to_numpy(), table["feedback"].to_numpy()
    users, user_ids = _index(table["user"])
    items, item_ids = _index(table["item"])
    sessions = _index(table["session"])[0] if "session" in table.columns else None
    return EventColumns(users, items, times, feedback, sessions, user_ids, item_ids)


def _index(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Returns the index of every text's id in the distinct ids, and these ids, ascending."""
    import polars as pl

    distinct = column.unique(maintain_order=True)
    texts = distinct
    if texts.str.ends_with(".0").all():
        # Integers that were written as floats ("7.0"), as in JData; other texts are unchanged.
        shortened = texts.str.strip_suffix(".0")
        texts = shortened if identifiers(shortened).dtype.kind == "i" else texts
    ids = identifiers(texts)
    order = np.argsort(ids, kind="stable")
    ranks = np.empty(len(ids), np.int32)
    ranks[order] = np.arange(len(ids), dtype=np.int32)
    return column.replace_strict(distinct, pl.Series(ranks)).to_numpy(), ids[order]


@dataclass(frozen=True)
class _Rows:
    """Rows of a file as strings (from a Parquet file, also dates and datetimes).

    Attributes:
        frame: The rows.
        source: The file.
        first: Number of the first row in the file.
        unit: "line" or "row", for messages.
    """

    frame: pl.DataFrame
    source: Source
    first: int
    unit: str = "line"

    def refuse(self, column: str, bad: pl.Series, problem: str, do: str) -> None:
        """Raises a UserError that names the first invalid row, if any.

        Args:
            column: The column with the invalid value.
            bad: Bool, the invalid rows.
            problem: What is wrong with the value; it follows the value in the message.
            do: What to do about it.
        """
        if bad.any():
            row = int(bad.arg_max() or 0)
            value = "" if self.frame[column][row] is None else str(self.frame[column][row])
            what = f"{self.unit} {self.first + row:,}: {column} {shorten(value)} {problem}"
            raise UserError(what, where=str(self.source), do=do)

    def ids(self, column: str) -> pl.Series:
        """Returns a column of ids, after checking them."""
        texts = self.frame[column]
        do = f"Expected ids of 1 to {MAX_ID_CHARACTERS} characters. Correct or remove the {self.unit}."
        self.refuse(column, texts == "", "is empty", do)
        self.refuse(column, texts.str.len_bytes() > MAX_ID_CHARACTERS, "is too long", do)
        return texts

    def times(self, column: str, time_format: str) -> pl.Series:
        """Returns a column of times as seconds since 1970."""
        import polars as pl

        texts = self.frame[column]
        if texts.dtype != pl.String:
            self.refuse(column, texts.is_null(), "is empty", f"Correct or remove the {self.unit}.")
            return texts.cast(pl.Datetime("us")).dt.epoch("s")
        if time_format == "text":
            do = "Expected YYYY-MM-DD HH:MM:SS (UTC), or set data.time_format=seconds or milliseconds."
            self.refuse(column, ~texts.str.contains(_TEXT_TIME), "is no time", do)
            whole = texts.str.slice(0, 19).str.replace("T", " ", literal=True)
            whole = whole.zip_with(whole.str.len_bytes() == 19, texts + " 00:00:00")
            moments = whole.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="ms")
            self.refuse(column, moments.is_null(), "is no time", do)
            return moments.dt.epoch("s")
        other = "Set data.time_format=milliseconds, seconds or text (as in 2016-01-31 23:59:02) if it is written so."
        numbers = self.numeric_times(column, time_format, other)
        return numbers // 1000 if time_format == "milliseconds" else numbers

    def numeric_times(self, column: str, unit: str, otherwise: str = "") -> pl.Series:
        """Returns a column of times in "seconds" or "milliseconds" since 1970 as integers of that unit.

        Args:
            unit: The unit of its numbers.
            otherwise: Advice if the column contains something else; empty: to correct the file.
        """
        import polars as pl

        texts = self.frame[column]
        numbers = texts.cast(pl.Int64, strict=False)
        if numbers.null_count():
            numbers = numbers.fill_null(texts.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False))
        do = f"Expected {unit} since 1970. {otherwise or f'Correct or remove the {self.unit}.'}"
        self.refuse(column, numbers.is_null(), f"is no time in {unit}", do)
        end = _END_OF_TIME * (1000 if unit == "milliseconds" else 1)
        self.refuse(column, ~numbers.is_between(0, end - 1), "is no time from 1970 to 9999", do)
        return numbers

    def codes(
        self, column: str, code_of_text: Mapping[str, int], do: str, *, ignore_unknown: bool = False
    ) -> pl.Series:
        """Returns the code of every value; null for unknown ones if these are ignored."""
        import polars as pl

        texts = self.frame[column]
        if not ignore_unknown:
            known = f"is not one of {', '.join(map(repr, code_of_text))}"
            self.refuse(column, ~texts.is_in(list(code_of_text)), known, do)
        texts_known, codes = list(code_of_text), list(code_of_text.values())
        return texts.replace_strict(texts_known, codes, default=None, return_dtype=pl.Int8)


def _read_rows(
    source: Source, names: Sequence[str], limits: SizeLimits, *, separator: str | None, header: Sequence[str] = ()
) -> Iterator[_Rows]:
    """Yields columns of a CSV or TSV file as strings, exactly as written, chunk by chunk.

    Args:
        names: Names of the columns to read, without repetitions.
        limits: Limits on the size of unpacked files.
        separator: One character; None: by the file's extension.
        header: Names of the first columns of a file without a header; empty if it has one.

    Raises:
        UserError: The file is missing, empty, damaged, lacks a column, or has a malformed line.
    """
    for chunk, frame in parse_file(source, TextTable(source, names, separator, header), limits):
        yield _Rows(frame, source, chunk.first_line)


# Generic tables


def _read_tables(sources: Sequence[Source], layout: EventLayout, limits: SizeLimits) -> list[pl.DataFrame]:
    """Returns the events of all files, one frame per chunk."""
    frames = []
    for source, feedback in _feedback_of_sources(sources, layout.feedback_of_file):
        for rows in _rows_of_table(source, layout, limits):
            frames.append(_events_of_rows(rows, layout, feedback))
    return frames


def _feedback_of_sources(
    sources: Sequence[Source], feedback_of_file: Mapping[str, str]
) -> list[tuple[Source, str | None]]:
    """Returns the files to read, each with the feedback that its name determines (None if it does not)."""
    if not feedback_of_file:
        return [(source, None) for source in sources]
    names = [_file_name(source) for source in sources]
    for pattern in feedback_of_file:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no file matches {pattern!r} of data.feedback_of_file; found {', '.join(names[:5])}",
                where=str(sources[0].path.parent),
                do="Store that file too, or remove the pattern.",
            )
    chosen: list[tuple[Source, str | None]] = []
    for source, name in zip(sources, names, strict=True):
        patterns = [pattern for pattern in feedback_of_file if fnmatch.fnmatchcase(name, pattern)]
        if len(patterns) > 1:
            what = f"two patterns of data.feedback_of_file match it: {', '.join(map(repr, patterns))}"
            raise UserError(what, where=str(source), do="Make them exclude each other.")
        if patterns:
            chosen.append((source, feedback_of_file[patterns[0]]))
    return chosen


def _file_name(source: Source) -> str:
    name = PurePosixPath(source.member).name if source.member is not None else Path(source.path).name
    return name.removesuffix(".gz")


def _rows_of_table(source: Source, layout: EventLayout, limits: SizeLimits) -> Iterator[_Rows]:
    """Yields the rows of a file as strings, chunk by chunk."""
    if not is_parquet(source):
        yield from _read_rows(source, layout.names, limits, separator=layout.separator, header=layout.header)
        return
    import polars as pl

    table = read_parquet_columns(source.path, layout.names, _COLUMN_KEYS)
    columns = []
    for column in table:
        if column.dtype.is_nested():
            problem = f"column {column.name!r} has type {column.dtype}"
            raise UserError(problem, where=str(source), do="Expected numbers, strings or times.")
        is_moment = column.name == layout.time_column and column.dtype in (pl.Datetime, pl.Date)
        columns.append(column if is_moment else column.cast(pl.String).fill_null(""))
    yield _Rows(pl.DataFrame(columns), source, 1, "row")


def _events_of_rows(rows: _Rows, layout: EventLayout, feedback_of_file: str | None) -> pl.DataFrame:
    """Returns the events of some rows, without ignored ones."""
    import polars as pl

    if layout.feedback_column is not None:
        do = "Set its feedback, as in +data.feedback_of_event.NAME=click, or data.unknown_events=ignore."
        code_of_event = {name: FEEDBACK_CHOICES.index(kind) for name, kind in layout.feedback_of_event.items()}
        codes = rows.codes(layout.feedback_column, code_of_event, do, ignore_unknown=layout.ignore_unknown)
    else:
        code = FEEDBACK_NAMES.index(feedback_of_file or FEEDBACK_NAMES[CLICK])
        codes = pl.repeat(code, rows.frame.height, dtype=pl.Int8, eager=True)
    columns = {
        "user": rows.ids(layout.user_column),
        "item": rows.ids(layout.item_column),
        "time": rows.times(layout.time_column, layout.time_format),
        "feedback": codes,
    }
    if layout.session_column is not None:
        columns["session"] = rows.frame[layout.session_column]
    return pl.DataFrame(columns).filter(pl.col("feedback") < FEEDBACK_CHOICES.index(IGNORE))


# Diginetica (CIKM Cup 2016, track 2): queries with the items shown, clicks on them, and purchases by session

_DIGINETICA_FILES = {
    "train-queries.csv": ["queryId", "sessionId", "userId", "timeframe", "eventdate", "items", "is.test"],
    "train-clicks.csv": ["queryId", "itemId"],
    "train-purchases.csv": ["sessionId", "itemId"],
}
_UNKNOWN_USER = "NA"


def _read_diginetica(sources: Sequence[Source], limits: SizeLimits) -> list[pl.DataFrame]:
    """Returns the shown items as events, one frame per chunk of queries.

    Ignored are queries of the contest's test set, whose answers were withheld, and clicks and purchases of items that
    were not shown. A session without a known user counts as a separate user.
    """
    import polars as pl

    # All files must be present.
    of_name = {_file_name(source): source for source in sources}
    for name in _DIGINETICA_FILES:
        if name not in of_name:
            problem = f"there is no {name} among {', '.join(list(of_name)[:5])}"
            raise UserError(
                problem, where=str(sources[0].path.parent), do="Store all files of the contest's training set."
            )

    def rows_of(name: str) -> Iterator[_Rows]:
        return _read_rows(of_name[name], _DIGINETICA_FILES[name], limits, separator=";")

    # What was clicked in a query, or bought in a session.
    clicked, bought = (
        pl.concat([rows.frame.select(map(rows.ids, _DIGINETICA_FILES[name])) for rows in rows_of(name)]).unique()
        for name in ("train-clicks.csv", "train-purchases.csv")
    )
    clicked = clicked.with_columns(clicked=pl.lit(True))
    bought = bought.with_columns(bought=pl.lit(True))
    # The feedback on every shown item.
    frames = []
    for rows in rows_of("train-queries.csv"):
        shown = _shown_items(rows)
        shown = shown.join(clicked, on=["queryId", "itemId"], how="left", maintain_order="left")
        shown = shown.join(bought, on=["sessionId", "itemId"], how="left", maintain_order="left")
        feedback = pl.when("bought").then(ORDER).when("clicked").then(CLICK).otherwise(SKIP).cast(pl.Int8)
        frames.append(shown.select(user="user", item="itemId", time="time", feedback=feedback, session="sessionId"))
    return frames


def _shown_items(rows: _Rows) -> pl.DataFrame:
    """Returns queryId, sessionId, user, time and itemId of every item shown by some queries, in the order shown."""
    import polars as pl

    day = rows.times("eventdate", "text")
    # Milliseconds since the session's first query, not a time of day.
    offset = rows.numeric_times("timeframe", "milliseconds") // 1000
    is_test = rows.codes("is.test", {"FALSE": 0, "TRUE": 1}, "Get a fresh copy of the file.")
    session = rows.ids("sessionId")
    user = rows.frame["userId"]
    anonymous = (user == _UNKNOWN_USER) | (user == "")
    queries = pl.DataFrame(
        {
            "queryId": rows.ids("queryId"),
            "sessionId": session,
            "user": user.zip_with(~anonymous, "session " + session),
            "time": day + offset,
            "itemId": rows.frame["items"].str.split(","),
        }
    )
    return queries.filter(is_test == 0).explode("itemId").filter(pl.col("itemId") != "")


# KuaiRand: every shown video with flags of what the user did


def _read_kuairand(sources: Sequence[Source], order_proxy: Sequence[str], limits: SizeLimits) -> list[pl.DataFrame]:
    """Returns the shown videos as events, sorted by their time in milliseconds.

    A video counts as ordered if any flag of `order_proxy` is 1 (whatever is_click says), else as clicked if is_click
    is 1.
    """
    import polars as pl

    feedback_of_flag = {"is_click": CLICK, **dict.fromkeys(order_proxy, ORDER)}
    columns = ["user_id", "video_id", "time_ms", *feedback_of_flag]
    frames = []
    for source in sources:
        for rows in _read_rows(source, columns, limits, separator=","):
            do = "Expected 0 or 1: get a fresh copy of the file."
            answers = [rows.codes(flag, {"0": SKIP, "1": code}, do) for flag, code in feedback_of_flag.items()]
            events = {
                "user": rows.ids("user_id"),
                "item": rows.ids("video_id"),
                "time": rows.numeric_times("time_ms", "milliseconds"),
            }
            frames.append(pl.DataFrame(events).with_columns(feedback=pl.max_horizontal(answers)))
    # The files overlap in time, and seconds do not tell which of two quickly skipped videos came first.
    shown = pl.concat(frames).sort("time", maintain_order=True)
    frames.clear()
    return [shown.with_columns(pl.col("time") // 1000)]

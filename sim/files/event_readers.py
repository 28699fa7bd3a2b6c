"""Parsers of logs of recommendations: any CSV, TSV or Parquet table of events, the files of Diginetica and KuaiRand.

`sim.files.rows` provides columns chunk by chunk and converts them to times, feedback and ids.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.errors import UserError
from sim.files.event_layout import EventLayout, answers_of_flags, events_of_rows, with_event_counts
from sim.files.ids import IdColumn, NotationError, id_array
from sim.files.rows import Rows
from sim.files.tables import read_tables
from sim.files.unknown_names import UnknownNameError
from sim.formats.sources import SizeLimits, Source
from sim.formats.text_table import TextFormat
from sim.tables.events import CLICK, ORDER, SKIP
from sim.tables.placeholders import missing_values_setting, stand_for_nothing
from sim.tables.ratings_apart import SeenRatings

if TYPE_CHECKING:
    import polars as pl

EVENT_PARSER_VERSION = 6
"""Increment when the same files would be parsed differently; cached logs then expire."""

EVENT_READERS = ("events_table", "diginetica", "kuairand")
OrderProxy = Literal["is_like", "is_follow", "is_comment", "is_forward", "long_view", "is_profile_enter"]
"""Columns of KuaiRand that may count as orders: 0 or 1, and stronger than a click (dislikes are excluded)."""
_COLUMN_KEYS = "data.user_column, data.item_column, data.time_column, data.feedback_column and data.session_column"
_FLAGS = (("0",), ("1",))


@dataclass(frozen=True)
class EventColumns:
    """A log as columns; what `sim.tables.events.build_event_log` takes, with ids as indices.

    The rows are in the order of the files (of KuaiRand, in order of time).

    Attributes:
        users: [R] int32 index into `user_ids`.
        items: [R] int32 index into `item_ids`.
        times: [R] int64 seconds since 1970.
        feedback: [R] int8, 0 skip, 1 click, 2 order.
        sessions: [R] int32 session numbers, -1 where a row has none; or None where the log has none.
        user_ids: Original ids, ascending; integers where all are plain integers (or all end in ".0"), else strings.
        item_ids: The same for items.
        shown_probability: [R] float64 probabilities with which the items were shown, or None.
        notes: What is unlikely about the sessions, a sentence each.
        left_out: How many rows each setting left out, by its key.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    feedback: np.ndarray
    sessions: np.ndarray | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    shown_probability: np.ndarray | None = None
    notes: list[str] = field(default_factory=list, kw_only=True)
    left_out: dict[str, int] = field(default_factory=dict, kw_only=True)


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
    frames: Iterable[pl.DataFrame]
    ratings = SeenRatings()
    left_out: Counter[str] = Counter({"data.missing_values": 0} if layout.missing_values else {})
    if reader == "diginetica":
        frames = _read_diginetica(sources, layout.missing_values, limits, left_out)
    elif reader == "kuairand":
        frames = _read_kuairand(sources, order_proxy, layout.missing_values, limits, left_out)
    else:
        frames = _read_tables(sources, layout, limits, left_out, ratings)
    try:
        columns = _as_columns(frames, ", ".join(map(str, sources[:3])), layout.missing_values)
    except NotationError as error:
        if reader != "events_table":
            raise
        column = {"user": layout.user_column, "item": layout.item_column, "session": layout.session_column}[error.of]
        raise error.found_in(column or "", _rows_of_tables(sources, layout, limits)) from None
    return replace(columns, left_out=dict(left_out), notes=[*columns.notes, *_unlikely_ratings(ratings, layout)])


def _known(rows: Rows, columns: Sequence[str], missing: Sequence[str], left_out: Counter[str]) -> Rows:
    """Returns the rows without missing values, and counts the others."""
    known = rows.known(columns, missing)
    if missing:
        left_out["data.missing_values"] += rows.frame.height - known.frame.height
    return known


def _as_columns(frames: Iterable[pl.DataFrame], where: str, missing: Sequence[str]) -> EventColumns:
    """Joins frames with the columns user, item, time, feedback and possibly more; of each, only numbers are kept."""
    ids = {name: IdColumn(name, where) for name in ("user", "item", "session")}
    others: dict[str, list[np.ndarray]] = {"time": [], "feedback": [], "shown_probability": []}
    for frame in frames:
        for name in frame.columns:
            if name in ids:
                ids[name].add(frame[name])
            else:
                others[name].append(frame[name].to_numpy())
    if not sum(map(len, others["time"])):
        raise UserError("holds no events", where=where, do="Check that these are the right files and event names.")
    users, user_ids = ids.pop("user").finish()
    items, item_ids = ids.pop("item").finish()
    sessions, notes = None, []
    if not ids["session"].is_empty:
        sessions, session_ids = ids.pop("session").finish()
        notes = _unlikely_sessions(sessions, session_ids, missing)
        if session_ids[0] == "":  # the first of all texts
            sessions[sessions == 0] = -1
    times, feedback = (np.concatenate(others.pop(name)) for name in ("time", "feedback"))
    probability = others["shown_probability"]
    return EventColumns(
        users,
        items,
        times,
        feedback,
        sessions,
        id_array(user_ids),
        id_array(item_ids),
        np.concatenate(probability) if probability else None,
        notes=notes,
    )


def _unlikely_sessions(sessions: np.ndarray, ids: pl.Series, missing: Sequence[str]) -> list[str]:
    """Names sessions that stand for a missing one and would make a single session of all such events of a user."""
    import polars as pl

    texts = ids.cast(pl.String)
    unknown = (stand_for_nothing(texts) & (texts != "")).arg_true()
    setting = missing_values_setting(missing, texts[unknown].to_list())
    return [
        f"{int((sessions == index).sum()):,} events have the session {ids[index]!r}, which often means that it is "
        f"unknown: {setting} cuts them by pauses; now a user has one such session"
        for index in unknown
    ]


def _unlikely_ratings(ratings: SeenRatings, layout: EventLayout) -> list[str]:
    """Names ratings that stand in for answers and apart from the others: 99 would be an order."""
    apart = ratings.apart()
    setting = missing_values_setting(layout.missing_values, [f"{value:g}" for one in apart for value in one.values])
    return [f"{one.describe()}: correct the file if that is wrong; {one.advise(setting)}" for one in apart]


# Generic tables


def _read_tables(
    sources: Sequence[Source],
    layout: EventLayout,
    limits: SizeLimits,
    left_out: Counter[str],
    ratings: SeenRatings,
) -> Iterator[pl.DataFrame]:
    """Yields the events of all files, one frame per chunk; counts what settings leave out, and ratings as answers."""
    feedback_of = _feedback_of_sources(sources, layout.feedback_of_file)
    source, time_format = None, layout.time_format
    for rows in _rows_of_tables(sources, layout, limits):
        if rows.source != source:  # each file may have its own unit of time
            source, time_format = rows.source, layout.time_format
        if time_format == "auto":
            time_format = rows.time_format(layout.time_column)
        known = _known(rows, layout.known_columns, layout.missing_values, left_out)
        if layout.between is not None:
            kept = known.within(layout.time_column, time_format, *layout.between)
            left_out["data.times_between"] += known.frame.height - kept.frame.height
            known = kept
        try:
            events, num_ignored = events_of_rows(known, layout, time_format, feedback_of[rows.source])
        except UnknownNameError as error:
            raise with_event_counts(error, _rows_of_tables(sources, layout, limits), layout) from None
        if layout.least_rating and layout.feedback_column is not None:
            ratings.add(known.numbers(layout.feedback_column).to_numpy(), known.place)
        if num_ignored:
            left_out[layout.key_of_ignored] += num_ignored
        yield events


def _rows_of_tables(sources: Sequence[Source], layout: EventLayout, limits: SizeLimits) -> Iterator[Rows]:
    # Files of one kind are one table; other kinds may have other columns.
    feedback_of = _feedback_of_sources(sources, layout.feedback_of_file)
    for _, group in itertools.groupby(feedback_of, key=feedback_of.get):
        yield from read_tables(list(group), layout.names, limits, layout.text, _COLUMN_KEYS)


def _feedback_of_sources(sources: Sequence[Source], feedback_of_file: Mapping[str, str]) -> dict[Source, str | None]:
    """Returns the files to read, each with the feedback that its name determines (None if it does not)."""
    if not feedback_of_file:
        return dict.fromkeys(sources)
    names = [source.name for source in sources]
    for pattern in feedback_of_file:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"no file matches {pattern!r} of data.feedback_of_file; found {', '.join(names[:5])}",
                where=str(sources[0].path.parent),
                do="Store that file too, or remove the pattern.",
            )
    chosen: dict[Source, str | None] = {}
    for source, name in zip(sources, names, strict=True):
        patterns = [pattern for pattern in feedback_of_file if fnmatch.fnmatchcase(name, pattern)]
        if len(patterns) > 1:
            what = f"two patterns of data.feedback_of_file match it: {', '.join(map(repr, patterns))}"
            raise UserError(what, where=str(source), do="Make them exclude each other.")
        if patterns:
            chosen[source] = feedback_of_file[patterns[0]]
    return chosen


# Diginetica (CIKM Cup 2016, track 2): queries with the items shown, clicks on them, and purchases by session

_DIGINETICA_FILES = {
    "train-queries.csv": ["queryId", "sessionId", "userId", "timeframe", "eventdate", "items", "is.test"],
    "train-clicks.csv": ["queryId", "timeframe", "itemId"],
    "train-purchases.csv": ["sessionId", "timeframe", "eventdate", "itemId"],
}
_UNKNOWN_USER = "NA"


def _read_diginetica(
    sources: Sequence[Source], missing: Sequence[str], limits: SizeLimits, left_out: Counter[str]
) -> list[pl.DataFrame]:
    """Returns what was shown as skips at the query's time, then clicks and purchases as events at their own times.

    Ignored are queries of the contest's test set, whose answers were withheld, clicks on items that the query did not
    show, and purchases of items that the session had not shown until then. A session without a known user counts as a
    separate user.
    """
    import polars as pl

    # All files must be present.
    of_name = {source.name: source for source in sources}
    for name in _DIGINETICA_FILES:
        if name not in of_name:
            problem = f"there is no {name} among {', '.join(list(of_name)[:5])}"
            raise UserError(
                problem, where=str(sources[0].path.parent), do="Store all files of the contest's training set."
            )

    def rows_of(name: str) -> Iterator[Rows]:
        columns = [column for column in _DIGINETICA_FILES[name] if column != "userId"]
        for rows in read_tables([of_name[name]], _DIGINETICA_FILES[name], limits, TextFormat(";")):
            yield _known(rows, columns, missing, left_out)

    # Clicks have no date of their own, but that of their query.
    columns_of_clicks = [
        {"queryId": rows.ids("queryId"), "itemId": rows.ids("itemId"), "click_offset": _offset(rows)}
        for rows in rows_of("train-clicks.csv")
    ]
    columns_of_purchases = [
        {"sessionId": rows.ids("sessionId"), "itemId": rows.ids("itemId"), "time": _day_and_time(rows)}
        for rows in rows_of("train-purchases.csv")
    ]
    clicks, purchases = (pl.concat(map(pl.DataFrame, parts)) for parts in (columns_of_clicks, columns_of_purchases))
    # Of each query what was shown, the clicks on it, and what the session bought at some time.
    shown, clicked, sold = [], [], []
    for rows in rows_of("train-queries.csv"):
        impressions = _impressions(rows)
        shown.append(impressions)
        on_shown = impressions.join(clicks, on=["queryId", "itemId"], maintain_order="left_right")
        click_time = on_shown["time"] - on_shown["offset"] + on_shown["click_offset"]
        clicked.append(on_shown.with_columns(time=pl.max_horizontal("time", click_time)))  # never before it was shown
        sold.append(impressions.join(purchases, on=["sessionId", "itemId"], how="semi", maintain_order="left"))
    first_shown = pl.concat(sold).sort("time", maintain_order=True).unique(["sessionId", "itemId"], keep="first")
    bought = purchases.join(first_shown, on=["sessionId", "itemId"], maintain_order="left", suffix="_shown")
    bought = bought.filter(pl.col("time") >= pl.col("time_shown"))
    return [
        part.select(user="user", item="itemId", time="time", feedback=pl.lit(feedback, pl.Int8), session="sessionId")
        for parts, feedback in ((shown, SKIP), (clicked, CLICK), ([bought], ORDER))
        for part in parts
    ]


def _offset(rows: Rows) -> pl.Series:
    """Returns seconds since the session's first query, which has no time of day."""
    return rows.numeric_times("timeframe", "milliseconds") // 1000


def _day_and_time(rows: Rows) -> pl.Series:
    """Returns seconds since 1970, as if each session began at midnight."""
    return rows.times("eventdate", "text") + _offset(rows)


def _impressions(rows: Rows) -> pl.DataFrame:
    """Returns queryId, sessionId, user, time, offset and itemId of every item shown by some queries, in this order."""
    import polars as pl

    is_test = rows.codes("is.test", {"FALSE": 0, "TRUE": 1}, "Get a fresh copy of the file.")
    session = rows.ids("sessionId")
    user = rows.frame["userId"]
    anonymous = (user == _UNKNOWN_USER) | (user == "")
    queries = pl.DataFrame(
        {
            "queryId": rows.ids("queryId"),
            "sessionId": session,
            "user": user.zip_with(~anonymous, "session " + session),
            "time": _day_and_time(rows),
            "offset": _offset(rows),
            "itemId": rows.frame["items"].str.split(","),
        }
    )
    return queries.filter(is_test == 0).explode("itemId").filter(pl.col("itemId") != "")


# KuaiRand: every shown video with flags of what the user did


def _read_kuairand(
    sources: Sequence[Source],
    order_proxy: Sequence[str],
    missing: Sequence[str],
    limits: SizeLimits,
    left_out: Counter[str],
) -> list[pl.DataFrame]:
    """Returns the shown videos as events, sorted by their time in milliseconds.

    A video counts as ordered if any flag of `order_proxy` is 1 (whatever is_click says), else as clicked if is_click
    is 1.
    """
    import polars as pl

    feedback_of_flag = {"is_click": CLICK, **dict.fromkeys(order_proxy, ORDER)}
    columns = ["user_id", "video_id", "time_ms", *feedback_of_flag]
    frames = []
    for every in read_tables(sources, columns, limits, TextFormat(",")):
        rows = _known(every, columns, missing, left_out)
        do = "Expected 0 or 1: get a fresh copy of the file."
        events = {
            "user": rows.ids("user_id"),
            "item": rows.ids("video_id"),
            "time": rows.numeric_times("time_ms", "milliseconds"),
        }
        feedback = answers_of_flags(rows, feedback_of_flag, *_FLAGS, do)
        frames.append(pl.DataFrame(events).with_columns(feedback=feedback))
    # The files overlap in time, and seconds do not tell which of two quickly skipped videos came first.
    shown = pl.concat(frames).sort("time", maintain_order=True)
    frames.clear()
    return [shown.with_columns(pl.col("time") // 1000)]

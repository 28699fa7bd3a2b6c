"""What the rows of a table of events mean: who was shown which item when, and how the answer is told.

An answer is told by the name of an event, by columns of flags, by a rating, by the file, or beside each of the items
that a row packs into one field.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.errors import UserError
from sim.files.rows import Rows, TimeFormat
from sim.files.unknown_names import IGNORE, UnknownNameError, refuse_unknown, setting_of_names, with_counts
from sim.formats.text_table import TextFormat
from sim.tables.events import CLICK, FEEDBACK_NAMES, SKIP

if TYPE_CHECKING:
    import polars as pl

FeedbackChoice = Literal["skip", "click", "order", "ignore"]
Answer = Literal["click", "order"]
FEEDBACK_CHOICES = (*FEEDBACK_NAMES, IGNORE)
_NO, _YES = ("0", "0.0", "no", "n", "false", "f"), ("1", "1.0", "yes", "y", "true", "t")
_LINE = "\0line"  # no column of a file is called so


@dataclass(frozen=True)
class EventLayout:
    """The layout of a table of events.

    Attributes:
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids.
        time_column: Name of the column of times.
        feedback_column: Name of the column of event names, or of ratings with `least_rating`; None if flags, packed
            answers or the file determine the feedback, or all are clicks.
        session_column: Name of the column of sessions, or None.
        text: How the files are written, if they are text.
        time_format: Unused where a Parquet column holds dates or datetimes.
        feedback_of_event: Event name (or packed answer) -> one of `FEEDBACK_CHOICES`.
        own_events: Of these, what data.events holds, which an advice must not lose.
        ignore_unknown: Whether events with other names are ignored; otherwise they are an error.
        missing_values: Texts that mean that a user, item, time or answer is not known, whose rows are left out, or a
            session, whose rows are cut by pauses as an empty one's.
        feedback_of_file: File name pattern -> feedback of all rows; files that match none are ignored. Empty: all
            files are read, and where nothing else tells the answer all rows are clicks.
        flag_columns: Columns of yes and no -> what a yes means; the strongest counts, and without any a row is a skip.
        least_rating: "click" and "order" -> the lowest rating that counts so; lower ones are skips. Empty: the
            feedback column holds names.
        item_separator: Between the items that a row packs into one field; None: a row is one item.
        answer_separator: Before the answer of each packed item; None: they have none of their own.
        propensity_column: Name of the column of probabilities with which the items were shown, or None. Of packed items
            it holds as many, with the same separator between them.
        between: Seconds since 1970: rows before the first and from the second on are left out; None: none are.
    """

    user_column: str
    item_column: str
    time_column: str
    feedback_column: str | None = None
    session_column: str | None = None
    text: TextFormat = field(default_factory=TextFormat)
    time_format: TimeFormat = "seconds"
    feedback_of_event: Mapping[str, str] = field(default_factory=dict)
    own_events: Mapping[str, str] = field(default_factory=dict)
    ignore_unknown: bool = False
    feedback_of_file: Mapping[str, str] = field(default_factory=dict)
    missing_values: Sequence[str] = ()
    flag_columns: Mapping[str, str] = field(default_factory=dict)
    least_rating: Mapping[Answer, float] = field(default_factory=dict)
    item_separator: str | None = None
    answer_separator: str | None = None
    propensity_column: str | None = None
    between: tuple[int, int] | None = None

    @property
    def names(self) -> list[str]:
        """The columns to read; one with two roles is listed once."""
        named = (self.user_column, self.item_column, self.time_column, self.feedback_column, self.session_column)
        return list(dict.fromkeys(name for name in (*named, *self.flag_columns, self.propensity_column) if name))

    @property
    def key_of_ignored(self) -> str:
        """The setting that says which events are ignored."""
        return "data.event_columns" if self.flag_columns else "data.feedback_of_event"

    @property
    def known_columns(self) -> list[str]:
        """The columns without whose value a row says nothing."""
        named = (self.user_column, self.item_column, self.time_column, self.feedback_column, self.propensity_column)
        return [name for name in (*named, *self.flag_columns) if name]


def events_of_rows(
    rows: Rows, layout: EventLayout, time_format: TimeFormat, feedback_of_file: str | None
) -> tuple[pl.DataFrame, int]:
    """Returns the events of some rows (user, item, time, feedback, and what else there is), and how many are ignored.

    Raises:
        UnknownNameError: The name of an event is not known.
        UserError: A value cannot be right.
    """
    import polars as pl

    rows = _one_item_per_row(rows, layout)
    columns = {
        "user": rows.ids(layout.user_column),
        "item": rows.ids(layout.item_column),
        "time": rows.times(layout.time_column, time_format),
        "feedback": _feedback(rows, layout, feedback_of_file),
    }
    if layout.session_column is not None:
        sessions = rows.exact_texts(layout.session_column)
        columns["session"] = sessions.replace(list(layout.missing_values), "") if layout.missing_values else sessions
    if layout.propensity_column is not None:
        columns["shown_probability"] = _propensities(rows, layout.propensity_column)
    every = pl.DataFrame(columns)
    events = every.filter(pl.col("feedback") < FEEDBACK_CHOICES.index(IGNORE))
    return events, every.height - events.height


def with_event_counts(error: UnknownNameError, tables: Iterable[Rows], layout: EventLayout) -> UserError:
    """Returns the error with all unknown names, how often each occurs, and what to add to the command line.

    Args:
        error: Of the first unknown name.
        tables: The rows of all files, from the beginning.
        layout: Their layout.
    """

    def texts() -> Iterator[pl.Series]:
        for rows in tables:
            known = rows.known(layout.known_columns, layout.missing_values)
            yield _one_item_per_row(known, layout).texts(_column_of_names(layout))

    def advice(names: Sequence[str]) -> str:
        meanings = dict(layout.own_events) | dict.fromkeys(names, IGNORE)
        setting = setting_of_names("data.events", [f"{name}={meaning}" for name, meaning in meanings.items()])
        return (
            f"Say what each means (skip, click, order or ignore), as in {setting}, or set data.unknown_events=ignore."
        )

    return with_counts(error, texts(), _codes(layout), list(layout.feedback_of_event), advice)


def answers_of_flags(rows: Rows, flags: Mapping[str, int], no: Sequence[str], yes: Sequence[str], do: str) -> pl.Series:
    """Returns the strongest code of the columns of flags that say yes; SKIP where none does.

    Args:
        rows: The rows.
        flags: Column -> the code of its yes.
        no: How a no is written, in lower case.
        yes: How a yes is written, in lower case.
        do: What to do about another value.
    """
    import polars as pl

    answers = []
    for column, code in flags.items():
        codes = dict.fromkeys(no, SKIP) | dict.fromkeys(yes, code)
        texts = rows.texts(column).str.to_lowercase()
        rows.refuse(column, ~texts.is_in(list(codes)), f"is not one of {', '.join(map(repr, codes))}", do)
        answers.append(texts.replace_strict(list(codes), list(codes.values()), return_dtype=pl.Int8))
    return pl.select(pl.max_horizontal(answers)).to_series()


def _feedback(rows: Rows, layout: EventLayout, feedback_of_file: str | None) -> pl.Series:
    """Returns the code of each row's answer, an index into `FEEDBACK_CHOICES`; null where it is ignored."""
    import polars as pl

    if layout.flag_columns:
        flags = {name: FEEDBACK_CHOICES.index(kind) for name, kind in layout.flag_columns.items()}
        do = f"data.event_columns takes 0 and 1, no and yes, false and true. Correct or remove the {rows.unit}."
        return answers_of_flags(rows, flags, _NO, _YES, do)
    if layout.least_rating and layout.feedback_column is not None:
        ratings = rows.numbers(layout.feedback_column)
        reached = [
            pl.select(pl.when(ratings >= least).then(FEEDBACK_NAMES.index(name)).otherwise(SKIP)).to_series()
            for name, least in layout.least_rating.items()
        ]
        return pl.select(pl.max_horizontal(reached)).to_series().cast(pl.Int8)
    if layout.feedback_column is not None or layout.answer_separator is not None:
        return _codes_of_names(rows, layout)
    code = FEEDBACK_NAMES.index(feedback_of_file or FEEDBACK_NAMES[CLICK])
    return pl.repeat(code, rows.frame.height, dtype=pl.Int8, eager=True)


def _codes_of_names(rows: Rows, layout: EventLayout) -> pl.Series:
    import polars as pl

    column, codes = _column_of_names(layout), _codes(layout)
    texts = rows.texts(column)
    if not layout.ignore_unknown:
        refuse_unknown(rows, column, texts, codes, layout.feedback_of_event)
    return texts.replace_strict(list(codes), list(codes.values()), default=None, return_dtype=pl.Int8)


def _column_of_names(layout: EventLayout) -> str:
    return layout.feedback_column or _answer_column(layout)


def _answer_column(layout: EventLayout) -> str:
    return f"answer in {layout.item_column}"


def _codes(layout: EventLayout) -> dict[str, int]:
    """Returns the code of each name; 1.0 is what 1 is, since a missing value turns a column of integers into floats."""
    codes = {name: FEEDBACK_CHOICES.index(kind) for name, kind in layout.feedback_of_event.items()}
    return {f"{name}.0": code for name, code in codes.items() if name.isascii() and name.isdigit()} | codes


def _one_item_per_row(rows: Rows, layout: EventLayout) -> Rows:
    """Returns rows that pack several items into one field as rows of an item each, in the order packed.

    Empty places between separators are no items. Each row keeps its number in the file; the answers packed beside the
    items become a column.
    """
    import polars as pl

    if layout.item_separator is None:
        return rows
    column = layout.item_column
    packed = {column: rows.texts(column).str.split(layout.item_separator)}
    if layout.propensity_column is not None:
        packed[layout.propensity_column] = _propensities_of_items(rows, layout, packed[column])
    lists = rows.frame.with_columns(values.alias(name) for name, values in packed.items())
    frame = lists.with_columns(pl.Series(_LINE, rows.lines())).explode(*packed).filter(pl.col(column) != "")
    lines = frame[_LINE].to_numpy()
    unpacked = dataclasses.replace(rows, frame=frame.drop(_LINE), line_numbers=lines)
    if (separator := layout.answer_separator) is None:
        return unpacked
    # The answer stands behind the last separator: item ids may hold it too.
    parts = frame[column].str.extract_groups(f"(?s)^(?<item>.*){re.escape(separator)}(?<answer>.*)$").struct.unnest()
    do = f"Expected items and answers as in item{separator}1. Correct or remove the {rows.unit}."
    unpacked.refuse(column, parts["item"].is_null(), f"has no answer behind {separator!r}", do)
    answered = unpacked.frame.with_columns(parts["item"].alias(column), parts["answer"].alias(_answer_column(layout)))
    return dataclasses.replace(unpacked, frame=answered)


def _propensities_of_items(rows: Rows, layout: EventLayout, items: pl.Series) -> pl.Series:
    """Returns a list of probabilities for each list of items, empty ones for empty places."""
    import polars as pl

    column = layout.propensity_column or ""
    texts = rows.texts(column)
    every = texts.str.split(layout.item_separator or "")
    written = every.list.eval(pl.element().filter(pl.element() != ""))
    wanted = items.list.eval(pl.element() != "")
    number = wanted.list.sum()
    do = (
        f"Expected a probability for each item, with {layout.item_separator!r} between them. Correct or remove the "
        f"{rows.unit}."
    )
    for row in (written.list.len() != number).arg_true()[:1]:
        problem = f"holds {len(written[row])} values for {number[row]} items"
        rows.refuse(column, written.list.len() != number, problem, do)
    # Each at the place of its item.
    places = pl.DataFrame({"wanted": wanted, "row": range(len(texts))}).explode("wanted")
    values = pl.concat([written.explode().drop_nulls(), pl.Series([""])]).gather(places["wanted"].cum_sum().clip(1) - 1)
    placed = places.with_columns(values.zip_with(places["wanted"], pl.Series([""])).alias("value"))
    return placed.group_by("row", maintain_order=True).agg("value")["value"]


def _propensities(rows: Rows, column: str) -> pl.Series:
    numbers = rows.numbers(column)
    do = f"Expected the probability with which the item was shown. Correct or remove the {rows.unit}."
    rows.refuse(column, (numbers <= 0) | (numbers > 1), "is not a probability above 0 and up to 1", do)
    return numbers


def described_ratings(layout: EventLayout) -> str:
    """Returns which ratings stand in for which answers; empty if none do."""
    if not layout.least_rating:
        return ""
    least = sorted(layout.least_rating.items(), key=lambda one: one[1])
    return ", ".join([f"skip below {least[0][1]:g}", *(f"{name} from {value:g}" for name, value in least)])

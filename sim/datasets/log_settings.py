"""Settings of a log of recommendations: which files, what their columns and names of events mean, how it is split."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from typing import Annotated, Literal

from harness.settings import PAIRS, Count, Finite, NotNegative, Otherwise, ProperShare
from sim.files.event_layout import Answer, EventLayout, FeedbackChoice
from sim.files.event_readers import (
    EVENT_READERS,
    OrderProxy,
)
from sim.files.locate import NOT_AUTO, FilesConfig, bad_setting
from sim.files.rows import TimeFormat
from sim.files.served_log import SERVED
from sim.tables.events import (
    FeedbackName,
    ShopName,
    WorldName,
)
from sim.tables.session_length import LongSessions
from sim.tables.skip_sampling import Excluded

SYNTHETIC_FUNNEL = "synthetic_funnel"


@dataclass(frozen=True)
class LogConfig(FilesConfig):
    """Everything that determines the log of an experiment; `conf/data/*.yaml` contain and explain the values.

    Raises:
        UserError: A value is out of range; the message names its key.
    """

    obtain: str | None
    expected_events: Count | None
    user_column: str | None
    item_column: str | None
    time_column: str | None
    feedback_column: str | None
    session_column: str | None
    time_format: TimeFormat
    feedback_of_event: Annotated[dict[str, FeedbackChoice], PAIRS]
    unknown_events: Literal["error", "ignore"]
    feedback_of_file: dict[str, FeedbackName]
    session_gap: NotNegative
    min_item_events: Count
    min_session_events: Count
    skips_per_event: NotNegative
    skip_popularity_power: NotNegative
    split: Literal["day", "quantile", "none"]
    train_days: Count | None
    test_quantile: ProperShare
    size: str | None
    num_users: Count | None
    num_items: Count | None
    kind: Annotated[
        Literal["events"],
        Otherwise(
            "This learns from logs of recommendations: choose data=synthetic_funnel, events_csv, retailrocket, rees46, "
            "yoochoose, jdata, diginetica or kuairand; or ratings as answers: data=ratings_as_events, "
            "movielens_1m_as_events or movielens_latest_small_as_events.",
            NOT_AUTO,
        ),
    ] = "events"
    order_proxy: list[OrderProxy] = dataclasses.field(default_factory=list)
    skips_exclude: Excluded = "session"
    shop: ShopName | None = None
    world: WorldName | None = None
    events: Annotated[dict[str, FeedbackChoice], PAIRS] = dataclasses.field(default_factory=dict)
    event_columns: Annotated[dict[str, FeedbackChoice], PAIRS] = dataclasses.field(default_factory=dict)
    least_rating: dict[Answer, Finite] = dataclasses.field(default_factory=dict)
    item_separator: str | None = None
    answer_separator: str | None = None
    propensity_column: str | None = None
    times_between: list[str] | None = None
    max_session: Count | None = None
    long_sessions: LongSessions = "split"
    complete: bool = False

    @property
    def for_use(self) -> bool:
        """Whether all sessions are for training, so that there is nothing to test with."""
        return self.split == "none"

    def __post_init__(self) -> None:
        """Checks settings against each other, and the reader's name."""
        self.check_files()
        self.check_choice("reader", (SYNTHETIC_FUNNEL, SERVED, *EVENT_READERS))
        if self.order_proxy and self.reader != "kuairand":
            problem = f"is set, but the reader {self.reader} knows no such columns"
            raise bad_setting("order_proxy", problem, "Set it to []; it belongs to data=kuairand.")
        self._between()
        if self.reader == "events_table":
            self._check_table()
        if self.reader == SYNTHETIC_FUNNEL:
            from sim.generators.funnel import SIZES

            self.check_choice("size", SIZES)

    def _check_table(self) -> None:
        if not self.path and not self.files and not self.archive:
            do = "Set it to a file, a pattern or a list of these, as in data.path=events.csv."
            raise bad_setting("path", "is not set", do)
        self.check_named_columns("user_column", "item_column", "time_column")
        named = (self.item_column, self.time_column, self.feedback_column, self.user_column, self.propensity_column)
        columns = [name for name in (*named, *self.event_columns) if name]
        if len(set(columns)) < len(columns):
            raise bad_setting("item_column", "one column has two roles", "Name different columns.")
        if self.session_column and self.session_column in columns and self.session_column != self.user_column:
            raise bad_setting("session_column", "one column has two roles", "Name different columns.")
        self._check_answers()

    def _check_answers(self) -> None:
        """Checks that one thing tells the answers."""
        told_by = {
            "feedback_column": self.feedback_column,
            "event_columns": self.event_columns,
            "answer_separator": self.answer_separator,
            "feedback_of_file": self.feedback_of_file,
        }
        first, *others = [key for key, value in told_by.items() if value] or [""]
        if others:
            do = f"Both tell the answers: set one of them to null, as in data.{first}=null."
            raise bad_setting(others[0], f"and data.{first} exclude each other", do)
        if self.feedback_column and not self.least_rating and not {**self.feedback_of_event, **self.events}:
            do = "Say what its events mean, as in +data.feedback_of_event.view=click."
            raise bad_setting("feedback_of_event", "is empty, but data.feedback_column is set", do)
        # Ratings.
        if self.least_rating and not self.feedback_column:
            do = "Set data.feedback_column to the column of ratings."
            raise bad_setting("least_rating", "is set without a column of ratings", do)
        click, order = self.least_rating.get("click"), self.least_rating.get("order")
        if click is not None and order is not None and order <= click:
            problem = f"an order takes {order:g}, no more than a click ({click:g})"
            raise bad_setting("least_rating", problem, "Set data.least_rating.order above data.least_rating.click.")
        # Several items in a row.
        if self.item_separator == "":
            raise bad_setting("item_separator", "is empty", "Set it, as in 'data.item_separator=\" \"', or to null.")
        if self.answer_separator and self.item_separator is None:
            do = "Set data.item_separator to what stands between the items of a row."
            raise bad_setting("answer_separator", "is set without data.item_separator", do)

    def event_layout(self) -> EventLayout:
        """Returns the layout of a generic table."""
        names: dict[str, FeedbackChoice] = {"0": "skip", "1": "click"} if self.answer_separator else {}
        return EventLayout(
            user_column=self.user_column or "",
            item_column=self.item_column or "",
            time_column=self.time_column or "",
            feedback_column=self.feedback_column or None,
            session_column=self.session_column or None,
            text=self.text_format,
            missing_values=self.missing_values,
            time_format=self.time_format,
            feedback_of_event=names | self.feedback_of_event | self.events,
            own_events=self.events,
            ignore_unknown=self.unknown_events == "ignore",
            feedback_of_file=self.feedback_of_file,
            flag_columns=self.event_columns,
            least_rating=self.least_rating,
            item_separator=self.item_separator,
            answer_separator=self.answer_separator or None,
            propensity_column=self.propensity_column or None,
            between=self._between(),
        )

    def _between(self) -> tuple[int, int] | None:
        """Returns the seconds that `times_between` names."""
        if self.times_between is None:
            return None
        do = "Set two dates, as in [2017-11-25,2017-12-04]: the first day, and the day after the last."
        try:
            moments = [datetime.datetime.fromisoformat(text) for text in self.times_between]
        except ValueError as error:
            raise bad_setting("times_between", str(error), do) from None
        seconds = [int(moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()) for moment in moments]
        if len(seconds) != 2 or seconds[0] >= seconds[1]:
            raise bad_setting("times_between", f"is {self.times_between}", do)
        return seconds[0], seconds[1]

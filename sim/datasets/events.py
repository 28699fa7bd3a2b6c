"""Logs of recommendations by configuration: finds or generates them, samples skips, splits by time, caches the table.

`sim.files.locate` describes where files are searched. Nothing is downloaded, since most of the supported logs need an
account or consent: if a log is missing, the error says where to get it (`data.obtain`).
"""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np

from harness.errors import UserError
from harness.settings import PAIRS, Count, Finite, NotNegative, Otherwise, ProperShare
from sim.datasets.ratings import spread
from sim.files.cache import cached
from sim.files.event_layout import Answer, EventLayout, FeedbackChoice, described_ratings
from sim.files.event_readers import (
    EVENT_PARSER_VERSION,
    EVENT_READERS,
    OrderProxy,
    read_events,
)
from sim.files.locate import NOT_AUTO, STORE_THEM, FilesConfig, bad_setting, check_count, fingerprint
from sim.files.log_parts import checksum_of_parts, log_parts, log_sources
from sim.files.rows import TimeFormat
from sim.files.served_log import SERVED, SERVED_VERSION, read_served_events
from sim.formats.sources import Source, checksum, describe_sources
from sim.tables.events import (
    CLICK,
    HASHED,
    ORDER,
    SKIP,
    EventLog,
    FeedbackName,
    ShopName,
    WorldName,
    build_event_log,
    select_events,
    with_test_sessions,
)
from sim.tables.numbering import num_distinct
from sim.tables.session_length import LongSessions, limit_sessions
from sim.tables.skip_sampling import SKIP_SAMPLER_VERSION, Excluded, add_sampled_skips
from sim.tables.summary import time_span
from sim.tables.table_hash import hashed

SYNTHETIC_FUNNEL = "synthetic_funnel"
_SECONDS_PER_DAY = 86_400
_NOT_OF_THE_LOG = ("root", "cache", "max_unpacked_gib", "obtain")
"""Settings that do not change the log built from given files."""
_LEAST_COMPLETE = 0.9
"""Share of the pairs of user and item that a complete log knows."""
LOG_VERSION = 5
"""Increment when the same files and settings would give another log; cached logs then expire."""


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


def load_log(config: LogConfig) -> EventLog:
    """Returns the configured log, split into training and test sessions, from the cache if possible.

    Raises:
        UserError: The files are missing, damaged, or of another data set; or no events are left after filtering; or
            one of the parts is empty.
    """
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in _NOT_OF_THE_LOG}
    if config.world is None:  # tables kept before there were kinds of users do not say theirs
        del settings["world"]
    if not config.complete:  # nor that they are not
        del settings["complete"]
    if not config.log_parts:  # nor how much of growing files they are made of
        del settings["log_parts"]
    if config.reader == SYNTHETIC_FUNNEL:
        from sim.generators import funnel

        versions = [funnel.GENERATOR_VERSION, LOG_VERSION, SKIP_SAMPLER_VERSION]
        return cached(
            EventLog, config.cache_folder, {"log": settings, "versions": versions}, lambda: _generated_log(config)
        )
    sources = log_sources(config.path) if config.reader == SERVED else config.stored_sources()
    if not sources:
        do = f"{config.obtain} {STORE_THEM}" if config.obtain else STORE_THEM
        raise UserError(config.what_was_missed(), where=config.name, do=do)
    key = {
        "log": settings,
        "files": [fingerprint(source) for source in sources],
        "versions": [
            *(EVENT_PARSER_VERSION, LOG_VERSION, SKIP_SAMPLER_VERSION),
            *((SERVED_VERSION,) if config.reader == SERVED else ()),
        ],
    }
    return cached(EventLog, config.cache_folder, key, lambda: _parsed_log(config, sources))


def _generated_log(config: LogConfig) -> EventLog:
    from sim.generators.funnel import generate_log

    log = generate_log(
        size=config.size or "",
        seed=config.seed,
        shop=config.shop or "seen",
        world=config.world or "trust",
        num_users=config.num_users,
        num_items=config.num_items,
    )
    starts = _start_times(log)  # no session of a generated log goes on after midnight
    is_test = starts >= _first_test_second(config, starts)
    return _prepared(dataclasses.replace(log, name=config.name, is_test=is_test), config)


def _parsed_log(config: LogConfig, sources: list[Source]) -> EventLog:
    # What the files hold.
    layout = config.event_layout()
    if config.reader == SERVED:
        parts = log_parts(sources, config.log_parts)
        columns, digest = read_served_events(parts, layout, config.session_gap), checksum_of_parts(parts)
    else:
        columns = read_events(config.reader, sources, layout, config.limits, config.order_proxy)
        digest = checksum(list(dict.fromkeys(source.path for source in sources)))
    origin = describe_sources(sources)
    check_count(config.name, origin, "events", len(columns.items), config.expected_events)
    # The table, with ids as the files write them.
    log = build_event_log(
        name=config.name,
        users=columns.users,
        items=columns.items,
        times=columns.times,
        feedback=columns.feedback,
        sessions=columns.sessions,
        session_gap=config.session_gap,
        checksum=digest,
        source=origin,
        shown_probability=columns.shown_probability,
        order_proxy=" or ".join(dict.fromkeys(config.order_proxy)),
        feedback_proxy=described_ratings(layout),
        first_test_second=partial(_first_test_second, config),
    )
    user_ids, item_ids = columns.user_ids[log.user_ids], columns.item_ids[log.item_ids]
    log = dataclasses.replace(
        log,
        user_ids=user_ids,
        item_ids=item_ids,
        notes=[*columns.notes, *log.notes],
        left_out=columns.left_out,
        missing_values=config.missing_values,
    )
    del columns
    log = _prepared(log, config)
    return _checked_complete(log) if config.complete else log


def _checked_complete(log: EventLog) -> EventLog:
    """Returns the log, marked as complete, with the share of pairs of user and item that it knows as a note.

    Raises:
        UserError: It knows too few.
    """
    pairs = len(np.unique(log.user.astype(np.int64) * log.num_items + log.item))
    share = pairs / (log.num_users * log.num_items)
    if share < _LEAST_COMPLETE:
        raise UserError(
            f"knows {share:.1%} of the answers of its users to its items, at least {_LEAST_COMPLETE:.0%} make a log "
            "complete",
            where=log.source,
            do="Set data.complete=false, or provide a log in which everybody was shown everything.",
        )
    note = f"{share:.2%} of all pairs of user and item are known; with env.users=truth the others are skipped"
    return dataclasses.replace(log, complete=True, notes=[*log.notes, note])


def _prepared(log: EventLog, config: LogConfig) -> EventLog:
    """Sorts the parts of the log, filters it as configured, and samples skips if it has none.

    What is left of the training part, and what is added to it, does not depend on the test part.

    Raises:
        UserError: No events are left, or one of the parts is empty.
    """
    # Which sessions are for testing is known before anything is counted.
    log = with_test_sessions(log, log.is_test)
    by_day = config.split == "day"
    do = "Set data.split=quantile to split within days." if by_day else "Set another data.test_quantile."
    _check_parts(log, config, f"data.split={config.split} leaves", do)
    if config.max_session is not None:
        # Sampled skips make a session longer, by so much on average.
        longest = config.max_session / (1 + config.skips_per_event) if _lacks_skips(log, config) else config.max_session
        limited = limit_sessions(log, max(1, int(longest)), config.long_sessions)
        log = _with_left_out(limited, log, "data.long_sessions")
        _check_parts(log, config, "data.long_sessions=drop leaves", "Set data.long_sessions=split.")
    # Filters.
    if by_day and config.train_days is not None:
        day = _start_times(log) // _SECONDS_PER_DAY
        recent = select_events(log, (day >= day[log.is_test].min() - config.train_days)[log.session])
        log = _with_left_out(recent, log, "data.train_days")
    if config.min_item_events > 1:
        training = log.item[~log.in_test_part()]
        kept = np.bincount(training, minlength=log.num_items)[log.item] >= config.min_item_events
        log = _with_left_out(select_events(log, kept), log, "data.min_item_events")
    if config.min_session_events > 1:
        kept = np.bincount(log.session)[log.session] >= config.min_session_events
        log = _with_left_out(select_events(log, kept), log, "data.min_session_events")
    filters = "data.min_item_events and data.min_session_events"
    _check_parts(log, config, f"{filters} leave", f"Lower {filters}.")
    # Skips.
    if _lacks_skips(log, config):
        if config.propensity_column is not None:
            note = "data.propensity_column is left out: skips are sampled, and nobody was shown these"
            log = dataclasses.replace(log, notes=[*log.notes, note])
        log = add_sampled_skips(
            log,
            per_event=config.skips_per_event,
            popularity_power=config.skip_popularity_power,
            seed=config.seed,
            exclude=config.skips_exclude,
        )
    return hashed(log, HASHED)


def _with_left_out(log: EventLog, before: EventLog, key: str) -> EventLog:
    """Returns a log that says how many rows of the one before a setting left out."""
    number = before.num_events - log.num_events
    return dataclasses.replace(log, left_out={**log.left_out, key: number}) if number else log


def _lacks_skips(log: EventLog, config: LogConfig) -> bool:
    """Returns whether skips are to be sampled: the training part records none."""
    return config.skips_per_event > 0 and not (log.feedback[~log.in_test_part()] == SKIP).any()


def _start_times(log: EventLog) -> np.ndarray:
    """Returns the time [S] of each session's first event."""
    return log.time[log.session_starts()[:-1]]


def _first_test_second(config: LogConfig, starts: np.ndarray) -> int:
    """Returns when the test part begins, from the times [S] at which sessions begin.

    With `split: day` it is the last day (UTC) on which any session begins; with `split: quantile` it begins with the
    first session after the `test_quantile` quantile of these times; with `split: none`, never.
    """
    never = np.iinfo(np.int64).max
    if config.for_use:
        return never
    if config.split == "day":
        return int(starts.max()) // _SECONDS_PER_DAY * _SECONDS_PER_DAY
    return int(starts.min(initial=never, where=starts > np.quantile(starts, config.test_quantile)))


def _check_parts(log: EventLog, config: LogConfig, what: str, do: str) -> None:
    """Raises UserError if there are no training sessions, or none for testing in a split log; `what` says why."""
    if log.is_test.all() or not (log.is_test.any() or config.for_use):
        part = "training" if log.is_test.all() else "test"
        span = time_span([int(log.time.min()), int(log.time.max())])
        raise UserError(f"{what} no {part} sessions (the log is of {span})", where=log.name, do=do)


def log_statistics(log: EventLog) -> dict[str, Any]:
    """Returns the statistics of the paper's Table 1 and more, as JSON values.

    Returns:
        name, users, items, parts ("train" and, if there is one, "test"; see `_part_statistics`), checksum, source,
        synthetic, synthetic_skips, order_proxy and feedback_proxy.
    """
    num_training = log.num_events - int(log.in_test_part().sum())
    parts = {"train": slice(0, num_training), "test": slice(num_training, log.num_events)}
    return {
        "name": log.name,
        "users": log.num_users,
        "items": log.num_items,
        "parts": {part: _part_statistics(log, rows) for part, rows in parts.items() if rows.start < rows.stop},
        "checksum": log.checksum,
        "source": log.source,
        "synthetic": log.synthetic,
        "synthetic_skips": log.synthetic_skips,
        "order_proxy": log.order_proxy,
        "feedback_proxy": log.feedback_proxy,
    }


def _part_statistics(log: EventLog, rows: slice) -> dict[str, Any]:
    """Returns counts, rates per sample, events_per_session and times ([first, last]) of some rows.

    Every row is a sample; an order also counts as a click.
    """
    feedback, times = log.feedback[rows], log.time[rows]
    clicks, orders = int((feedback >= CLICK).sum()), int((feedback == ORDER).sum())
    starts = np.flatnonzero(np.diff(log.session[rows], prepend=-1))
    events_per_session = np.diff(starts, append=len(feedback))
    return {
        "samples": len(feedback),
        "items": num_distinct(log.item[rows], log.num_items),
        "users": num_distinct(log.user[rows], log.num_users),
        "sessions": len(events_per_session),
        "clicks": clicks,
        "orders": orders,
        "click_rate": clicks / len(feedback),
        "order_rate": orders / len(feedback),
        "events_per_session": spread(events_per_session),
        "timestamps": [int(times.min()), int(times.max())],
    }

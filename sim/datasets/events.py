"""Logs of recommendations by configuration: finds or generates them, samples skips, splits by time, caches the table.

`sim.files.locate` describes where files are searched. Nothing is downloaded, since most of the supported logs need an
account or consent: if a log is missing, the error says where to get it (`data.obtain`).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from harness.errors import UserError
from sim.datasets.log_settings import SYNTHETIC_FUNNEL, LogConfig
from sim.datasets.ratings import spread
from sim.files.cache import cached
from sim.files.event_layout import described_ratings
from sim.files.event_readers import (
    EVENT_PARSER_VERSION,
    read_events,
)
from sim.files.locate import STORE_THEM, check_count, fingerprint
from sim.files.log_parts import checksum_of_parts, log_parts, log_sources
from sim.files.served_log import SERVED, SERVED_VERSION, read_served_events
from sim.formats.sources import Source, checksum, describe_sources
from sim.tables.events import (
    CLICK,
    HASHED,
    ORDER,
    SKIP,
    EventLog,
    build_event_log,
    select_events,
    with_test_sessions,
)
from sim.tables.numbering import num_distinct
from sim.tables.session_length import limit_sessions
from sim.tables.skip_sampling import SKIP_SAMPLER_VERSION, add_sampled_skips
from sim.tables.summary import time_span
from sim.tables.table_hash import hashed

_SECONDS_PER_DAY = 86_400
_NOT_OF_THE_LOG = ("root", "cache", "max_unpacked_gib", "obtain")
"""Settings that do not change the log built from given files."""
_LEAST_COMPLETE = 0.9
"""Share of the pairs of user and item that a complete log knows."""
LOG_VERSION = 5
"""Increment when the same files and settings would give another log; cached logs then expire."""


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
        from sim.generators.funnel_world import GENERATOR_VERSION

        versions = [GENERATOR_VERSION, LOG_VERSION, SKIP_SAMPLER_VERSION]
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

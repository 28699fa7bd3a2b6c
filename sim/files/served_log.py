"""What a server decided and what was answered (`harness.serving.decision_log`), as events or as ratings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.errors import UserError
from sim.files.event_layout import EventLayout
from sim.files.event_readers import EventColumns
from sim.files.log_parts import LogPart
from sim.formats.sources import Source, describe_sources
from sim.tables.event_order import stable_order
from sim.tables.events import CLICK, FEEDBACK_NAMES, ORDER, SKIP

SERVED = "served_log"
"""Name of the reader."""
SERVED_VERSION = 2
"""Increment when the same files would be read differently; cached logs then expire."""


class Shown(NamedTuple):
    """A list that was shown: to whom and when, its items and the probability of each at its place."""

    user: Any
    time: float
    items: tuple[Any, ...]
    chances: tuple[float, ...]


@dataclass
class ServedLog:
    """Items that were shown, and answers.

    Attributes:
        shown: Lists by decision.
        answers: (decision or None, user, item, answer, time), in order of the files.
        notes: What was left out, a sentence each.
    """

    shown: dict[str, Shown] = field(default_factory=dict)
    answers: list[tuple[str | None, Any, Any, Any, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_served(parts: Sequence[LogPart]) -> ServedLog:
    """Reads the files of one or several servers. A last line that was cut, as when a server is killed, is left out.

    Raises:
        UserError: A file cannot be read, or is no such log.
    """
    log = ServedLog()
    # Equal ids and equal probabilities of many lists are kept once; not both together, as 1 equals 1.0.
    once: dict[str, dict[Any, Any]] = {"items": {}, "probabilities": {}}
    for part in parts:
        for row in _rows(part):
            if "decision" in row:
                lists = (tuple(known.setdefault(one, one) for one in row[key]) for key, known in once.items())
                log.shown[row["decision"]] = Shown(row["user"], row["time"], *lists)
            else:
                log.answers.append((row["answer_to"], row["user"], row["item"], row["answer"], row["time"]))
    return log


def _rows(part: LogPart) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(part.lines(), 1):
        if line == b"\n":
            continue
        try:
            row = json.loads(line.decode("ascii"))
            kind = "decision" if "decision" in row else "answer_to"
            needed = {"decision": ("items", "probabilities"), "answer_to": ("item", "answer")}[kind]
            if not all(key in row for key in (kind, "user", "time", *needed)) or not isinstance(row["time"], float):
                raise ValueError("not a line of a server's log")
            if kind == "decision" and len(row["items"]) != len(row["probabilities"]):
                raise ValueError("items and probabilities differ in number")
            if not all(isinstance(item, int | str) for item in (row["items"] if kind == "decision" else [row["item"]])):
                raise ValueError("an item is no id")
            if kind == "decision" and not all(isinstance(chance, int | float) for chance in row["probabilities"]):
                raise ValueError("a probability is no number")
        except (ValueError, TypeError) as error:
            if not line.endswith(b"\n"):  # it has no end: the server was killed while it wrote
                return
            do = "Delete the line, or name other files."
            raise UserError(f"is damaged ({error})", where=f"{part.path}, line {number}", do=do) from None
        yield row


def read_served_events(parts: Sequence[LogPart], layout: EventLayout, session_gap: float) -> EventColumns:
    """Returns who was shown what, and the answers: a row for each item of a list, and one for each answer to it.

    An answer belongs to the session in which its item was shown, however late it comes; its time is its own. What is
    told of nobody, and answers to items that were not shown, are left out and counted in the notes.

    Args:
        parts: Of the files.
        layout: Says what answers are: names by `feedback_of_event`, numbers by `least_rating`.
        session_gap: Seconds without an event after which a new session begins.

    Raises:
        UserError: As `read_served`; or an answer is none of these, or nothing is left.
    """
    log = read_served(parts)
    # Who a decision was for may be told by the answer alone.
    user_of = {decision: user for decision, user, *_ in log.answers if decision is not None and user is not None}
    users: list[Any] = []
    items: list[Any] = []
    times: list[float] = []
    chances: list[float] = []
    first_row: dict[str, int] = {}
    of_nobody = not_shown = 0
    for decision, shown in log.shown.items():
        who, number = user_of.get(decision) if shown.user is None else shown.user, len(shown.items)
        if who is None:
            of_nobody += number
            continue
        first_row[decision] = len(items)
        users += [who] * number
        times += [shown.time] * number
        items += shown.items
        chances += shown.chances
    # Answers behind what they answer, also where the clocks of two servers differ.
    feedback, answered = [SKIP] * len(items), []
    for of_decision, _, item, answer, time in log.answers:
        its_list = of_decision or ""
        if its_list not in log.shown or item not in log.shown[its_list].items:
            not_shown += 1
        elif its_list not in first_row:
            of_nobody += 1
        else:
            row = first_row[its_list] + log.shown[its_list].items.index(item)
            answered.append(row)
            users.append(users[row])
            items.append(item)
            times.append(max(time, times[row]))
            chances.append(chances[row])
            feedback.append(_feedback(answer, layout))
    if not items:
        do = 'Ask with the key user: POST /recommend {"user": ...}.'
        raise UserError("holds nothing that was shown to a named user", where=_named(parts), do=do)
    # As columns.
    user_ids, user = np.unique(_ids(users), return_inverse=True)
    item_ids, item = np.unique(_ids(items), return_inverse=True)
    seconds = np.array(times, np.float64).astype(np.int64)
    sessions = _sessions(user, seconds, session_gap)
    sessions[len(items) - len(answered) :] = sessions[answered]
    return EventColumns(
        user.astype(np.int32),
        item.astype(np.int32),
        seconds,
        np.array(feedback, np.int8),
        sessions,
        user_ids,
        item_ids,
        np.array(chances, np.float64),
        notes=_left_out(of_nobody, "of nobody") + _left_out(not_shown, "answers to what was not shown"),
    )


def _sessions(user: np.ndarray, seconds: np.ndarray, session_gap: float) -> np.ndarray:
    """Returns [R] int32 sessions, which end where a user pauses."""
    order = stable_order(user, seconds)
    begins = (np.diff(user[order], prepend=-1) != 0) | (np.diff(seconds[order], prepend=0) > session_gap)
    sessions = np.empty(len(user), np.int32)
    sessions[order] = np.cumsum(begins) - 1
    return sessions


@dataclass(frozen=True)
class ServedRatings:
    """[R] users, items, ratings and times (seconds since 1970; None: unknown) of the answers that are numbers."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray | None


def read_served_ratings(parts: Sequence[LogPart]) -> ServedRatings:
    """Returns the answers that are ratings, whether their items had been recommended or not.

    Raises:
        UserError: As `read_served`; or there are none of named users.
    """
    log = read_served(parts)
    rows = []
    for decision, user, item, answer, time in log.answers:
        shown = log.shown.get(decision or "")
        who = shown.user if user is None and shown is not None and item in shown.items else user
        if who is not None and isinstance(answer, int | float) and not isinstance(answer, bool):
            rows.append((who, item, float(answer), time))
    if not rows:
        do = "Answers need a user and a number; clicks and orders are read by hrlmg_jax with data=served_log."
        raise UserError("holds no ratings", where=_named(parts), do=do)
    users, items, ratings, times = zip(*rows, strict=True)
    seconds = np.array(times, np.float64).astype(np.int64)
    return ServedRatings(_ids(users), _ids(items), np.array(ratings, np.float64), seconds)


def _feedback(answer: Any, layout: EventLayout) -> int:
    """Returns the feedback that an answer is."""
    if answer is None:
        return SKIP
    if isinstance(answer, str):
        choice = layout.feedback_of_event.get(answer)
        if choice in FEEDBACK_NAMES:
            return FEEDBACK_NAMES.index(choice)
        do = f"Say what it means, as in +data.feedback_of_event.{answer}=click."
        raise UserError(f"the answer {answer!r} is not known", where="data.feedback_of_event", do=do)
    if not layout.least_rating:
        do = "Say what counts, as in '+data.least_rating={click: 4, order: 5}'."
        raise UserError(f"the answer {answer:g} is a rating", where="data.least_rating", do=do)
    reached = [{"click": CLICK, "order": ORDER}[name] for name, least in layout.least_rating.items() if answer >= least]
    return max(reached, default=SKIP)


def _named(parts: Sequence[LogPart]) -> str:
    return describe_sources([Source(part.path) for part in parts])


def _left_out(number: int, what: str) -> list[str]:
    return [f"{number:,} rows are left out: {what}"] if number else []


def _ids(values: Sequence[Any]) -> np.ndarray:
    """Returns ids as integers where all are and 64 bits hold them, else as text."""
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values):
        return np.array(values, np.int64)
    return np.array([str(value) for value in values])

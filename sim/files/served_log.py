"""What a server decided and what was answered (`harness.serving.decision_log`), as events or as ratings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.errors import UserError
from sim.files.event_layout import EventLayout
from sim.files.event_readers import EventColumns
from sim.files.log_parts import LogPart
from sim.formats.sources import Source, describe_sources
from sim.tables.events import CLICK, FEEDBACK_NAMES, ORDER, SKIP

SERVED = "served_log"
"""Name of the reader."""


@dataclass
class ServedLog:
    """Items that were shown, and answers.

    Attributes:
        shown: By (decision, item): user, time, probability of the item at its place.
        answers: (decision or None, user, item, answer, time), in order of the files.
        notes: What was left out, a sentence each.
    """

    shown: dict[tuple[str, Any], tuple[Any, float, float]] = field(default_factory=dict)
    answers: list[tuple[str | None, Any, Any, Any, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_served(parts: Sequence[LogPart]) -> ServedLog:
    """Reads the files of one or several servers. A last line that was cut, as when a server is killed, is left out.

    Raises:
        UserError: A file cannot be read, or is no such log.
    """
    log = ServedLog()
    for part in parts:
        for row in _rows(part):
            if "decision" in row:
                columns = zip(row["items"], row["probabilities"], strict=True)
                log.shown |= {(row["decision"], item): (row["user"], row["time"], chance) for item, chance in columns}
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
        except (ValueError, TypeError) as error:
            if not line.endswith(b"\n"):  # it has no end: the server was killed while it wrote
                return
            do = "Delete the line, or name other files."
            raise UserError(f"is damaged ({error})", where=f"{part.path}, line {number}", do=do) from None
        yield row


def read_served_events(parts: Sequence[LogPart], layout: EventLayout) -> EventColumns:
    """Returns who was shown what, and the answers: a row for each item of a list, and one for each answer to it.

    What is told of nobody, and answers to items that were not shown, are left out and counted in the notes.

    Args:
        parts: Of the files.
        layout: Says what answers are: names by `feedback_of_event`, numbers by `least_rating`.

    Raises:
        UserError: As `read_served`; or an answer is none of these, or nothing is left.
    """
    log = read_served(parts)
    answered = [
        (log.shown.get((decision or "", item)), user, item, answer, time)
        for decision, user, item, answer, time in log.answers
    ]
    # Who a decision was for may be told by the answer alone.
    user_of = {decision: user for decision, user, *_ in log.answers if decision is not None and user is not None}
    rows = []
    for (decision, item), (user, time, chance) in log.shown.items():
        rows.append((user_of.get(decision) if user is None else user, item, time, SKIP, chance))
    for shown, user, item, answer, time in answered:
        if shown is not None:
            rows.append((shown[0] if user is None else user, item, time, _feedback(answer, layout), shown[2]))
    known = [row for row in rows if row[0] is not None]
    if not known:
        do = 'Ask with the key user: POST /recommend {"user": ...}.'
        raise UserError("holds nothing that was shown to a named user", where=_named(parts), do=do)
    notes = _left_out(len(rows) - len(known), "of nobody") + _left_out(
        sum(shown is None for shown, *_ in answered), "answers to what was not shown"
    )
    users, items, times, feedback, chances = zip(*known, strict=True)
    user_ids, user = np.unique(_ids(users), return_inverse=True)
    item_ids, item = np.unique(_ids(items), return_inverse=True)
    return EventColumns(
        user.astype(np.int32),
        item.astype(np.int32),
        np.array(times, np.float64).astype(np.int64),
        np.array(feedback, np.int8),
        None,
        user_ids,
        item_ids,
        np.array(chances, np.float64),
        notes=notes,
    )


@dataclass(frozen=True)
class ServedRatings:
    """[R] users, items, ratings and times (seconds since 1970) of the answers that are numbers."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray


def read_served_ratings(parts: Sequence[LogPart]) -> ServedRatings:
    """Returns the answers that are ratings, whether their items had been recommended or not.

    Raises:
        UserError: As `read_served`; or there are none of named users.
    """
    log = read_served(parts)
    rows = []
    for decision, user, item, answer, time in log.answers:
        shown = log.shown.get((decision or "", item))
        who = shown[0] if user is None and shown is not None else user
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

"""A log made ready: catalogue, held-out users, rows and session beginnings of each part, histories on the device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.errors import UserError
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.envs.histories import HistoryTable, make_history_table
from sim.tables.events import CLICK, ORDER, EventLog


@dataclass(frozen=True)
class SessionData:
    """A log and its parts.

    The training part is split by user: what learns (embedding, simulator, agent) sees the training users' sessions;
    those of the held-out users stop the fit early, are reported on, and choose among checkpoints. The test part is what
    all users did later.

    Attributes:
        log: The log; items that occur in training sessions come first.
        num_items: I, those items: the catalogue that can be recommended.
        held_out: [U] bool held-out users; no user without training sessions is one.
    """

    log: EventLog
    num_items: int
    held_out: np.ndarray

    @cached_property
    def table(self) -> HistoryTable:
        """The histories on the device."""
        return make_history_table(self.log)

    def rows(self, part: str) -> np.ndarray:
        """Returns the rows of a part: "train", "held_out" or "test"."""
        return np.flatnonzero(self._in_part(part)[self.log.session])

    def rows_of_some_users(self, part: str, most: int, seed: int) -> np.ndarray:
        """Returns the rows of a part; if it has more than `most` users, those of so many, drawn by the seed."""
        rows = self.rows(part)
        of_user = self.log.user[rows]
        users = np.unique(of_user)
        if len(users) <= most:
            return rows
        return rows[np.isin(of_user, np.random.default_rng(seed).choice(users, most, replace=False))]

    def first_rows(self, part: str) -> np.ndarray:
        """Returns the first rows of the sessions of a part, in the order of the log."""
        return self.log.session_starts()[:-1][self._in_part(part)]

    def spread_first_rows(self, part: str, number: int) -> np.ndarray:
        """Returns [number] rows of the log at which a part's sessions begin, spread evenly over the part.

        Where the part has fewer sessions, several begin at the same row: the same user with other luck.

        Raises:
            UserError: The part is empty.
        """
        rows = self.first_rows(part)
        if not len(rows):
            do = "Split it: day or quantile."
            raise UserError(f"{self.log.name} has no {part} sessions", where="data.split", do=do)
        return rows[np.linspace(0, len(rows) - 1, number).round().astype(int)]

    def _in_part(self, part: str) -> np.ndarray:
        if part == "test":
            return self.log.is_test
        held_out = self.held_out[self.log.user[self.log.session_starts()[:-1]]]
        return ~self.log.is_test & (held_out if part == "held_out" else ~held_out)

    def training_counts(self) -> dict[str, np.ndarray]:
        """Returns [I] how often training users were shown, clicked and ordered each item: shown, clicked, ordered."""
        rows = self.rows("train")
        item, feedback = self.log.item[rows], self.log.feedback[rows]
        return {
            name: np.bincount(item[feedback >= least], minlength=self.num_items)[: self.num_items]
            for name, least in (("shown", 0), ("clicked", CLICK), ("ordered", ORDER))
        }


def load_sessions(config: LogConfig, held_out_fraction: float, seed: int) -> SessionData:
    """Loads a log and splits it.

    Args:
        config: Which log, and how it is split in time.
        held_out_fraction: Share of the users to hold out.

    Raises:
        UserError: No such log, or a part of it is empty.
    """
    log = load_log(config)
    # Among users with training sessions, so that who is held out does not depend on the test part.
    of_training = np.unique(log.user[~log.in_test_part()])
    held_out = np.zeros(log.num_users, bool)
    held_out[of_training] = np.random.default_rng(seed).random(len(of_training)) < held_out_fraction
    log, num_items = _training_items_first(log, held_out)
    data = SessionData(log, num_items, held_out)
    for part in ("train", "held_out"):
        if not len(data.first_rows(part)):
            raise UserError(
                f"no session of {log.name} belongs to the {part.replace('_', '-')} users",
                where=log.source,
                do="Set another simulator.held_out_fraction or simulator.seed, or provide a longer log.",
            )
    feedback = log.feedback[data.rows("train")]
    if not (feedback >= CLICK).any() or not (feedback < CLICK).any():
        missing = "clicks" if not (feedback >= CLICK).any() else "skips"
        raise UserError(
            f"the training part of {log.name} holds no {missing}",
            where=log.source,
            do="Check data.feedback_of_event and data.skips_per_event; see python -m sim.data for what was read.",
        )
    return data


def _training_items_first(log: EventLog, held_out: np.ndarray) -> tuple[EventLog, int]:
    """Renumbers items so that those in training users' training sessions come first; returns their number too."""
    training = ~log.in_test_part() & ~held_out[log.user]
    known = np.bincount(log.item[training], minlength=log.num_items) > 0
    order = np.argsort(~known, kind="stable")
    number = np.empty(log.num_items, np.int32)
    number[order] = np.arange(log.num_items, dtype=np.int32)
    return dataclasses.replace(log, item=number[log.item], item_ids=log.item_ids[order]), int(known.sum())

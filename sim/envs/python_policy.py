"""A policy that is a function of the user's: `history -> item`, with original ids (`agent=python`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.runs.run_folder import RunFolder, read_json
from harness.training.agent import NamedSettings
from harness.user_function import UserFunction, read_file, split_path
from sim.envs.policy import Decision, Policy

_KEY = "agent.path"
_LABEL = re.compile("[A-Za-z0-9_-]+")
_DIGITS = 6  # of answers: 0.6, and not 0.6000000238418579
History = list[tuple[Any, float]]
"""Items recommended so far, in order, by their original ids, each with the user's answer."""
Describe = Callable[[Any, np.ndarray], list[str]]


@dataclass(frozen=True, kw_only=True)
class PythonSettings(NamedSettings):
    """Which function decides (`conf/agent/python.yaml` explains each)."""

    path: str | None
    batched: bool
    label: str | None

    def check_function(self, taken: tuple[str, ...]) -> None:
        """Checks how the function is named; raises UserError naming the key.

        Args:
            taken: Names of the policies beside it.
        """
        split_path(self.path, _KEY)
        if self.label is not None and (not _LABEL.fullmatch(self.label) or self.label in taken):
            raise UserError(
                f"agent.label is {self.label!r}",
                do=f"Letters (a to z), digits, _ and -, and not one of {', '.join(taken)}: it names the results.",
            )

    @property
    def result_name(self) -> str:
        """The label, if there is one."""
        return self.label or self.name

    def check_file(self) -> None:
        """Raises UserError if the file of a stored run is gone."""
        read_file(self.path, _KEY, "Put the file back, or train again.")

    def load(self) -> UserFunction:
        """Says on stderr that the user's code is run, then runs it and returns the function.

        Raises:
            UserError: It cannot be loaded.
        """
        file = read_file(self.path, _KEY)
        # Before it runs: the file may do anything, even end the process.
        print(f"notice: {_KEY} runs {file} (sha256 {file.sha256[:12]})", file=sys.stderr, flush=True)
        return file.run()


@dataclass(frozen=True, eq=False)
class _Deciding:
    """Asks the function and looks up what it answers.

    Attributes:
        function: The user's.
        batched: Whether it takes a list of histories and returns a list of items.
        ids: [I] original ids of the items that can be recommended.
        index: Their indices by id.
        distinct: Whether no item may come twice.
        describe: Names episodes in messages, see `python_policy`.
    """

    function: UserFunction
    batched: bool
    ids: np.ndarray
    index: dict[Hashable, int]
    distinct: bool
    describe: Describe

    def __call__(self, params: Any, starts: np.ndarray, items: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Returns [B] int32 items; see `Policy.on_host`."""
        histories = self._histories(items, answers)
        step = f"step {items.shape[1] + 1}"
        whose = [f"for {one} at {step}" for one in self.describe(params, starts)]
        if self.batched:
            chosen = self._at_once(histories, f"for {len(starts)} users at {step}")
        else:
            chosen = [self.function.call(history, when) for history, when in zip(histories, whose, strict=True)]
        found = [self._look_up(item, when) for item, when in zip(chosen, whose, strict=True)]
        again = (items == np.asarray(found)[:, None]).any(1) if self.distinct else np.zeros(len(found), bool)
        if again.any():
            row = int(np.argmax(again))
            self._refuse(f"returned {self.ids[found[row]]} {whose[row]}, which it had recommended already")
        return np.asarray(found, np.int32)

    def _histories(self, items: np.ndarray, answers: np.ndarray) -> list[History]:
        if not items.shape[1]:
            return [[] for _ in items]
        ids, given = self.ids[items].tolist(), np.round(answers.astype(np.float64), _DIGITS)
        numbers = given.astype(np.int64) if answers.dtype.kind == "i" else given
        return [list(zip(*row, strict=True)) for row in zip(ids, numbers.tolist(), strict=True)]

    def _at_once(self, histories: list[History], when: str) -> list[Any]:
        listed = self.function.call(histories, when, partial(_listed, at_most=len(histories) + 1))
        if not isinstance(listed, list) or len(listed) != len(histories):
            kind = type(listed).__name__
            if isinstance(listed, list):
                more = len(listed) > len(histories)
                kind = f"more than {len(histories)} items" if more else f"{len(listed)} items"
            self._refuse(f"returned {kind} {when}: agent.batched=true needs an item for each history")
        return listed

    def _look_up(self, item: Any, when: str) -> int:
        plain = item.item() if getattr(item, "shape", None) == () else item
        try:
            return self.index[plain]
        except (KeyError, TypeError):
            self._refuse(f"returned {plain!r} {when}, which is the id of no item that can be recommended")
            raise

    def _refuse(self, what: str) -> None:
        examples = ", ".join(repr(item) for item in self.ids[:3].tolist())
        raise UserError(
            what,
            where=str(self.function),
            do=f"Return the id of an item that is not in the history, such as {examples}.",
        )


def _listed(chosen: Any, at_most: int) -> Any:
    """Returns a list of what arrays and iterables hold, at most so much; anything else as it is."""
    if hasattr(chosen, "tolist"):
        return chosen.tolist()
    return list(islice(chosen, at_most)) if isinstance(chosen, Iterable) else chosen


def python_policy(
    function: UserFunction, batched: bool, item_ids: np.ndarray, distinct: bool, describe: Describe
) -> Policy:
    """Returns the policy that asks a function of the user's.

    Args:
        function: `history -> item`, or with `batched` a list of histories -> a list of items. A history is a list of
            (item id, answer) in order; answers are numbers, as the simulator's `info.answer` is.
        batched: See there.
        item_ids: [I] original ids of the items that can be recommended.
        distinct: Whether no item may come twice in an episode.
        describe: Names episodes in messages: `(parameters of the environment, [B] starts) -> [B] words`.

    Raises (when it decides):
        UserError: The function raises something, or returns what is no item, or an item again.
    """

    def act(params: Any, carry: Any, observation: Any, key: Any, explore: bool) -> tuple[Any, Decision]:
        raise AssertionError("a policy on the host is asked by `on_host`")

    index = {item: number for number, item in enumerate(item_ids.tolist())}
    decide = _Deciding(function, batched, item_ids, index, distinct, describe)
    return Policy(lambda params, batch_size: (), act, on_host=decide)


RECORDED = "agent_function"
"""What run.json and the results of a run call `UserFunction.record`."""


def warn_if_changed(record: Mapping[str, str] | None, folder: RunFolder) -> None:
    """Says on stderr if a run was trained, or last tested by the training command, with another file than now.

    Args:
        record: Of the function that is loaded; None without one.
        folder: The run folder.
    """
    trained = read_json(folder.provenance).get(RECORDED) if record else None
    if record and trained and trained["sha256"] != record["sha256"]:
        print(
            f"warning: {record['file']} has changed since the run was made: its sha256 was {trained['sha256'][:12]}, "
            f"now it is {record['sha256'][:12]}",
            file=sys.stderr,
        )


def refuse_to_recommend(settings: Any, where: str) -> None:
    """Raises UserError if an agent's settings name a function of the user's, which is not run for that."""
    if isinstance(settings, PythonSettings):
        raise UserError(
            "agent=python is a function of yours: what it recommends it says itself",
            where=where,
            do="Call it with a history, or recommend from a run of another agent.",
        )

"""What a recommender asks of a system: its policy, the world that the policy knows, and what histories are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sim.envs.policy import Policy


@dataclass(frozen=True, eq=False)
class History:
    """What a user did before, in order of time; systems may know more about it.

    Attributes:
        items: [n] int32 items.
        answers: [n] what the user answered, as `System.read_answers` returns it.
        distinct: Whether no item is in it twice, as far as is known.
    """

    items: np.ndarray
    answers: np.ndarray
    distinct: bool = False


class AnsweredEnvironment(Protocol):
    """An environment in which answers can be given in place of simulated ones: pure functions of one episode."""

    @property
    def episode_length(self) -> int:
        """T, steps per episode."""

    def reset_at(self, start: jax.Array, params: Any) -> tuple[Any, Any]:
        """See `sim.envs.rollout.Environment`."""

    def answer(self, state: Any, item: jax.Array, answer: Any, params: Any) -> tuple[Any, Any]:
        """Returns observation and state after an item (int32) got an answer."""


class Replay(NamedTuple):
    """What B users did, as episodes in which each step has its answer; arrays of NumPy, or traced in an export.

    Attributes:
        env_params: Tables of the environment, in which user b is start b.
        policy_params: Of the policy.
        items: [B, L] int32 items in order of time, padded with -1.
        answers: Pytree of [B, L, ...] answers to them, as `AnsweredEnvironment.answer` takes them.
        length: [B] int32 steps of each; no item is in them twice.
    """

    env_params: Any
    policy_params: Any
    items: Any
    answers: Any
    length: Any


class Answers(NamedTuple):
    """The answers that an exported program takes, by their codes 0 to V - 1.

    Attributes:
        values: [V] each as people give it: a number, a name, or None for none.
        rewards: [V] what each earns.
        streak_weight: Weight of the positive less the negative answers in a row just before, which the reward of an
            answer has on top.
    """

    values: list[Any]
    rewards: list[float]
    streak_weight: float = 0.0


class Exportable(Protocol):
    """What an export asks of a system."""

    @property
    def answers(self) -> Answers:
        """The answers."""

    @property
    def history_width(self) -> int:
        """W, how many of the latest items of each kind the policy sees of a history; 0: an episode is all it sees."""

    @property
    def program_params(self) -> Any:
        """What the program reads."""

    def replay_of(self, params: Any, question: Mapping[str, jax.Array]) -> Replay:
        """Returns the episodes of a question, as a pure function.

        Args:
            params: `program_params`.
            question: `items` [B, L], `answers` [B, L] codes and `length` [B]; with a history width also `browsed`,
                `clicked` and `ordered` [B, W], padded with -1 in front.
        """

    @property
    def nodes_per_level(self) -> list[int]:
        """Inner nodes below those of each level of the tree but the last; [] without one."""

    def codes_of(self, answers: np.ndarray) -> np.ndarray:
        """Returns [n] int32 codes of the answers of a `History`."""

    def kinds_of(self, history: History) -> tuple[np.ndarray, ...]:
        """Returns all browsed, clicked and ordered items of a history, in order; nothing without a history width."""


class System(Exportable, Protocol):
    """A run as a recommender asks it."""

    @property
    def name(self) -> str:
        """Of the method."""

    @property
    def policy(self) -> Policy:
        """Recommends."""

    @property
    def env(self) -> AnsweredEnvironment:
        """Tells the policy the answers."""

    @property
    def user_ids(self) -> np.ndarray:
        """[U] ids of the users in the data."""

    @property
    def item_ids(self) -> np.ndarray:
        """[J] ids of all items in the data; the first `num_items` of them can be recommended."""

    @property
    def num_items(self) -> int:
        """I <= J."""

    @property
    def answer_kind(self) -> str:
        """What an answer is, for messages."""

    def read_answers(self, answers: Sequence[Any]) -> np.ndarray:
        """Returns [n] answers, given as numbers or text, as numbers; raises UserError."""

    def histories_of(self, users: Sequence[int]) -> Sequence[History]:
        """Returns what users did in the data."""

    def replay(
        self, histories: Sequence[History], sessions: Sequence[History], length: int
    ) -> tuple[Replay, list[np.ndarray]]:
        """Returns the episodes that histories, and then sessions, of B users make; L is `length`.

        Returns:
            The episodes, and for each user the other items that she has seen (int32, each once).
        """

    @property
    def likely_params(self) -> Any:
        """What `likely_answer` reads."""

    def likely_answer(self, params: Any, env_params: Any, state: Any, item: jax.Array) -> Any:
        """Returns the most likely answer to an item in a state of one episode."""

    def items_below(self, level: int, child: int) -> np.ndarray:
        """Returns the items below a child that a `Path` names, the most frequent ones first."""

"""What an agent from elsewhere sees of an episode: a dictionary of arrays, made by pure functions.

A view adds the answers so far to the state of one of our environments and gives out arrays of fixed shapes. The
environments of Gymnasium and the gymnax view share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sim.envs.rating_env import STATUS_SIZE, RatingEnv
from sim.envs.session_env import SessionEnv
from sim.tables.events import ORDER, SKIP

Observation = dict[str, jax.Array]
NO_ITEM, NO_FEEDBACK = -1, -1


class Bounds(NamedTuple):
    """Least and greatest value, shape and type of an array of an observation."""

    low: float
    high: float
    shape: tuple[int, ...]
    dtype: Any


@flax.struct.dataclass
class Viewed:
    """One episode: the environment's own state (which counts its steps), and the answers so far, [T], padded."""

    state: Any
    answers: jax.Array


class Step(NamedTuple):
    """What a step gives: the next observation and state, reward float32, truncated bool, and facts by name."""

    observation: Observation
    viewed: Viewed
    reward: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]


class View(Protocol):
    """The functions of one episode; static and hashable, so that equal views share compiled programs."""

    @property
    def num_items(self) -> int:
        """I."""

    @property
    def episode_length(self) -> int:
        """T; every episode ends there, by truncation."""

    @property
    def repeats(self) -> bool:
        """Whether items may come again."""

    def bounds(self) -> dict[str, Bounds]:
        """Returns the arrays of an observation."""

    def reset_at(self, start: jax.Array, params: Any) -> tuple[Observation, Viewed]:
        """Starts the episode numbered `start`."""

    def step(self, key: jax.Array, viewed: Viewed, action: jax.Array, params: Any) -> Step:
        """Recommends item `action`."""

    def start_of(self, viewed: Viewed) -> jax.Array:
        """Returns the number of the episode."""


@dataclass(frozen=True)
class RatingView:
    """The rating simulator: answers are the empirical rewards of ratings, 0 for an item that the user does not rate.

    Attributes:
        env: The simulator.
        least: Of the answers.
        greatest: Likewise.
    """

    env: RatingEnv
    least: float
    greatest: float

    @property
    def num_items(self) -> int:
        """I."""
        return self.env.num_items

    @property
    def episode_length(self) -> int:
        """T."""
        return self.env.episode_length

    @property
    def repeats(self) -> bool:
        """Whether items may come again."""
        return self.env.allow_repeats

    def bounds(self) -> dict[str, Bounds]:
        """Returns the arrays of an observation."""
        length = self.episode_length
        return {
            **_common_bounds(self),
            "answers": Bounds(min(self.least, 0.0), max(self.greatest, 0.0), (length,), np.float32),
            "status": Bounds(0.0, 1.0, (STATUS_SIZE,), np.float32),
        }

    def reset_at(self, start: jax.Array, params: Any) -> tuple[Observation, Viewed]:
        """Starts an episode with user `start`."""
        observation, state = self.env.reset_at(start, params)
        viewed = Viewed(state, jnp.zeros((self.episode_length,), jnp.float32))
        return self._observe(observation, viewed), viewed

    def step(self, key: jax.Array, viewed: Viewed, action: jax.Array, params: Any) -> Step:
        """Recommends an item; one that came before counts as not rated."""
        before = viewed.state
        observation, state, reward, _, truncated, info = self.env.step(key, before, action, params)
        viewed = Viewed(state, viewed.answers.at[before.step].set(info.answer))
        facts = {"answer": info.answer, "hit": info.hit, "repeated": info.repeated}
        return Step(self._observe(observation, viewed), viewed, reward, truncated, facts)

    def start_of(self, viewed: Viewed) -> jax.Array:
        """Returns the user."""
        return viewed.state.user

    def _observe(self, observation: Any, viewed: Viewed) -> Observation:
        return {
            "step": observation.step[None],
            "items": viewed.state.recommended,
            "answers": viewed.answers,
            "status": observation.status,
        }


@dataclass(frozen=True)
class SessionView:
    """The session simulator: answers are 0 (skip), 1 (click) and 2 (order).

    Attributes:
        env: The simulator.
        num_items: I, those that can be recommended.
        num_logged: J, those of the log; histories before test sessions may hold items beyond I.
        repeats: False: an item that came before is skipped.
    """

    env: SessionEnv
    num_items: int
    num_logged: int
    repeats: bool = False

    @property
    def episode_length(self) -> int:
        """T."""
        return self.env.episode_length

    def bounds(self) -> dict[str, Bounds]:
        """Returns the arrays of an observation."""
        history = Bounds(NO_ITEM, self.num_logged - 1, (self.env.history_length,), np.int32)
        return {
            **_common_bounds(self),
            "answers": Bounds(NO_FEEDBACK, ORDER, (self.episode_length,), np.int32),
            **dict.fromkeys(("browsed", "clicked", "ordered"), history),
        }

    def reset_at(self, start: jax.Array, params: Any) -> tuple[Observation, Viewed]:
        """Starts session `start`."""
        observation, state = self.env.reset_at(start, params)
        viewed = Viewed(state, jnp.full((self.episode_length,), NO_FEEDBACK, jnp.int32))
        return self._observe(observation, viewed), viewed

    def step(self, key: jax.Array, viewed: Viewed, action: jax.Array, params: Any) -> Step:
        """Recommends an item; the user skips one that came before."""
        before = viewed.state
        repeated = jnp.any(before.recommended == action)
        observation, state, _, _, truncated, info = self.env.step(key, before, action, params)
        skipped = self.env.answer(before, action, jnp.int32(SKIP), params)
        observation, state = jax.tree.map(
            lambda skip, answered: jnp.where(repeated, skip, answered), skipped, (observation, state)
        )
        feedback = jnp.where(repeated, SKIP, info.answer)
        viewed = Viewed(state, viewed.answers.at[before.step].set(feedback))
        facts = {"answer": feedback, "repeated": repeated}
        return Step(self._observe(observation, viewed), viewed, self.env.reward_of(feedback), truncated, facts)

    def start_of(self, viewed: Viewed) -> jax.Array:
        """Returns the session."""
        return viewed.state.start

    def _observe(self, observation: Any, viewed: Viewed) -> Observation:
        histories = observation.histories
        return {
            "step": observation.step[None],
            "items": observation.recommended,
            "answers": viewed.answers,
            "browsed": histories.browsed,
            "clicked": histories.clicked,
            "ordered": histories.ordered,
        }


def _common_bounds(view: View) -> dict[str, Bounds]:
    length = view.episode_length
    return {
        "step": Bounds(0, length, (1,), np.int32),
        "items": Bounds(NO_ITEM, view.num_items - 1, (length,), np.int32),
    }

"""The session simulator of the HRL-MG paper: a user skips, clicks or orders each recommendation.

A feedback model decides how the user answers: one learned from logs, the truth of a generator, or the log itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import chex
import flax.struct
import jax
import jax.numpy as jnp

from harness.settings import Count, NotNegative, SettingError
from sim.envs.histories import NO_ITEM, Histories, HistoryTable, add_feedback
from sim.envs.policy import Decision, Policy
from sim.tables.events import NUM_FEEDBACK

LEARNED, TRUTH = "learned", "truth"
"""Who answers in a session: the user model learned from the log, or the truth of the log's generator."""


@dataclass(frozen=True)
class SessionConfig:
    """Settings of the session simulator (`conf/env/session.yaml` explains each)."""

    episode_length: Count
    history_length: Count
    click_reward: NotNegative
    order_reward: NotNegative
    users: Literal["learned", "truth"] = "learned"

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.order_reward == self.click_reward == 0:
            raise SettingError(".click_reward and .order_reward are both 0", do="Give one of them a value.")


class FeedbackModel(Protocol):
    """How users answer, as pure functions of one session. `params` is a pytree of arrays."""

    def initial(self, params: Any, start: jax.Array) -> Any:
        """Returns the user's hidden state at the start of a session (a pytree; `()` if there is none)."""

    def probabilities(self, params: Any, hidden: Any, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [3] float32 probabilities of skip, click and order if `item` (int32) is shown now."""

    def update(self, params: Any, hidden: Any, item: jax.Array, feedback: jax.Array) -> Any:
        """Returns the hidden state after the answer (int32: 0 skip, 1 click, 2 order)."""


@flax.struct.dataclass
class SessionParams:
    """The tables of the simulator (traced).

    Attributes:
        table: The log that histories are read from.
        rows: [S] int32 row of the log before which session s begins (in a logged session, its first row).
        candidates: [S, L] int32 items that can be recommended in session s, padded with -1; None: all items.
        model: Parameters of the feedback model.
    """

    table: HistoryTable
    rows: jax.Array
    candidates: jax.Array | None
    model: Any


@flax.struct.dataclass
class SessionState:
    """One session (shapes without the batch axis that the rollout vmaps).

    Attributes:
        start: int32 number of the session.
        step: int32 recommendations made so far.
        recommended: [T] int32 items in the order recommended, -1 = not yet.
        histories: The user's last N items of each kind, [N] each.
        hidden: Hidden state of the feedback model.
    """

    start: jax.Array
    step: jax.Array
    recommended: jax.Array
    histories: Histories
    hidden: Any


@flax.struct.dataclass
class SessionObservation:
    """What a policy sees before a recommendation.

    Attributes:
        step: int32 recommendations made so far.
        recommended: [T] int32 items recommended so far in order, padded with -1.
        last_item: int32 item of the previous step, -1 before the first.
        histories: The user's last N items of each kind, [N] each.
        candidates: [L] int32 items to choose from, padded with -1; None: all items.
        hidden: Hidden state of the feedback model. Only generators and oracles may use it.
        row: int32 row of the log before which the session began; None without a log.
    """

    step: jax.Array
    recommended: jax.Array
    last_item: jax.Array
    histories: Histories
    candidates: jax.Array | None
    hidden: Any
    row: jax.Array | None = None


class SessionInfo(NamedTuple):
    """Details of one step: `feedback` int32 and the `probabilities` [3] float32 that it was drawn from."""

    feedback: jax.Array
    probabilities: jax.Array

    @property
    def answer(self) -> jax.Array:
        """What the user answered: `feedback`."""
        return self.feedback


@flax.struct.dataclass
class SessionTrajectory:
    """B sessions of T steps, time first.

    Attributes:
        item: [T, B] int32 recommended items.
        feedback: [T, B] int32 answers: 0 skip, 1 click, 2 order.
        reward: [T, B] float32 external rewards.
        probabilities: [T, B, 3] float32 probabilities that the answers were drawn from.
    """

    item: jax.Array
    feedback: jax.Array
    reward: jax.Array
    probabilities: jax.Array


@dataclass(frozen=True)
class SessionEnv:
    """The session simulator: pure functions of one session (gymnax 1.0 signature). Its fields are static.

    Attributes:
        model: How users answer.
        episode_length: T, recommendations per session (a truncation, not an end).
        history_length: N.
        click_reward: External reward of a click.
        order_reward: External reward of an order.
    """

    model: FeedbackModel
    episode_length: int
    history_length: int
    click_reward: float = 1.0
    order_reward: float = 5.0

    def reset(self, key: jax.Array, params: SessionParams) -> tuple[SessionObservation, SessionState]:
        """Starts a session drawn uniformly."""
        return self.reset_at(jax.random.randint(key, (), 0, params.rows.shape[0]), params)

    def reset_at(self, start: jax.Array, params: SessionParams) -> tuple[SessionObservation, SessionState]:
        """Starts session `start` (int32 scalar) with the histories of its user at that time."""
        chex.assert_rank(start, 0)
        state = SessionState(
            start=jnp.asarray(start, jnp.int32),
            step=jnp.int32(0),
            recommended=jnp.full((self.episode_length,), NO_ITEM, jnp.int32),
            histories=params.table.before(params.rows[start], self.history_length),
            hidden=self.model.initial(params.model, start),
        )
        return self.observe(state, params), state

    def step(
        self, key: jax.Array, state: SessionState, action: jax.Array, params: SessionParams
    ) -> tuple[SessionObservation, SessionState, jax.Array, jax.Array, jax.Array, SessionInfo]:
        """Recommends item `action` and samples the user's answer.

        Args:
            key: Random key of the answer.
            state: State before the step.
            action: int32 item in [0, I).
            params: The simulator's tables.

        Returns:
            Observation, state, reward (float32), terminated (always False), truncated (True at step T) and SessionInfo.
        """
        chex.assert_rank(action, 0)
        probabilities = self.model.probabilities(params.model, state.hidden, state.histories, action)
        # Sample the answer (inverse CDF): an answer of probability 1 is given whatever the draw.
        feedback = jnp.sum(jax.random.uniform(key) >= jnp.cumsum(probabilities)[: NUM_FEEDBACK - 1], dtype=jnp.int32)
        observation, next_state = self.answer(state, action, feedback, params)
        truncated = next_state.step >= self.episode_length
        info = SessionInfo(feedback, probabilities)
        return observation, next_state, self.reward_of(feedback), jnp.bool_(False), truncated, info

    def answer(
        self, state: SessionState, item: jax.Array, answer: jax.Array, params: SessionParams
    ) -> tuple[SessionObservation, SessionState]:
        """Takes a step with an answer that is given, as by a real user; see `step`.

        Args:
            state: State before the step.
            item: int32 item that was recommended.
            answer: int32 feedback: 0 skip, 1 click, 2 order.
            params: The simulator's tables.
        """
        next_state = SessionState(
            start=state.start,
            step=state.step + 1,
            recommended=state.recommended.at[state.step].set(item),
            histories=add_feedback(state.histories, item, answer),
            hidden=self.model.update(params.model, state.hidden, item, answer),
        )
        return self.observe(next_state, params), next_state

    def reward_of(self, feedback: jax.Array) -> jax.Array:
        """Returns float32 external rewards of answers (any shape): 0, `click_reward`, `order_reward`."""
        return jnp.asarray([0.0, self.click_reward, self.order_reward], jnp.float32)[feedback]

    def observe(self, state: SessionState, params: SessionParams) -> SessionObservation:
        """Returns what a policy sees in a state."""
        return SessionObservation(
            step=state.step,
            recommended=state.recommended,
            last_item=state.recommended[jnp.maximum(state.step - 1, 0)],  # -1 before the first step
            histories=state.histories,
            candidates=None if params.candidates is None else params.candidates[state.start],
            hidden=state.hidden,
            row=params.rows[state.start],
        )

    def prepare(self, policy: Policy) -> Policy:
        """Returns the policy unchanged."""
        return policy

    def record(
        self, observation: SessionObservation, decision: Decision, reward: jax.Array, info: SessionInfo
    ) -> SessionTrajectory:
        """Returns one step of a trajectory."""
        return SessionTrajectory(decision.action, info.feedback, reward, info.probabilities)


@dataclass(frozen=True)
class LoggedFeedback:
    """The log as a feedback model: every candidate of a session gets its logged answer (Alg. 4).

    Its parameters are (candidates [S, L] int32, feedback [S, L] int8); the hidden state is the session's number.
    """

    def initial(self, params: tuple[jax.Array, jax.Array], start: jax.Array) -> jax.Array:
        """Returns the number of the session."""
        return jnp.asarray(start, jnp.int32)

    def probabilities(
        self, params: tuple[jax.Array, jax.Array], hidden: jax.Array, histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns probability 1 for the logged answer, or for a skip if the item was not shown."""
        candidates, feedback = params
        shown = candidates[hidden] == item
        answer = jnp.sum(jnp.where(shown, feedback[hidden], 0))
        return jax.nn.one_hot(answer, NUM_FEEDBACK)

    def update(
        self, params: tuple[jax.Array, jax.Array], hidden: jax.Array, item: jax.Array, feedback: jax.Array
    ) -> jax.Array:
        """Returns the number of the session."""
        return hidden

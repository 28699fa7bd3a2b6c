"""The online training of both levels (Algorithm 2), or of the low level alone: many sessions side by side."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from pydantic import Field

from harness.settings import Count, CountOrZero, Finite, NotNegative, Positive, SettingError, Share
from harness.training.replay import Replay, add_rows, make_replay, sample_rows
from hrlmg_jax.agent.ddpg import Batch, LevelConfig, LevelState, OptimizerConfig
from hrlmg_jax.agent.goals import intrinsic_reward
from hrlmg_jax.agent.policy import ActingParams, OneLevelPolicy, TwoLevelPolicy
from hrlmg_jax.agent.training_sessions import begin_sessions, play_metrics, restarted
from hrlmg_jax.agent.transitions import HighTransition, LowTransition, low_batch, low_transition, push
from hrlmg_jax.agent.windows import add_step, goal_in_force, high_transition
from hrlmg_jax.retrieval.index import ItemIndex
from sim.envs.rollout import Episodes, advance
from sim.envs.session_env import SessionEnv, SessionParams, SessionTrajectory
from sim.tables.events import ORDER


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of Algorithm 2 (`conf/agent/hrl_mg.yaml` explains each)."""

    sessions: Count
    warm_up_steps: CountOrZero
    batch_size: Count
    high_batch_size: Count
    replay_capacity: Count
    high_replay_capacity: Count
    gamma: Annotated[Finite, Field(ge=0, lt=1)]
    tau: Annotated[Finite, Field(gt=0, le=1)]
    actor_rate: Positive
    critic_rate: Positive
    clip_norm: Positive
    action_noise: NotNegative
    target_action: Literal["item", "proto"]
    terminal: Literal["bootstrap", "zero"]
    epsilon: Share = 0.0

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        for key in ("replay_capacity", "high_replay_capacity"):
            if getattr(self, key) < self.sessions:
                raise SettingError(
                    f".{key} is {getattr(self, key)}, less than .sessions ({self.sessions})",
                    do="A step adds a transition per session; give more room.",
                )

    @property
    def level(self) -> LevelConfig:
        """How each of the levels learns."""
        optimizer = OptimizerConfig(self.actor_rate, self.critic_rate, self.clip_norm)
        return LevelConfig(optimizer, self.tau, self.gamma, self.terminal == "bootstrap")


@flax.struct.dataclass
class World:
    """What training reads on the device.

    Attributes:
        env: The simulator's tables; sessions begin as the training log's did.
        index: The items.
        cumulative: [I] cumulative frequency of the items in the training log.
    """

    env: SessionParams
    index: ItemIndex
    cumulative: jax.Array


@flax.struct.dataclass
class Best:
    """The actors that did best on validation users, how well (reward per session) and after how many steps."""

    low: Any
    high: Any
    reward: jax.Array
    step: jax.Array


@flax.struct.dataclass
class HrlState:
    """Everything that training changes.

    Attributes:
        low: Networks and optimisers of the low level.
        high: Of the high level; None without one.
        low_replay: D^l.
        high_replay: D^h, or None.
        episodes: The running sessions, their windows as the policy's carry.
        best: The actors to keep.
        step: int32 training steps done.
        key: Key of the run; step n uses `fold_in(key, n)`, so that a resumed run repeats exactly.
    """

    low: LevelState
    high: LevelState | None
    low_replay: Replay
    high_replay: Replay | None
    episodes: Episodes
    best: Best
    step: jax.Array
    key: jax.Array


class PlayedStep(NamedTuple):
    """One step of all sessions (Algorithm 2, lines 8 to 21).

    Attributes:
        episodes: The sessions after it.
        played: What was recommended, and the answers.
        truncated: [B] bool, the session ended with it.
        low: The transition of the low level.
        high: The windows; None without a high level.
        window_ends: [B] bool, whose window ended with the step; None likewise.
    """

    episodes: Episodes
    played: SessionTrajectory
    truncated: jax.Array
    low: LowTransition
    high: HighTransition | None = None
    window_ends: jax.Array | None = None


@dataclass(frozen=True)
class Learner(ABC):
    """Algorithm 2 as pure functions, with or without a high level.

    Attributes:
        env: The simulator; its episode length is that of training sessions.
        policy: What acts and learns.
        config: Learner settings.
        period: c; the first sessions begin at multiples of it, so that they do not all end together.
    """

    env: SessionEnv
    policy: OneLevelPolicy | TwoLevelPolicy
    config: LearnerConfig
    period: int

    def init(self, key: jax.Array, world: World) -> HrlState:
        """Returns the state before the first step (lines 1 to 6).

        The low level's parameters do not depend on the high level's, nor on whether there is one.
        """
        low_key, high_key, start_key, run_key = jax.random.split(key, 4)
        low = self.policy.low.init(low_key)
        high = self.policy.high.init(high_key) if isinstance(self.policy, TwoLevelPolicy) else None
        acting = self._acting(low, high, world, jnp.bool_(True))
        sessions = self.config.sessions, self.period
        episodes = begin_sessions(self.env, world.env, self.policy.as_policy(), acting, *sessions, start_key)
        step = jax.eval_shape(self._play, acting, episodes, start_key, world)
        return HrlState(
            low=low,
            high=high,
            low_replay=_empty_replay(step.low, self.config.replay_capacity),
            high_replay=_empty_replay(step.high, self.config.high_replay_capacity) if step.high else None,
            episodes=episodes,
            best=Best(acting.low, acting.high, jnp.float32(-jnp.inf), jnp.int32(0)),
            step=jnp.int32(0),
            key=run_key,
        )

    def acting_params(self, state: HrlState, world: World) -> ActingParams:
        """Returns what the best actors so far act with."""
        return _params(state.best.low, state.best.high, world, jnp.bool_(False))

    def current_params(self, state: HrlState, world: World) -> ActingParams:
        """Returns what the actors act with as they are now."""
        return self._acting(state.low, state.high, world, jnp.bool_(False))

    def with_levels(self, state: HrlState, params: dict[str, Any]) -> HrlState:
        """Returns a state that has learned nothing with other parameters; targets and the actors to keep follow them.

        Args:
            params: As `levels_of` returns them.
        """
        low = _with_params(state.low, params["low"])
        high = None if state.high is None else _with_params(state.high, params["high"])
        actors = jax.tree.map(jnp.copy, (self.policy.low.deciding(low), _actor_of(high)))
        best = dataclasses.replace(state.best, low=actors[0], high=actors[1])
        return dataclasses.replace(state, low=low, high=high, best=best)

    def keep_best(self, state: HrlState, reward: float) -> HrlState:
        """Returns the state with the present actors as the best, if `reward` (on validation users) says so."""
        if not reward > float(state.best.reward):
            return state
        actors = self.policy.low.deciding(state.low), _actor_of(state.high)
        # Copies, because the state's own arrays are donated to the next chunk.
        low, high, step = jax.tree.map(jnp.copy, (*actors, state.step))
        return dataclasses.replace(state, best=Best(low=low, high=high, reward=jnp.float32(reward), step=step))

    def train_step(self, state: HrlState, world: World) -> tuple[HrlState, dict[str, jax.Array]]:
        """Takes one step in every session and updates each level once: Algorithm 2, lines 4 to 29.

        Returns:
            The next state and scalar metrics: those of `play_metrics`; with a high level the mean r^in; and per level
            (`low_`, `high_`) losses, Q means, saturation and gradient norms, or of a high level with a memory loss, Q
            means, gradient norms and the weights of its goals.
        """
        key = jax.random.fold_in(state.key, state.step)
        play_key, start_key, low_key, high_key = (jax.random.fold_in(key, number) for number in range(4))
        warming_up = state.step < self.config.warm_up_steps

        # Stage 1, lines 9 to 16: goals where a window begins, a recommendation, its answer and reward.
        acting = self._acting(state.low, state.high, world, warming_up)
        step = self._play(acting, state.episodes, play_key, world)

        # Lines 17 to 24: store the step in D^l, and with a high level its windows in D^h, from which that learns.
        low_replay = add_rows(state.low_replay, step.low, jnp.ones_like(step.truncated))
        state, high_metrics = self._learn_goals(state, step, warming_up, high_key, world)

        # Lines 25 to 27: LCritic, LActor and their targets.
        rows = sample_rows(low_replay, low_key, self.config.batch_size)
        low, low_metrics = update_unless(
            warming_up,
            lambda level: self.policy.low.update(level, self.low_batch(rows, world), world.index),
            state.low,
        )

        # Lines 4 to 6: sessions that have ended give way to new ones. Their windows are renewed at step 0 anyway.
        episodes = restarted(self.env, world.env, step.episodes, step.truncated, start_key)
        next_state = dataclasses.replace(state, low=low, low_replay=low_replay, episodes=episodes, step=state.step + 1)
        metrics = play_metrics(step.played, self.env.episode_length)
        return next_state, metrics | _named("low", low_metrics) | high_metrics

    @abstractmethod
    def low_batch(self, rows: LowTransition, world: World) -> Batch:
        """Returns transitions as arrays, with rewards and what the low level sees besides the histories."""

    def _low_batch(self, rows: LowTransition, world: World, intrinsic_weight: float) -> Batch:
        external = self.env.reward_of(rows.feedback.astype(jnp.int32))
        discount = self.config.level.discount(rows.truncated)
        return low_batch(rows, external, intrinsic_weight, discount, world.index.embedding)

    @abstractmethod
    def _play(self, acting: ActingParams, episodes: Episodes, key: jax.Array, world: World) -> PlayedStep:
        """Takes a step in every session (stage 1); the windows in `episodes` hold it."""

    def _learn_goals(
        self, state: HrlState, step: PlayedStep, warming_up: jax.Array, key: jax.Array, world: World
    ) -> tuple[HrlState, dict[str, jax.Array]]:
        """Returns the state with the step's windows stored and the high level updated, if there is one; and metrics."""
        return state, {}

    def _acting(self, low: LevelState, high: LevelState | None, world: World, warming_up: jax.Array) -> ActingParams:
        return _params(self.policy.low.deciding(low), _actor_of(high), world, warming_up)


@dataclass(frozen=True)
class OneLevelLearner(Learner):
    """The low level alone (DDPG, or DNN)."""

    policy: OneLevelPolicy

    def low_batch(self, rows: LowTransition, world: World) -> Batch:
        """Returns transitions as arrays: external rewards, and what is remembered of the users if anything is."""
        batch, memory = self._low_batch(rows, world, 0.0), self.policy.memory
        if memory is None:
            return batch
        assert rows.ordered is not None
        look_up = partial(memory.directions, world.env.table, rows.row, embedding=world.index.embedding)
        next_ordered = push(rows.ordered, rows.item, rows.feedback >= ORDER)
        return dataclasses.replace(
            batch,
            directions=look_up(rows.clicked, rows.ordered),
            next_directions=look_up(batch.next_state[1], next_ordered),
        )

    def _play(self, acting: ActingParams, episodes: Episodes, key: jax.Array, world: World) -> PlayedStep:
        before = episodes.observation
        episodes, played = advance(self.env, world.env, self.policy.as_policy(), acting, episodes, key, explore=True)
        truncated = before.step + 1 >= self.env.episode_length
        transition = low_transition(before, played, truncated, jnp.zeros(truncated.shape))
        if self.policy.memory is not None:
            transition = dataclasses.replace(transition, ordered=before.histories.ordered, row=before.row)
        return PlayedStep(episodes, played, truncated, transition)


@dataclass(frozen=True)
class TwoLevelLearner(Learner):
    """Both levels; what the high level does is the policy's."""

    policy: TwoLevelPolicy

    def _learn_goals(
        self, state: HrlState, step: PlayedStep, warming_up: jax.Array, key: jax.Array, world: World
    ) -> tuple[HrlState, dict[str, jax.Array]]:
        assert state.high is not None
        assert state.high_replay is not None
        assert step.window_ends is not None
        # Line 21: store the windows that end with the step in D^h.
        replay = add_rows(state.high_replay, step.high, step.window_ends)
        # Stage 2, lines 23, 24 and 27: HCritic, HActor and their targets, once a window has ended. Frozen goals, the
        # control for every claim about goals, never learn.
        windows = sample_rows(replay, key, self.config.high_batch_size)
        high, metrics = update_unless(
            warming_up | (replay.size == 0),
            lambda level: self.policy.high.update(level, windows, world.index.embedding, world.env.table),
            state.high,
            self.policy.goals.frozen,
        )
        metrics = _named("high", metrics | self.policy.high.report(high))
        metrics["intrinsic_reward"] = jnp.mean(step.low.intrinsic_reward)
        return dataclasses.replace(state, high=high, high_replay=replay), metrics

    def low_batch(self, rows: LowTransition, world: World) -> Batch:
        """Returns transitions as arrays: r^low = r^ex + alpha r^in (Eq. 3), and goals where the low level sees them."""
        batch = self._low_batch(rows, world, self.policy.goals.intrinsic_weight)
        if rows.goal is None or rows.next_goal is None:
            return batch
        return dataclasses.replace(batch, directions=rows.goal[:, None], next_directions=rows.next_goal[:, None])

    def _play(self, acting: ActingParams, episodes: Episodes, key: jax.Array, world: World) -> PlayedStep:
        """Takes a step in every session (stage 1); the windows in `episodes` hold it."""
        goals, before = self.policy.goals, episodes.observation
        # Lines 9 to 16: goals, item, answer.
        episodes, played = advance(self.env, world.env, self.policy.as_policy(), acting, episodes, key, explore=True)
        truncated = before.step + 1 >= self.env.episode_length
        action = acting.index.embedding[played.item]
        goal = goal_in_force(episodes.carry, before.step, goals)
        # Line 17: the low-level transition, with r^in (Eq. 12).
        low = low_transition(before, played, truncated, intrinsic_reward(action, goal))
        # Line 20: rewards (and actions) by stage, and the window as a transition.
        window = add_step(episodes.carry, before.step, action, played.reward, goals)
        episodes = episodes._replace(carry=window)
        after, row = episodes.observation.histories, self.policy.high.log_row(before)
        high, window_ends = high_transition(window, before.step, truncated, after, row, goals)
        if goals.conditioned:
            low = dataclasses.replace(low, goal=goal, next_goal=self._next_goal(acting, before.step, episodes))
        return PlayedStep(episodes, played, truncated, low, high, window_ends)

    def _next_goal(self, acting: ActingParams, step: jax.Array, episodes: Episodes) -> jax.Array:
        """Returns [B, E] the goal in force after step [B]: where a window begins then, HActor's first without noise."""
        goals, window = self.policy.goals, episodes.carry
        begins = (step + 1) % goals.period == 0
        fresh = jax.lax.cond(
            jnp.any(begins),
            lambda: self.policy.set_goals(acting, episodes.observation)[:, 0],
            lambda: jnp.zeros_like(window.goals[:, 0]),
        )
        return jnp.where(begins[:, None], fresh, goal_in_force(window, step + 1, goals))


def update_unless(
    skip: jax.Array,
    update: Callable[[LevelState], tuple[LevelState, dict[str, jax.Array]]],
    level: LevelState,
    frozen: bool = False,
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Returns `update(level)`, or, always for a frozen one, the level as it is with metrics of 0."""
    shapes = jax.eval_shape(update, level)[1]

    def zeros() -> dict[str, jax.Array]:
        return {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}

    nothing = zeros()
    return jax.lax.cond(
        skip, lambda level: (level, nothing), (lambda level: (level, zeros())) if frozen else update, level
    )


def _empty_replay(rows: Any, capacity: int) -> Replay:
    """Returns a memory for transitions like those of a step, [B, ...] each."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    return make_replay(example, capacity)


def _params(low: Any, high: Any, world: World, warming_up: jax.Array) -> ActingParams:
    return ActingParams(low, high, world.index, world.env.table, world.cumulative, warming_up)


def _with_params(level: LevelState, params: Any) -> LevelState:
    return dataclasses.replace(level, params=params, target=jax.tree.map(jnp.copy, params))


def levels_of(state: HrlState) -> dict[str, Any]:
    """Returns the parameters of each level, "low" and, if there is one, "high"."""
    levels = {"low": state.low, "high": state.high}
    return {name: level.params for name, level in levels.items() if level is not None}


def _actor_of(high: LevelState | None) -> Any:
    return None if high is None else high.params["actor"]


def _named(level: str, metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {f"{level}_{name}": value for name, value in metrics.items()}

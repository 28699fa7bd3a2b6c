"""High levels that a learner with goals is built with: the paper's, and one with a memory."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax

from hrlmg_jax.agent.ddpg import Batch, LevelConfig, LevelState, init_level, update_level
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.memory import Memory
from hrlmg_jax.agent.memory_critic import MemoryActorCritic, update_memory_level
from hrlmg_jax.agent.networks import ActorCritic
from hrlmg_jax.agent.transitions import HighTransition, high_batch
from sim.envs.histories import HistoryTable
from sim.envs.session_env import SessionObservation

Networks = TypeVar("Networks", ActorCritic, MemoryActorCritic)


@dataclass(frozen=True)
class HighLevel(ABC, Generic[Networks]):
    """Sets M goals every c steps, and learns from the windows in which they were in force.

    Attributes:
        networks: M heads, or goals.
        config: How they learn.
        goals: Settings of the goals.
    """

    networks: Networks
    config: LevelConfig
    goals: GoalConfig

    def init(self, key: jax.Array) -> LevelState:
        """Returns a level that has learned nothing."""
        return init_level(self.networks.init(key), self.config.optimizer)

    @abstractmethod
    def act(self, actor: Any, observation: SessionObservation, embedding: jax.Array, table: HistoryTable) -> jax.Array:
        """Returns goals [B, M, E].

        Args:
            actor: HActor's parameters.
            embedding: [J, E] items.
        """

    def perturb(self, goals: jax.Array, key: jax.Array) -> jax.Array:
        """Returns goals with Gaussian noise, for exploration."""
        return self.networks.perturb(goals, self.goals.noise, key)

    def log_row(self, observation: SessionObservation) -> jax.Array | None:
        """Returns what a transition keeps to look the user up in the log, [B] int32; None for nothing."""
        return None

    @abstractmethod
    def update(
        self, level: LevelState, rows: HighTransition, embedding: jax.Array, table: HistoryTable
    ) -> tuple[LevelState, dict[str, jax.Array]]:
        """Returns the level after one update on B windows, and metrics."""

    def report(self, level: LevelState) -> dict[str, jax.Array]:
        """Returns metrics of the level as it is, whether it learns or not."""
        return {}


@dataclass(frozen=True)
class LearnedGoals(HighLevel[ActorCritic]):
    """HActor and HCritic of the paper (Eq. 4 to 7), trained by DDPG."""

    def act(self, actor: Any, observation: SessionObservation, embedding: jax.Array, table: HistoryTable) -> jax.Array:
        """Returns goals [B, M, E] from clicked and ordered items (Eq. 4, 5)."""
        histories = observation.histories
        return self.networks.act(actor, histories.clicked, histories.ordered, embedding, None).vector

    def batch(self, rows: HighTransition) -> Batch:
        """Returns windows as arrays."""
        return high_batch(rows, self.goals, self.config.gamma, self.config.discount(rows.truncated))

    def update(
        self, level: LevelState, rows: HighTransition, embedding: jax.Array, table: HistoryTable
    ) -> tuple[LevelState, dict[str, jax.Array]]:
        """Updates HCritic and HActor (Eq. 17, 18), then the targets."""
        return update_level(self.networks, self.config, level, self.batch(rows), embedding, lambda goals: goals)


@dataclass(frozen=True)
class MemoryGoals(HighLevel[MemoryActorCritic]):
    """Goals made from what is remembered of the user (not in the paper; see `hrlmg_jax.agent.memory_critic`).

    Attributes:
        memory: What is remembered.
    """

    memory: Memory

    def act(self, actor: Any, observation: SessionObservation, embedding: jax.Array, table: HistoryTable) -> jax.Array:
        """Returns goals [B, M, E], weighted sums of directions."""
        histories = observation.histories
        directions = self.memory.directions(table, observation.row, histories.clicked, histories.ordered, embedding)
        return self.networks.act(actor, directions)

    def log_row(self, observation: SessionObservation) -> jax.Array | None:
        """Returns the rows before which the sessions began."""
        return observation.row

    def batch(self, rows: HighTransition, embedding: jax.Array, table: HistoryTable) -> Batch:
        """Returns windows as arrays; rewards are per step, so that the few weights are of order 1."""
        batch = high_batch(rows, self.goals, self.config.gamma, self.config.discount(rows.truncated))
        return dataclasses.replace(
            batch,
            reward=batch.reward / self.goals.period,
            directions=self.memory.directions(table, rows.row, *batch.state, embedding),
            next_directions=self.memory.directions(table, rows.row, *batch.next_state, embedding),
        )

    def update(
        self, level: LevelState, rows: HighTransition, embedding: jax.Array, table: HistoryTable
    ) -> tuple[LevelState, dict[str, jax.Array]]:
        """Updates the critic and its weights of the directions, then the targets."""
        return update_memory_level(self.networks, self.config, level, self.batch(rows, embedding, table), embedding)

    def report(self, level: LevelState) -> dict[str, jax.Array]:
        """Returns the weights of the goals."""
        return self.networks.named_weights(level.params["actor"])

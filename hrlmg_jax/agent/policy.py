"""How agents act: the low level recommends an item at every step; a high level, if any, sets goals every c steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.high_levels import HighLevel
from hrlmg_jax.agent.low_levels import LowLevel, Situation
from hrlmg_jax.agent.memory import Memory
from hrlmg_jax.agent.windows import Window, goal_in_force, new_window
from hrlmg_jax.retrieval.index import ItemIndex
from sim.envs.available_items import draw_item
from sim.envs.histories import HistoryTable
from sim.envs.policy import Decision, Policy, Ranking
from sim.envs.session_env import SessionObservation

_WARM_UP_DRAWS = 16


@flax.struct.dataclass
class ActingParams:
    """What acting needs.

    Attributes:
        low: Parameters that the low level decides with.
        high: Parameters of HActor; None without a high level.
        index: The items.
        table: The log, which a memory is read from.
        cumulative: [I] float32 cumulative frequency of the items in the training log, for the warm-up.
        warming_up: bool scalar: recommend items as frequent in the log instead (only when exploring).
    """

    low: Any
    high: Any
    index: ItemIndex
    table: HistoryTable
    cumulative: jax.Array
    warming_up: jax.Array


@dataclass(frozen=True)
class OneLevelPolicy:
    """The low level alone: DDPG, or DNN.

    Attributes:
        low: The low level.
        epsilon: Share of uniformly drawn items when exploring.
        memory: What the low level sees of the user besides the histories; None for nothing.
    """

    low: LowLevel
    epsilon: float = 0.0
    memory: Memory | None = None

    def as_policy(self) -> Policy:
        """Returns what a rollout plays; its carry is empty."""
        return Policy(lambda params, batch_size: (), self._act, self._rank, score=self.low.score)

    def _act(
        self, params: ActingParams, carry: tuple[()], observation: SessionObservation, key: jax.Array, explore: bool
    ) -> tuple[tuple[()], Decision]:
        return carry, _recommend(self.low, self.epsilon, params, self._situation(params, observation), key, explore)

    def _rank(
        self, params: ActingParams, carry: tuple[()], observation: SessionObservation, k: int, available: jax.Array
    ) -> Ranking:
        return self.low.rank(params.low, self._situation(params, observation), k, available)

    def _situation(self, params: ActingParams, observation: SessionObservation) -> Situation:
        directions = None
        if self.memory is not None:
            clicked, ordered = observation.histories.clicked, observation.histories.ordered
            directions = self.memory.directions(params.table, observation.row, clicked, ordered, params.index.embedding)
        return Situation(observation, directions, params.index)


@dataclass(frozen=True)
class TwoLevelPolicy:
    """Both levels of HRL-MG.

    Attributes:
        low: The low level.
        high: What sets goals.
        goals: Settings of the goals.
        history_length: N.
        embedding_size: E.
        epsilon: Share of uniformly drawn items when exploring.
    """

    low: LowLevel
    high: HighLevel[Any]
    goals: GoalConfig
    history_length: int
    embedding_size: int
    epsilon: float = 0.0

    def as_policy(self) -> Policy:
        """Returns what a rollout plays; its carry are the windows.

        Greedy, it is Algorithm 3: no noise, and no high level unless the low level sees its goals.
        """
        return Policy(self._initial_window, self._act, self._rank, score=self.low.score)

    def _initial_window(self, params: ActingParams, batch_size: int) -> Window:
        goals = jnp.zeros((batch_size, self.goals.count, self.embedding_size))
        history = jnp.full((batch_size, self.history_length), -1, jnp.int32)
        return new_window(goals, history, history)

    def _act(
        self, params: ActingParams, window: Window, observation: SessionObservation, key: jax.Array, explore: bool
    ) -> tuple[Window, Decision]:
        if explore or self.goals.conditioned:
            window = self._renewed(params, window, observation, jax.random.fold_in(key, 1) if explore else None)
        situation = self._situation(params, window, observation)
        return window, _recommend(self.low, self.epsilon, params, situation, key, explore)

    def _rank(
        self, params: ActingParams, window: Window, observation: SessionObservation, k: int, available: jax.Array
    ) -> Ranking:
        if self.goals.conditioned:
            window = self._renewed(params, window, observation, None)
        return self.low.rank(params.low, self._situation(params, window, observation), k, available)

    def _situation(self, params: ActingParams, window: Window, observation: SessionObservation) -> Situation:
        """Returns what the low level sees, the goals in force as directions if it sees them."""
        goal = goal_in_force(window, observation.step, self.goals)[:, None] if self.goals.conditioned else None
        return Situation(observation, goal, params.index)

    def set_goals(self, params: ActingParams, observation: SessionObservation) -> jax.Array:
        """Returns HActor's goals [B, M, E], without noise."""
        return self.high.act(params.high, observation, params.index.embedding, params.table)

    def _renewed(
        self, params: ActingParams, window: Window, observation: SessionObservation, key: jax.Array | None
    ) -> Window:
        """Begins a window in the sessions whose step is a multiple of c (Algorithm 2, lines 9 to 13)."""
        begins = observation.step % self.goals.period == 0

        def renew(window: Window) -> Window:
            goals = self.set_goals(params, observation)
            if key is not None:
                goals = self.high.perturb(goals, key)
            new = new_window(goals, observation.histories.clicked, observation.histories.ordered)
            return jax.tree.map(lambda a, b: jnp.where(begins.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, window)

        # Sessions whose phases differ by multiples of c renew together: the high level runs once in c steps.
        return jax.lax.cond(jnp.any(begins), renew, lambda window: window, window)


def _recommend(
    low: LowLevel, epsilon: float, params: ActingParams, situation: Situation, key: jax.Array, explore: bool
) -> Decision:
    """Returns the low level's items; exploring, some are drawn, and all of them in the warm-up."""
    low_key, warm_key, epsilon_key = (jax.random.fold_in(key, number) for number in (0, 2, 3))
    item = low.act(params.low, situation, low_key if explore else None)
    if explore and epsilon:
        item = _epsilon_greedy(item, epsilon, params.index.num_items, situation.observation, epsilon_key)
    if explore:
        drawn, fresh = _drawn_by_frequency(params.cumulative, situation.observation, warm_key)
        item = jnp.where(params.warming_up & fresh, drawn, item)
    return Decision(item, jnp.zeros(item.shape))


def _epsilon_greedy(
    item: jax.Array, epsilon: float, num_items: int, observation: SessionObservation, key: jax.Array
) -> jax.Array:
    """Returns [B] int32 items, a share of them replaced by others drawn uniformly from those not recommended yet."""
    whether_key, which_key = jax.random.split(key)
    drawn = draw_item(which_key, observation.step, observation.recommended, num_items)
    return jnp.where(jax.random.bernoulli(whether_key, epsilon, item.shape), drawn, item)


def _drawn_by_frequency(
    cumulative: jax.Array, observation: SessionObservation, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draws [B] int32 items by their frequency in the log; False where all draws had been recommended before."""
    shape = (observation.step.shape[0], _WARM_UP_DRAWS)
    drawn = jnp.searchsorted(cumulative, jax.random.uniform(key, shape) * cumulative[-1], side="right")
    drawn = jnp.minimum(drawn, cumulative.shape[0] - 1).astype(jnp.int32)
    fresh = ~jnp.any(drawn[:, :, None] == observation.recommended[:, None, :], -1)
    first = jnp.take_along_axis(drawn, jnp.argmax(fresh, -1)[:, None], 1)[:, 0]
    return first, jnp.any(fresh, -1)

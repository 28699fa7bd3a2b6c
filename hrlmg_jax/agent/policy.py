"""How the two levels act: the high level sets goals every c steps, the low level proposes an item at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hrlmg_jax.agent.goals import GoalConfig, remembered, stage_of
from hrlmg_jax.agent.memory_critic import MemoryActorCritic
from hrlmg_jax.agent.networks import ActorCritic, NetworkConfig, Proposal
from hrlmg_jax.agent.windows import Window
from hrlmg_jax.retrieval.index import ItemIndex, nearest_item
from hrlmg_jax.retrieval.item_scores import best_scored_item
from sim.envs.available_items import draw_item
from sim.envs.histories import HistoryTable
from sim.envs.policy import Decision, Policy
from sim.envs.session_env import SessionObservation

_WARM_UP_DRAWS = 16
ACTOR, CRITIC = "actor", "critic"
"""Who decides at the low level."""


@flax.struct.dataclass
class ActingParams:
    """What acting needs.

    Attributes:
        low: Parameters of LActor, or of LCritic where that decides.
        high: Parameters of HActor; None without a high level.
        index: The items.
        table: The log that the memory is read from; None for none.
        cumulative: [I] float32 cumulative frequency of the items in the training log, for the warm-up.
        warming_up: bool scalar: recommend items as frequent in the log instead (only when exploring).
    """

    low: Any
    high: Any
    index: ItemIndex
    table: HistoryTable | None
    cumulative: jax.Array
    warming_up: jax.Array


@dataclass(frozen=True)
class TwoLevelPolicy:
    """LActor (Eq. 9) and, where there are goals, HActor (Eq. 5); or LCritic alone.

    Attributes:
        low: Networks of the low level.
        high: Networks of the high level; None is DDPG.
        goals: Settings of the goals.
        action_noise: Standard deviation of the Gaussian noise on each coordinate of a proto-action when exploring.
        history_length: N.
        decides: "actor": the item nearest to LActor's proposal; "critic": the item that LCritic values most (DNN).
        epsilon: Share of uniformly drawn items when exploring.
    """

    low: ActorCritic
    high: ActorCritic | MemoryActorCritic | None
    goals: GoalConfig
    action_noise: float
    history_length: int
    decides: str = ACTOR
    epsilon: float = 0.0

    def as_policy(self) -> Policy:
        """Returns what a rollout plays. Greedy, it is Algorithm 3: no noise, and no high level unless conditioned."""
        return Policy(self._initial_window, self._act)

    def _initial_window(self, params: ActingParams, batch_size: int) -> Window | tuple[()]:
        if self.high is None:
            return ()
        vectors = jnp.zeros((batch_size, self.goals.count, self.low.embedding_size))
        history = jnp.full((batch_size, self.history_length), -1, jnp.int32)
        return Window(vectors, history, history, vectors[..., 0], vectors)

    def _act(
        self,
        params: ActingParams,
        window: Window | tuple[()],
        observation: SessionObservation,
        key: jax.Array,
        explore: bool,
    ) -> tuple[Window | tuple[()], Decision]:
        low_key, high_key, warm_key, epsilon_key = (jax.random.fold_in(key, number) for number in range(4))
        if self.high is not None and (explore or self.goals.conditioned):
            assert isinstance(window, Window)
            window = self._renewed(params, window, observation, high_key if explore else None)
        item = self._decide(params, window, observation, low_key if explore else None)
        if explore and self.epsilon:
            item = _sometimes_drawn(item, self.epsilon, params.index.num_items, observation, epsilon_key)
        if explore:
            drawn, found = _drawn_by_frequency(params.cumulative, observation, warm_key)
            item = jnp.where(params.warming_up & found, drawn, item)
        return window, Decision(item, jnp.zeros(item.shape))

    def _decide(
        self, params: ActingParams, window: Window | tuple[()], observation: SessionObservation, key: jax.Array | None
    ) -> jax.Array:
        """Returns the low level's [B] int32 items; with a key, of proto-actions with noise."""
        if self.decides == CRITIC:
            return self._most_valued(params, observation)
        proto = self.propose_action(params, observation, self._seen(params, window, observation)).vector[:, 0]
        if key is not None:
            proto = self.low.perturb(proto, self.action_noise, key)
        return nearest_item(proto, observation, params.index)

    def _seen(
        self, params: ActingParams, window: Window | tuple[()], observation: SessionObservation
    ) -> jax.Array | None:
        """Returns the vectors [B, K, E] that the low level sees besides its histories, if any."""
        if self.goals.conditioned:
            return self.active_goal(window, observation.step)[:, None]
        if self.goals.enabled or not self.goals.memory:
            return None
        clicked, ordered = observation.histories.clicked, observation.histories.ordered
        return self.remember(params.table, observation.row, clicked, ordered, params.index.embedding)

    def _most_valued(self, params: ActingParams, observation: SessionObservation) -> jax.Array:
        """Returns [B] int32 the available items that LCritic values most."""
        histories, embedding = observation.histories, params.index.embedding
        states = self.low.encode_for_critic(params.low, histories.browsed, histories.clicked, embedding)

        def values(state: jax.Array, vectors: jax.Array) -> jax.Array:
            return self.low.values_of_items(params.low, state, vectors)

        width = self.low.config.critic_width
        return best_scored_item(values, states, embedding, params.index.num_items, observation, width)

    def propose_action(self, params: ActingParams, observation: SessionObservation, seen: jax.Array | None) -> Proposal:
        """Returns LActor's proto-actions [B, 1, E] from the browsed and clicked items (Eq. 8, 9) and [B, K, E] seen."""
        histories = observation.histories
        return self.low.act(params.low, histories.browsed, histories.clicked, params.index.embedding, seen)

    def set_goals(self, params: ActingParams, observation: SessionObservation) -> jax.Array:
        """Returns HActor's goals [B, M, E] from clicked and ordered items (Eq. 4, 5), or from what it remembers."""
        assert self.high is not None
        clicked, ordered = observation.histories.clicked, observation.histories.ordered
        embedding = params.index.embedding
        if isinstance(self.high, MemoryActorCritic):
            return self.high.act(params.high, self.remember(params.table, observation.row, clicked, ordered, embedding))
        return self.high.act(params.high, clicked, ordered, embedding, None).vector

    def remember(
        self,
        table: HistoryTable | None,
        row: jax.Array | None,
        clicked: jax.Array,
        ordered: jax.Array,
        embedding: jax.Array,
    ) -> jax.Array:
        """Returns what an agent with a memory remembers, [B, K, E].

        Args:
            table: The log.
            row: [B] int32 rows of it before which the sessions began.
            clicked: [B, N] int32 items clicked last.
            ordered: [B, N] int32 items ordered last.
            embedding: [J, E].
        """
        assert table is not None
        assert row is not None, "a memory is read from the log"
        before = jax.vmap(table.before, (0, None))(row, self.goals.memory)
        return remembered(before, clicked, ordered, embedding)

    def active_goal(self, window: Window | tuple[()], step: jax.Array) -> jax.Array:
        """Returns [B, E] the goal in force at a step [B] of the sessions."""
        assert isinstance(window, Window)
        stage = stage_of(step, self.goals.period, self.goals.count)
        return jnp.take_along_axis(window.goals, stage[:, None, None], axis=1)[:, 0]

    def _renewed(
        self, params: ActingParams, window: Window, observation: SessionObservation, key: jax.Array | None
    ) -> Window:
        """Begins a window in the sessions whose step is a multiple of c (Algorithm 2, line 9)."""
        begins = observation.step % self.goals.period == 0
        clicked, ordered = observation.histories.clicked, observation.histories.ordered

        def renew(window: Window) -> Window:
            goals = self.set_goals(params, observation)
            if key is not None and self.high is not None:
                goals = self.high.perturb(goals, self.goals.noise, key)
            new = Window(
                goals, clicked, ordered, jnp.zeros_like(window.stage_reward), jnp.zeros_like(window.stage_action)
            )
            return jax.tree.map(lambda a, b: jnp.where(begins.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, window)

        # Sessions whose phases differ by multiples of c renew together: the high level runs once in c steps.
        return jax.lax.cond(jnp.any(begins), renew, lambda window: window, window)


def make_high_level(
    config: NetworkConfig, goals: GoalConfig, embedding_size: int
) -> ActorCritic | MemoryActorCritic | None:
    """Returns the networks that set goals: of Eq. 5 to 7, or those with a memory; None without goals."""
    if not goals.enabled:
        return None
    kind = MemoryActorCritic if goals.memory else ActorCritic
    return kind(config, goals.count, embedding_size)


def _sometimes_drawn(
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

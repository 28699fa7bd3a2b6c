"""Low levels that a policy is built with: LActor decides (DDPG), or LCritic (DDPG as the paper words it, DNN)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax

from hrlmg_jax.agent.ddpg import Batch, LevelConfig, LevelState, fit_rewards, init_level, update_level
from hrlmg_jax.agent.networks import ActorCritic, Proposal
from hrlmg_jax.retrieval.index import ItemIndex, nearest_embedding, nearest_item, rank_nearest
from hrlmg_jax.retrieval.item_scores import ItemScores, best_scored_item, rank_scored_items
from sim.envs.policy import Ranking
from sim.envs.session_env import SessionObservation


class Situation(NamedTuple):
    """What an item is chosen by.

    Attributes:
        observation: Of B sessions.
        directions: [B, K, E] what the networks see besides the histories, or None.
        items: All of them, to choose from.
    """

    observation: SessionObservation
    directions: jax.Array | None
    items: ItemIndex


@dataclass(frozen=True)
class LowLevel(ABC):
    """Recommends an item at every step, and learns from transitions.

    Attributes:
        networks: LActor (Eq. 9) and LCritic (Eq. 10, 11): one head.
        config: How they learn.
    """

    networks: ActorCritic
    config: LevelConfig

    @property
    @abstractmethod
    def score(self) -> str:
        """What the scores of `rank` are (`Policy.score`)."""

    def init(self, key: jax.Array) -> LevelState:
        """Returns a level that has learned nothing."""
        return init_level(self.networks.init(key), self.config.optimizer)

    @abstractmethod
    def deciding(self, level: LevelState) -> Any:
        """Returns the parameters that decisions are made with."""

    @abstractmethod
    def act(self, params: Any, situation: Situation, key: jax.Array | None) -> jax.Array:
        """Returns [B] int32 items.

        Args:
            params: Those of `deciding`.
            key: Of the exploration; None decides greedily.
        """

    @abstractmethod
    def rank(self, params: Any, situation: Situation, k: int, available: jax.Array) -> Ranking:
        """Returns the k items that it would recommend first (see `Policy.rank`); otherwise as `act`."""

    @abstractmethod
    def update(self, level: LevelState, batch: Batch, index: ItemIndex) -> tuple[LevelState, dict[str, jax.Array]]:
        """Returns the level after one update, and metrics."""


@dataclass(frozen=True)
class DdpgLevel(LowLevel):
    """LActor proposes, the item nearest to its proto-action is recommended (Algorithm 1); trained by DDPG.

    Attributes:
        noise: Standard deviation of the Gaussian noise on each coordinate of a proto-action when exploring.
        target_item: Whether targets value the item nearest to the next proto-action, or (paper) that itself.
    """

    noise: float
    target_item: bool

    @property
    def score(self) -> str:
        """See `LowLevel.score`."""
        return "cosine of the item's embedding with the proto-action"

    def deciding(self, level: LevelState) -> Any:
        """Returns LActor's parameters."""
        return level.params["actor"]

    def act(self, params: Any, situation: Situation, key: jax.Array | None) -> jax.Array:
        """Returns [B] int32 the available items nearest to the proto-actions; see `LowLevel.act`."""
        proto = self.propose(params, situation).vector[:, 0]
        if key is not None:
            proto = self.networks.perturb(proto, self.noise, key)
        return nearest_item(proto, situation.observation, situation.items)

    def rank(self, params: Any, situation: Situation, k: int, available: jax.Array) -> Ranking:
        """Returns the k allowed items nearest to the proto-actions, with cosines; see `LowLevel.rank`."""
        proto = self.propose(params, situation).vector[:, 0]
        return rank_nearest(proto, situation.observation, situation.items, k, available)

    def propose(self, params: Any, situation: Situation) -> Proposal:
        """Returns proto-actions [B, 1, E] from the browsed and clicked items (Eq. 8, 9)."""
        histories, embedding = situation.observation.histories, situation.items.embedding
        return self.networks.act(params, histories.browsed, histories.clicked, embedding, situation.directions)

    def update(self, level: LevelState, batch: Batch, index: ItemIndex) -> tuple[LevelState, dict[str, jax.Array]]:
        """Updates LCritic and LActor (Eq. 20, 21), then the targets."""
        return update_level(
            self.networks, self.config, level, batch, index.embedding, lambda proto: self.executed(proto, index)
        )

    def executed(self, proto: jax.Array, index: ItemIndex) -> jax.Array:
        """Returns [B, 1, E] what targets value for proto-actions [B, 1, E]."""
        return nearest_embedding(proto[:, 0], index)[:, None] if self.target_item else proto


@dataclass(frozen=True)
class CriticDecides(LowLevel):
    """The item that LCritic values most of all is recommended, exploring or not.

    Its networks are without directions.
    """

    @property
    def score(self) -> str:
        """See `LowLevel.score`."""
        return "LCritic's value: discounted reward of the rest of the session"

    def deciding(self, level: LevelState) -> Any:
        """Returns LCritic's parameters."""
        return level.params["critic"]

    def act(self, params: Any, situation: Situation, key: jax.Array | None) -> jax.Array:
        """Returns [B] int32 the available items of the highest values, exploring or not; see `LowLevel.act`."""
        return best_scored_item(self._scores(params, situation), situation.items.num_items, situation.observation)

    def rank(self, params: Any, situation: Situation, k: int, available: jax.Array) -> Ranking:
        """Returns the k allowed items of the highest values; see `LowLevel.rank`."""
        return rank_scored_items(self._scores(params, situation), situation.observation, k, available)

    def _scores(self, params: Any, situation: Situation) -> ItemScores:
        histories, embedding = situation.observation.histories, situation.items.embedding
        states = self.networks.encode_for_critic(params, histories.browsed, histories.clicked, embedding)
        values = partial(self.networks.values_of_items, params)
        return ItemScores(values, states, embedding, self.networks.config.critic_width)


@dataclass(frozen=True)
class DdpgByCritic(CriticDecides, DdpgLevel):
    """Trained by DDPG, it recommends "items with highest accumulated decay returns evaluated by LCritic" (Section 4.1).

    LActor serves the targets alone, and the noise of its proto-actions nothing.
    """


@dataclass(frozen=True)
class DnnLevel(CriticDecides):
    """LCritic learns the immediate reward (the paper's DNN); the actor is never used."""

    @property
    def score(self) -> str:
        """See `LowLevel.score`."""
        return "expected reward of the answer"

    def update(self, level: LevelState, batch: Batch, index: ItemIndex) -> tuple[LevelState, dict[str, jax.Array]]:
        """Fits LCritic to the rewards."""
        return fit_rewards(self.networks, self.config, level, batch, index.embedding)

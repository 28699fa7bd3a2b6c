"""DQN-R: a deep Q-network for recommendation (Zheng et al. 2018, "DRN"), with one output per item.

As the TPGR paper compares with it: Q-values of all items from the state that all its methods share. From DRN come the
double target (van Hasselt et al. 2016) and the split into state value and advantage; DRN's features of news and users,
and its exploration by a second network, belong to its own data and are not part of the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from harness.settings import Count, Positive
from harness.training.optimizers import clipped_adam, descend
from sim.envs.nearest_items import best_available, map_rows
from sim.envs.policy import Decision, Policy, Ranking, rank_best
from sim.envs.rating_env import STATUS_SIZE, Observation
from sim.envs.rollout import TrainingEnvironment
from tpgr_jax.baselines.episode_replay import Episodes
from tpgr_jax.baselines.replay_learner import (
    ActingParams,
    Learned,
    ReplayConfig,
    ReplayLearner,
    World,
    epsilon_greedy,
    regression_loss,
    replay_method,
    td_targets,
)
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.networks.encoder import Encoder, EncoderConfig, make_encoder
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class QPolicyConfig(EncoderConfig):
    """The Q-network (`conf/agent/dqn_r.yaml` explains each)."""

    hidden: list[Count]
    dueling: bool


@dataclass(frozen=True)
class DqnConfig(ReplayConfig):
    """Settings of learning (`conf/agent/dqn_r.yaml` explains each)."""

    learning_rate: Positive
    double: bool


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/dqn_r.yaml` holds."""

    policy: QPolicyConfig
    learner: DqnConfig


class QNetwork(nn.Module):
    """The encoder, hidden layers (ReLU) and one linear output per item; all Q-values start at (about) zero.

    With `dueling`, Q(s, a) = V(s) + A(s, a) - mean_a A(s, a) (Wang et al. 2016). Neither this mean nor the value of
    single items needs the values of all I: the output layer is linear.

    Attributes:
        encoder: Turns interactions into states.
        hidden: Widths.
        dueling: Whether the state's value is an output of its own.
    """

    encoder: Encoder
    hidden: Sequence[int]
    dueling: bool

    def setup(self) -> None:
        """Declares the parameters."""
        self.layers = [nn.Dense(width) for width in self.hidden]
        width = self.hidden[-1] if self.hidden else self.encoder.state_size
        self.item_kernel = self.param("item_kernel", nn.initializers.zeros, (self.encoder.num_items, width))
        self.item_bias = self.param("item_bias", nn.initializers.zeros, (self.encoder.num_items,))
        if self.dueling:
            self.state_value = nn.Dense(1)

    def encode_step(
        self, cell: jax.Array, item: jax.Array, reward: jax.Array, status: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the cell [B, H] and the features [B, F] of the states; see `Encoder.step`."""
        cell, state = self.encoder.step(cell, item, reward, status)
        return cell, self.features(state)

    def encode(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> jax.Array:
        """Returns the features [T, B, F] of the states; see `Encoder.__call__`."""
        return self.features(self.encoder(item, reward, status))

    def features(self, state: jax.Array) -> jax.Array:
        """Returns the last hidden layer [..., F]."""
        for layer in self.layers:
            state = nn.relu(layer(state))
        return state

    def ranking(self, features: jax.Array) -> jax.Array:
        """Returns [..., I] scores of all items, equal to their Q-values up to what all items have in common."""
        return features @ self.item_kernel.T + self.item_bias

    def value(self, features: jax.Array, item: jax.Array) -> jax.Array:
        """Returns [...] Q(s, a) of one item [...] for each state's features [..., F]."""
        advantage = jnp.sum(features * self.item_kernel[item], -1) + self.item_bias[item]
        if not self.dueling:
            return advantage
        mean = features @ jnp.mean(self.item_kernel, 0) + jnp.mean(self.item_bias)
        return self.state_value(features)[..., 0] + advantage - mean

    def __call__(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> jax.Array:
        """Touches every parameter (for initialisation)."""
        return self.value(self.encode(item, reward, status), item)


@dataclass(frozen=True)
class QPolicy:
    """Takes the available item of the highest Q-value; explores by taking a random one now and then.

    Attributes:
        network: The Linen module.
    """

    network: QNetwork

    def init(self, key: jax.Array) -> Any:
        """Draws initial network parameters."""
        item, reward = jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1))
        return self.network.init(key, item, reward, jnp.zeros((2, 1, STATUS_SIZE)))["params"]

    def as_policy(self) -> Policy:
        """Returns the functions of `Policy`, of `ActingParams`; the carry is the recurrent unit's cell [B, H]."""
        meaning = "Q-value: discounted reward of the rest of the episode, up to what all items have in common"
        return Policy(self._initial_cell, self._act, self._rank, score=meaning)

    def apply(self, method: Callable[..., Any], params: Any, *arguments: Any) -> Any:
        """Applies a method of the network."""
        return self.network.apply({"params": params}, *arguments, method=method)

    def best_items(self, params: Any, features: jax.Array, recommended: jax.Array) -> jax.Array:
        """Returns [S] int32 the available items of the highest Q-value.

        Args:
            features: [S, F] of the states.
            recommended: [S, T] int32 items recommended before, padded with -1.
        """

        def best(row: tuple[jax.Array, jax.Array]) -> jax.Array:
            scores = self.apply(QNetwork.ranking, params, row[0])
            return best_available(scores, row[1])

        return map_rows(best, (features, recommended), self.network.encoder.num_items)

    def _initial_cell(self, params: ActingParams, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, self.network.encoder.hidden_size))

    def _encode(self, params: ActingParams, cell: jax.Array, observation: Observation) -> tuple[jax.Array, jax.Array]:
        interaction = (observation.last_item, observation.last_reward, observation.status)
        return self.apply(QNetwork.encode_step, params.network, cell, *interaction)

    def _act(
        self, params: ActingParams, cell: jax.Array, observation: Observation, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        cell, features = self._encode(params, cell, observation)
        item = self.best_items(params.network, features, observation.recommended)
        if explore:
            num_items = self.network.encoder.num_items
            item = epsilon_greedy(key, params.epsilon, item, observation, num_items)
        return cell, Decision(item, jnp.zeros(item.shape))

    def _rank(
        self, params: ActingParams, cell: jax.Array, observation: Observation, k: int, available: jax.Array
    ) -> Ranking:
        """Scores are Q-values up to what all items have in common."""
        _, features = self._encode(params, cell, observation)
        num_items = self.network.encoder.num_items
        available = jnp.broadcast_to(available, (features.shape[0], num_items))

        def rank(row: tuple[jax.Array, jax.Array, jax.Array]) -> Ranking:
            return rank_best(self.apply(QNetwork.ranking, params.network, row[0]), row[1], k, row[2])

        ranking: Ranking = map_rows(rank, (features, observation.recommended, available), num_items)
        return ranking


@dataclass(frozen=True)
class DqnR(ReplayLearner):
    """Deep Q-learning as pure functions; see `ReplayLearner`."""

    policy: QPolicy
    config: DqnConfig

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with clipping by the global norm."""
        return clipped_adam(self.config.learning_rate, self.config.clip_norm)

    def init_optimizers(self, params: Any) -> Any:
        """See `ReplayLearner`."""
        return self.optimizer.init(params)

    def next_values(self, params: Any, target: Any, episodes: Episodes) -> jax.Array:
        """Returns [T - 1, n] Q'(s', a*), a* the best available item in s' by Q' (or, `double`, by Q itself)."""
        stored = (episodes.item, episodes.reward, episodes.status)
        target_features = self.policy.apply(QNetwork.encode, target, *stored)[1:]
        choosing, features = target, target_features
        if self.config.double:
            choosing, features = params, self.policy.apply(QNetwork.encode, params, *stored)[1:]
        rows = features.shape[0] * features.shape[1]
        recommended = self.env.recommended_before(episodes.item)[1:]
        flat = (array.reshape(rows, array.shape[-1]) for array in (features, recommended))
        best = self.policy.best_items(choosing, *flat)
        return self.policy.apply(QNetwork.value, target, target_features, best.reshape(features.shape[:2]))

    def loss(self, params: Any, episodes: Episodes, targets: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the mean loss of Q(s_t, a_t) against targets [T, n], and metrics."""
        features = self.policy.apply(QNetwork.encode, params, episodes.item, episodes.reward, episodes.status)
        q = self.policy.apply(QNetwork.value, params, features, episodes.item)
        return regression_loss(q, targets, self.config.loss), {"q": jnp.mean(q), "target": jnp.mean(targets)}

    def update(self, learned: Learned, world: World, episodes: Episodes) -> tuple[Learned, dict[str, jax.Array]]:
        """One step of Adam on all steps of n episodes; see `ReplayLearner`."""
        next_value = self.next_values(learned.params, learned.target, episodes)
        targets = td_targets(episodes.reward, next_value, self.config.discount)
        (loss, metrics), gradient = jax.value_and_grad(self.loss, has_aux=True)(learned.params, episodes, targets)
        params, opt_state, norm = descend(self.optimizer, gradient, learned.opt_state, learned.params)
        target = optax.incremental_update(params, learned.target, self.config.target_rate)
        return Learned(params, target, opt_state), {"loss": loss, "gradient_norm": norm, **metrics}


def make_dqn_r(policy: QPolicyConfig, learner: DqnConfig, env: TrainingEnvironment, episodes_per_step: int) -> DqnR:
    """Builds the learner for a simulator.

    Raises:
        UserError: The replay memory is smaller than what a training step plays.
    """
    network = QNetwork(make_encoder(policy, env.num_items), tuple(policy.hidden), policy.dueling)
    return DqnR(env, QPolicy(network), learner, episodes_per_step)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    learner = make_dqn_r(settings.policy, settings.learner, problem.env, run.episodes_per_step)
    world = World(problem.env_params)
    return replay_method(problem, settings.result_name, settings.policy, learner, world, run)

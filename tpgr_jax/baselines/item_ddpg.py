"""DDPG where an action is a vector among fixed item vectors: the part that DDPG-KNN and DDPG-R share.

The actor's vector, the proto-action, is looked up among the items: its nearest available ones are candidates, of which
the critic takes the best. The two methods differ in how many candidates there are and in what "near" means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from harness.settings import Count, NotNegative, Positive, SettingError
from harness.training.optimizers import clipped_adam, descend
from sim.envs.available_items import hide_recommended
from sim.envs.fast_argmax import fast_argmax
from sim.envs.nearest_items import best_available, is_known, k_largest, map_rows, similarity, unit, unknown_last
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
from tpgr_jax.models.item_actions import VectorConfig, action_vectors
from tpgr_jax.networks.encoder import Encoder, EncoderConfig, make_encoder
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class ItemDdpgPolicyConfig(VectorConfig, EncoderConfig):
    """Networks and item vectors (`conf/agent/ddpg_knn.yaml` explains each), and DDPG-R's way to an item."""

    hidden: list[Count]

    @property
    def nearness(self) -> str:
        """Between proto-action and items, see `sim.envs.nearest_items.similarity`."""
        return "inner"

    def neighbours(self, num_items: int) -> int:
        """Returns K, the number of candidates for the critic, of a catalogue of I items."""
        return 1

    def __post_init__(self) -> None:
        """Checks settings; raises UserError naming the key."""
        if not self.hidden:
            raise SettingError(
                ".hidden is empty",
                do="Give the critic at least one hidden layer: a linear one likes the same item in every state.",
            )


@dataclass(frozen=True)
class ItemDdpgConfig(ReplayConfig):
    """Settings of learning (`conf/agent/ddpg_knn.yaml` explains each)."""

    actor_rate: Positive
    critic_rate: Positive
    action_noise: NotNegative
    target_action: Literal["item", "proto"]


@dataclass(frozen=True)
class ItemDdpgSettings(AgentSettings):
    """What the yaml of either method holds."""

    policy: ItemDdpgPolicyConfig
    learner: ItemDdpgConfig


class Actor(nn.Module):
    """Hidden layers (ReLU) and a proto-action in the unit ball (`at_most_one`), or on its surface (`unit`).

    Attributes:
        hidden: Widths.
        vector_size: E.
        length: See `project`.
    """

    hidden: Sequence[int]
    vector_size: int
    length: str

    @nn.compact
    def __call__(self, state: jax.Array) -> jax.Array:
        """Returns [..., E] for states [..., F]."""
        for width in self.hidden:
            state = nn.relu(nn.Dense(width)(state))
        return project(nn.Dense(self.vector_size)(state), self.length)


def project(vector: jax.Array, length: str) -> jax.Array:
    """Returns vectors [..., E] of norm 1 ("unit"), or shortened to at most that ("at_most_one")."""
    if length == "unit":
        return unit(vector)
    return vector * jax.lax.rsqrt(jnp.maximum(jnp.sum(vector**2, -1, keepdims=True), 1.0))


class Critic(nn.Module):
    """Q(s, a): hidden layers (ReLU) on state and vector.

    The first layer is linear in both, so that its part for the I items can be computed once for all states.

    Attributes:
        hidden: Widths, at least one.
    """

    hidden: Sequence[int]

    def setup(self) -> None:
        """Declares the layers."""
        self.of_state = nn.Dense(self.hidden[0])
        self.of_vector = nn.Dense(self.hidden[0], use_bias=False)
        self.layers = [nn.Dense(width) for width in self.hidden[1:]]
        self.output = nn.Dense(1)

    def state_part(self, state: jax.Array) -> jax.Array:
        """Returns [..., H] for states [..., F]."""
        return self.of_state(state)

    def vector_part(self, vector: jax.Array) -> jax.Array:
        """Returns [..., H] for vectors [..., E]."""
        return self.of_vector(vector)

    def combine(self, state_part: jax.Array, vector_part: jax.Array) -> jax.Array:
        """Returns Q-values [...] from both parts [..., H] (which may broadcast)."""
        hidden = nn.relu(state_part + vector_part)
        for layer in self.layers:
            hidden = nn.relu(layer(hidden))
        return self.output(hidden)[..., 0]

    def __call__(self, state: jax.Array, vector: jax.Array) -> jax.Array:
        """Returns [...] Q-values of vectors [..., E] in states [..., F]."""
        return self.combine(self.of_state(state), self.of_vector(vector))


class ItemNetworks(NamedTuple):
    """Encoder, actor and critic; parameters `{"encoder", "actor", "critic"}`. The critic's loss trains the encoder."""

    encoder: Encoder
    actor: Actor
    critic: Critic


@dataclass(frozen=True)
class ItemPolicy:
    """From state to proto-action to item.

    Attributes:
        networks: The Linen modules.
        neighbours: K candidates for the critic, 1 to I.
        measure: Of nearness, see `sim.envs.nearest_items.similarity`.
        action_noise: Standard deviation of the exploration of each coordinate of a proto-action.
    """

    networks: ItemNetworks
    neighbours: int
    measure: str
    action_noise: float

    def init(self, key: jax.Array) -> Any:
        """Draws initial network parameters."""
        networks = self.networks
        encoder_key, actor_key, critic_key = jax.random.split(key, 3)
        item, reward, status = jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1)), jnp.zeros((2, 1, STATUS_SIZE))
        state, vector = jnp.zeros((1, networks.encoder.state_size)), jnp.zeros((1, networks.actor.vector_size))
        return {
            "encoder": networks.encoder.init(encoder_key, item, reward, status)["params"],
            "actor": networks.actor.init(actor_key, state)["params"],
            "critic": networks.critic.init(critic_key, state, vector)["params"],
        }

    def as_policy(self) -> Policy:
        """Returns the functions of `Policy`, of `ActingParams`; the carry is the recurrent unit's cell [B, H]."""
        value = "critic's value: discounted reward of the rest of the episode; less, beyond the nearest neighbours"
        meaning = f"nearness to the proto-action ({self.measure})" if self.neighbours == 1 else value
        return Policy(self._initial_cell, self._act, self._rank, score=meaning)

    def encode(self, params: Any, episodes: Episodes) -> jax.Array:
        """Returns the states [T, n, F] of episodes."""
        return _apply(
            self.networks.encoder, params["encoder"], Encoder.__call__, episodes.item, episodes.reward, episodes.status
        )

    def propose(self, params: Any, state: jax.Array) -> jax.Array:
        """Returns the proto-actions [..., E] of states [..., F]."""
        return _apply(self.networks.actor, params["actor"], Actor.__call__, state)

    def value(self, params: Any, state: jax.Array, vector: jax.Array) -> jax.Array:
        """Returns the Q-values [...] of vectors [..., E] in states [..., F]."""
        return self._critic(Critic.__call__, params, state, vector)

    def choose(
        self, params: Any, item_vectors: jax.Array, state: jax.Array, proto: jax.Array, recommended: jax.Array
    ) -> jax.Array:
        """Returns [S] int32 items: of the K available ones nearest to the proto-action, the critic's favourite.

        Items with a zero vector are chosen where no others are available.

        Args:
            item_vectors: [I, E].
            state: [S, F].
            proto: [S, E].
            recommended: [S, T] int32 items recommended before, padded with -1.
        """
        chex.assert_shape(item_vectors, (self.networks.encoder.num_items, proto.shape[-1]))
        num_items = item_vectors.shape[0]
        if self.neighbours == 1:
            return map_rows(
                lambda row: best_available(similarity(row[0], item_vectors, self.measure), row[1]),
                (proto, recommended),
                num_items,
            )
        item_part, known = self._critic(Critic.vector_part, params, item_vectors), is_known(item_vectors)
        state_part = self._critic(Critic.state_part, params, state)

        def best_of_all(row: tuple[jax.Array, ...]) -> jax.Array:
            state_part, _, recommended = row
            q = self._critic(Critic.combine, params, state_part, item_part)
            return best_available(unknown_last(q, known), recommended)

        def best_of_nearest(row: tuple[jax.Array, ...]) -> jax.Array:
            state_part, proto, recommended = row
            nearness = hide_recommended(similarity(proto, item_vectors, self.measure), recommended)
            candidates = k_largest(nearness, self.neighbours)
            q = self._critic(Critic.combine, params, state_part, item_part[candidates])
            q = unknown_last(q, known[candidates])
            # Fewer than K may be left.
            return candidates[fast_argmax(jnp.where(nearness[candidates] > -jnp.inf, q, -jnp.inf))]

        best = best_of_all if self.neighbours >= num_items else best_of_nearest
        largest = max(self.neighbours * max(self.networks.critic.hidden), num_items)
        return map_rows(best, (state_part, proto, recommended), largest)

    def rank(
        self,
        params: Any,
        item_vectors: jax.Array,
        state: jax.Array,
        proto: jax.Array,
        recommended: jax.Array,
        k: int,
        available: jax.Array,
    ) -> Ranking:
        """Returns the k best available items: the K nearest ones in the critic's order, then the others by nearness.

        Scores are the critic's values; those of the others fall below the candidates' lowest by as much as they are
        less near. With K = 1 all scores are nearness. Items with a zero vector come last.

        Args:
            item_vectors: [I, E].
            state: [S, F].
            proto: [S, E].
            recommended: [S, T] int32 items recommended before, padded with -1.
            k: How many (static).
            available: [S, I] bool.
        """
        num_items = item_vectors.shape[0]
        item_part, known = self._critic(Critic.vector_part, params, item_vectors), is_known(item_vectors)
        state_part = self._critic(Critic.state_part, params, state)

        # Three ways to rank one row, as there are three ways to choose.
        def by_nearness(row: tuple[jax.Array, ...]) -> Ranking:
            _, proto, recommended, available = row
            return rank_best(similarity(proto, item_vectors, self.measure), recommended, k, available)

        def by_value(row: tuple[jax.Array, ...]) -> Ranking:
            state_part, _, recommended, available = row
            q = self._critic(Critic.combine, params, state_part, item_part)
            return rank_best(unknown_last(q, known), recommended, k, available)

        def candidates_first(row: tuple[jax.Array, ...]) -> Ranking:
            state_part, proto, recommended, available = row
            number = max(self.neighbours, k)
            near = rank_best(similarity(proto, item_vectors, self.measure), recommended, number, available)
            exists = near.items >= 0
            value = self._critic(Critic.combine, params, state_part, item_part[near.items])
            value = unknown_last(value, known[near.items])
            candidate = exists & (jnp.arange(number) < self.neighbours)
            lowest = jnp.min(jnp.where(candidate, value, jnp.inf))
            below = lowest + near.scores - near.scores[self.neighbours - 1]
            scores, index = jax.lax.top_k(jnp.where(exists, jnp.where(candidate, value, below), -jnp.inf), k)
            return Ranking(near.items[index], scores)

        rank = by_nearness if self.neighbours == 1 else by_value if self.neighbours >= num_items else candidates_first
        largest = max(max(self.neighbours, k) * max(self.networks.critic.hidden), num_items)
        ranking: Ranking = map_rows(rank, (state_part, proto, recommended, available), largest)
        return ranking

    def _critic(self, method: Callable[..., Any], params: Any, *arguments: jax.Array) -> jax.Array:
        return _apply(self.networks.critic, params["critic"], method, *arguments)

    def _initial_cell(self, params: ActingParams, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, self.networks.encoder.hidden_size))

    def _encode(self, params: ActingParams, cell: jax.Array, observation: Observation) -> tuple[jax.Array, jax.Array]:
        interaction = (observation.last_item, observation.last_reward, observation.status)
        return _apply(self.networks.encoder, params.network["encoder"], Encoder.step, cell, *interaction)

    def _rank(
        self, params: ActingParams, cell: jax.Array, observation: Observation, k: int, available: jax.Array
    ) -> Ranking:
        _, state = self._encode(params, cell, observation)
        assert params.item_vectors is not None
        available = jnp.broadcast_to(available, (state.shape[0], params.item_vectors.shape[0]))
        proto = self.propose(params.network, state)
        return self.rank(params.network, params.item_vectors, state, proto, observation.recommended, k, available)

    def _act(
        self, params: ActingParams, cell: jax.Array, observation: Observation, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        network = params.network
        cell, state = self._encode(params, cell, observation)
        proto = self.propose(network, state)
        noise_key, epsilon_key = jax.random.split(key)
        if explore:
            noise = self.action_noise * jax.random.normal(noise_key, proto.shape)
            proto = project(proto + noise, self.networks.actor.length)
        assert params.item_vectors is not None
        item = self.choose(network, params.item_vectors, state, proto, observation.recommended)
        if explore:
            num_items = params.item_vectors.shape[0]
            item = epsilon_greedy(epsilon_key, params.epsilon, item, observation, num_items)
        return cell, Decision(item, jnp.zeros(item.shape))


@dataclass(frozen=True)
class ItemDdpg(ReplayLearner):
    """Deep deterministic policy gradient (Lillicrap et al. 2016) over item vectors; see `ReplayLearner`."""

    policy: ItemPolicy
    config: ItemDdpgConfig

    @property
    def optimizers(self) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Of the actor, and of the critic with the encoder."""
        config = self.config
        return clipped_adam(config.actor_rate, config.clip_norm), clipped_adam(config.critic_rate, config.clip_norm)

    def init_optimizers(self, params: Any) -> Any:
        """See `ReplayLearner`."""
        actor, critic = self.optimizers
        return actor.init(params["actor"]), critic.init(_critic_side(params))

    def next_values(self, target: Any, item_vectors: jax.Array, episodes: Episodes) -> jax.Array:
        """Returns [T - 1, n] Q'(s', a'): a' is what the target policy does in s' (`item`), or its proto-action."""
        state = self.policy.encode(target, episodes)[1:]
        action = self.policy.propose(target, state)
        if self.config.target_action == "item":
            rows = state.shape[0] * state.shape[1]
            recommended = self.env.recommended_before(episodes.item)[1:]
            flat = (array.reshape(rows, array.shape[-1]) for array in (state, action, recommended))
            chosen = self.policy.choose(target, item_vectors, *flat)
            action = item_vectors[chosen].reshape(action.shape)
        return self.policy.value(target, state, action)

    def losses(
        self, params: Any, episodes: Episodes, targets: jax.Array, item_vectors: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the critic's loss plus the actor's, each of which moves only its own networks.

        The critic's is the regression of Q(s_t, e_a) to the targets [T, n]; it also moves the encoder. The actor's is
        minus the mean Q-value of its proto-actions.
        """
        state = self.policy.encode(params, episodes)
        q = self.policy.value(params, state, item_vectors[episodes.item])
        critic_loss = regression_loss(q, targets, self.config.loss)
        frozen = {"critic": jax.lax.stop_gradient(params["critic"])}
        state = jax.lax.stop_gradient(state)
        proposed = self.policy.value(frozen, state, self.policy.propose(params, state))
        metrics = {"loss": critic_loss, "q": jnp.mean(q), "q_of_actor": jnp.mean(proposed)}
        return critic_loss - jnp.mean(proposed), metrics

    def update(self, learned: Learned, world: World, episodes: Episodes) -> tuple[Learned, dict[str, jax.Array]]:
        """One step of Adam for the critic and one for the actor on all steps of n episodes; see `ReplayLearner`."""
        assert world.item_vectors is not None
        next_value = self.next_values(learned.target, world.item_vectors, episodes)
        targets = td_targets(episodes.reward, next_value, self.config.discount)
        gradient, metrics = jax.grad(self.losses, has_aux=True)(learned.params, episodes, targets, world.item_vectors)

        # Actor, and critic with encoder, each with an optimiser of its own.
        (actor_optimizer, critic_optimizer), (actor_state, critic_state) = self.optimizers, learned.opt_state
        actor, actor_state, actor_norm = descend(
            actor_optimizer, gradient["actor"], actor_state, learned.params["actor"]
        )
        critic_side, critic_state, critic_norm = descend(
            critic_optimizer, _critic_side(gradient), critic_state, _critic_side(learned.params)
        )
        params = {"actor": actor, **critic_side}
        target = optax.incremental_update(params, learned.target, self.config.target_rate)
        metrics |= {"gradient_norm": critic_norm, "actor_gradient_norm": actor_norm}
        return Learned(params, target, (actor_state, critic_state)), metrics


def make_item_ddpg(
    policy: ItemDdpgPolicyConfig, learner: ItemDdpgConfig, env: TrainingEnvironment, episodes_per_step: int
) -> ItemDdpg:
    """Builds the learner for a simulator.

    Raises:
        UserError: The replay memory is smaller than what a training step plays.
    """
    hidden = tuple(policy.hidden)
    actor = Actor(hidden, policy.vector_size, policy.vector_length)
    networks = ItemNetworks(make_encoder(policy, env.num_items), actor, Critic(hidden))
    item_policy = ItemPolicy(networks, policy.neighbours(env.num_items), policy.nearness, learner.action_noise)
    return ItemDdpg(env, item_policy, learner, episodes_per_step)


def build(problem: Problem, settings: ItemDdpgSettings, run: RunContext) -> Method:
    """Builds either method (see `tpgr_jax.registry`)."""
    policy = settings.policy
    world = World(problem.env_params, jnp.asarray(action_vectors(policy, *problem.training_ratings, run.seed)))
    learner = make_item_ddpg(policy, settings.learner, problem.env, run.episodes_per_step)
    return replay_method(problem, settings.result_name, policy, learner, world, run)


def _critic_side(params: Any) -> Any:
    return {name: params[name] for name in ("encoder", "critic")}


def _apply(module: nn.Module, params: Any, method: Callable[..., Any], *inputs: jax.Array) -> Any:
    return module.apply({"params": params}, *inputs, method=method)

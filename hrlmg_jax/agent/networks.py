"""Actor and critic of one level (Eq. 5 to 11): M heads on an encoder; the low level is the case of one head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from harness.settings import Count, Positive
from hrlmg_jax.agent.history_encoder import DENSE_WEIGHTS, WEIGHTS, HistoryEncoder
from sim.envs.nearest_items import unit

_SATURATED = 0.99
_STRIDE = 4.0
"""By how much actors' weights of directions count more than they are, so that they learn to follow soon."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and shapes of the networks (`conf/agent/hrl_mg.yaml` explains each)."""

    hidden_size: Count
    state_size: Count
    critic_width: Count
    action_norm: Literal["unit", "tanh"]
    action_bound: Positive
    q_output: Literal["linear", "relu"]
    critics: Literal["single", "twin"]

    @property
    def num_critics(self) -> int:
        """Critics per level, K."""
        return 2 if self.critics == "twin" else 1


class Proposal(NamedTuple):
    """An actor's output: `vector` [..., M, E] proto-actions or goals; `saturation` [..., M] share of |tanh| > 0.99."""

    vector: jax.Array
    saturation: jax.Array


class _ActorHeads(nn.Module):
    """z_i = W_i s + b_i, one linear layer per head; along_i = sum_k w_ik d_k with weights of the directions d likewise.

    The weights begin at 0: an untrained actor follows nothing.
    """

    heads: int
    embedding_size: int

    @nn.compact
    def __call__(self, state: jax.Array, directions: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        state = _beside(state, directions)
        output = nn.Dense(self.heads * self.embedding_size, kernel_init=DENSE_WEIGHTS, name="output")(state)
        output = output.reshape(*state.shape[:-1], self.heads, self.embedding_size)
        if directions is None:
            return output, jnp.zeros_like(output)
        number = directions.shape[-2]
        weights = nn.Dense(self.heads * number, kernel_init=nn.initializers.zeros, name="weights")(state)
        weights = _STRIDE * weights.reshape(*state.shape[:-1], self.heads, number)
        return output, jnp.einsum("...mk,...ke->...me", weights, directions)


class _CriticHeads(nn.Module):
    """Two layers per head on (state, action): q_i = w_i . relu(W_i [s, a_i] + b_i) + c_i.

    With directions d the first layer also sees these and the products d_k . a_i, which it would be long in learning.
    """

    heads: int
    width: int

    @nn.compact
    def __call__(self, state: jax.Array, action: jax.Array, directions: jax.Array | None) -> jax.Array:
        state = _beside(state, directions)
        if directions is not None:
            action = jnp.concatenate([action, jnp.einsum("...me,...ke->...mk", action, directions)], -1)
        state = jnp.broadcast_to(state[..., None, :], (*action.shape[:-1], state.shape[-1]))
        inputs = jnp.concatenate([state, action], -1)
        hidden = self.param("hidden", WEIGHTS, (self.heads, inputs.shape[-1], self.width))
        hidden_bias = self.param("hidden_bias", nn.initializers.zeros, (self.heads, self.width))
        output = self.param("output", WEIGHTS, (self.heads, self.width, 1))
        output_bias = self.param("output_bias", nn.initializers.zeros, (self.heads,))
        first_layer = jax.nn.relu(jnp.einsum("...mi,mij->...mj", inputs, hidden) + hidden_bias)
        return jnp.einsum("...mj,mjk->...mk", first_layer, output)[..., 0] + output_bias


@dataclass(frozen=True)
class ActorCritic:
    """The networks of one level as pure functions.

    Parameters are `{"actor": {"encoder", "heads"}, "critic": {"encoder", "heads"}}`; those of the critic have a leading
    axis of K independent critics.

    Attributes:
        config: Sizes.
        heads: M.
        embedding_size: E of items, actions and goals.
        directions: K, vectors [B, K, E] that both networks see besides the histories: a goal, or what is remembered.
    """

    config: NetworkConfig
    heads: int
    embedding_size: int
    directions: int = 0

    @property
    def encoder(self) -> HistoryEncoder:
        """The encoder that actor and critics have one of each."""
        return HistoryEncoder(self.config.hidden_size, self.config.state_size)

    @property
    def _actor_heads(self) -> _ActorHeads:
        return _ActorHeads(self.heads, self.embedding_size)

    @property
    def _critic_heads(self) -> _CriticHeads:
        return _CriticHeads(self.heads, self.config.critic_width)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Returns freshly drawn parameters."""
        history = jnp.zeros((1, 1), jnp.int32)
        embedding = jnp.zeros((1, self.embedding_size))
        state = jnp.zeros((1, self.config.state_size))
        action = jnp.zeros((1, self.heads, self.embedding_size))
        directions = jnp.zeros((1, self.directions, self.embedding_size)) if self.directions else None
        keys = jax.random.split(key, 4)

        def encoder(key: jax.Array) -> Any:
            return self.encoder.init(key, history, history, embedding)["params"]

        def critic_heads(key: jax.Array) -> Any:
            return self._critic_heads.init(key, state, action, directions)["params"]

        critics = self.config.num_critics
        actor_heads = self._actor_heads.init(keys[1], state, directions)["params"]
        return {
            "actor": {"encoder": encoder(keys[0]), "heads": actor_heads},
            "critic": {
                "encoder": jax.vmap(encoder)(jax.random.split(keys[2], critics)),
                "heads": jax.vmap(critic_heads)(jax.random.split(keys[3], critics)),
            },
        }

    def encode(
        self, params: dict[str, Any], first: jax.Array, second: jax.Array, embedding: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes histories [B, N] with all encoders of the level at once.

        Returns:
            The actor's state [B, S] and the critics' [K, B, S].
        """
        stacked = jax.tree.map(
            lambda actors, critics: jnp.concatenate([actors[None], critics]),
            params["actor"]["encoder"],
            params["critic"]["encoder"],
        )
        states: jax.Array = jax.vmap(lambda encoder: _apply(self.encoder, encoder, first, second, embedding))(stacked)
        return states[0], states[1:]

    def propose(self, actor: dict[str, Any], state: jax.Array, directions: jax.Array | None) -> Proposal:
        """Returns actions or goals [..., M, E] (Eq. 5 and 9): unit vectors, or in (-B, B) per coordinate.

        Args:
            actor: The actor's parameters.
            state: [..., S] from its encoder.
            directions: [..., K, E] if the level has any, else None.
        """
        output, along = _apply(self._actor_heads, actor["heads"], state, directions)
        if self.config.action_norm == "unit":
            squashed = jnp.tanh(output)
            vector = unit(squashed + along)
        else:
            squashed = jnp.tanh(output + along)
            vector = self.config.action_bound * squashed
        return Proposal(vector, jnp.mean(jnp.abs(squashed) > _SATURATED, -1))

    def perturb(self, vector: jax.Array, deviation: float, key: jax.Array) -> jax.Array:
        """Returns proposals with Gaussian noise on each coordinate, brought back to where proposals lie."""
        noisy = vector + deviation * jax.random.normal(key, vector.shape)
        bound = self.config.action_bound
        return unit(noisy) if self.config.action_norm == "unit" else jnp.clip(noisy, -bound, bound)

    def act(
        self,
        actor: dict[str, Any],
        first: jax.Array,
        second: jax.Array,
        embedding: jax.Array,
        directions: jax.Array | None,
    ) -> Proposal:
        """Encodes histories [..., N] and proposes."""
        state: jax.Array = _apply(self.encoder, actor["encoder"], first, second, embedding)
        return self.propose(actor, state, directions)

    def value(
        self, critic: dict[str, Any], states: jax.Array, action: jax.Array, directions: jax.Array | None
    ) -> jax.Array:
        """Returns [K, B, M] Q-values (Eq. 6, 7, 10, 11).

        Args:
            critic: Parameters of the K critics.
            states: [K, B, S] from their encoders.
            action: [B, M, E].
            directions: [B, K, E] or None.
        """

        def one(heads: Any, state: jax.Array) -> jax.Array:
            return _apply(self._critic_heads, heads, state, action, directions)

        return self._output(jax.vmap(one)(critic["heads"], states))

    def encode_for_critic(
        self, critic: dict[str, Any], first: jax.Array, second: jax.Array, embedding: jax.Array
    ) -> jax.Array:
        """Returns the first critic's state [..., S] of histories [..., N]."""
        encoder = jax.tree.map(lambda leaf: leaf[0], critic["encoder"])
        state: jax.Array = _apply(self.encoder, encoder, first, second, embedding)
        return state

    def values_of_items(self, critic: dict[str, Any], state: jax.Array, vectors: jax.Array) -> jax.Array:
        """Returns [J] the first critic's Q-values (Eq. 10, 11) of many items in one state; for one head, no directions.

        What is the same for all sessions, the items' part of the first layer, is computed once under `vmap`.

        Args:
            critic: Parameters of the K critics.
            state: [S] from the first one's encoder.
            vectors: [J, E] embeddings.
        """
        heads = jax.tree.map(lambda leaf: leaf[0, 0], critic["heads"])
        of_state, of_item = jnp.split(heads["hidden"], [state.shape[-1]])
        hidden = jax.nn.relu(vectors @ of_item + (state @ of_state + heads["hidden_bias"]))
        return self._output(hidden @ heads["output"][:, 0] + heads["output_bias"])

    def _output(self, q: jax.Array) -> jax.Array:
        return jax.nn.relu(q) if self.config.q_output == "relu" else q


def _apply(module: nn.Module, params: Any, *inputs: jax.Array | None) -> Any:
    return module.apply({"params": params}, *inputs)


def _beside(state: jax.Array, directions: jax.Array | None) -> jax.Array:
    """Returns [..., S + K E] the state and the directions that are known with it."""
    if directions is None:
        return state
    return jnp.concatenate([state, directions.reshape(*directions.shape[:-2], -1)], -1)

"""A high level that remembers its user (not in the paper): goals are weighted sums of the directions remembered.

A critic that is linear in the goal, Q_i(s, g) = V_i(s) + g . psi_i(s), is largest over goals of norm 1 at
psi_i / |psi_i|, so that the actor needs no training of its own: it is a part of the critic. With psi_i a weighted sum
of what is remembered, M K weights are learned for all users together; metrics.jsonl shows them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from hrlmg_jax.agent.ddpg import Batch, LevelConfig, LevelState, descend_level
from hrlmg_jax.agent.history_encoder import DENSE_WEIGHTS, HistoryEncoder
from hrlmg_jax.agent.memory import REMEMBERED
from hrlmg_jax.agent.networks import NetworkConfig
from sim.envs.nearest_items import unit

_STRIDE = 8.0
"""By how much the weights count more than the parameters, so that Adam's small steps move so few numbers soon."""
_INITIAL = 0.02
"""Standard deviation of the parameters behind the weights before training."""


class _StateValue(nn.Module):
    """V(s) [..., M]: two layers on the encoded histories and the lengths of the directions."""

    config: NetworkConfig
    heads: int

    @nn.compact
    def __call__(
        self, clicked: jax.Array, ordered: jax.Array, embedding: jax.Array, directions: jax.Array
    ) -> jax.Array:
        encoder = HistoryEncoder(self.config.hidden_size, self.config.state_size, name="encoder")
        state = encoder(clicked, ordered, embedding)
        state = jnp.concatenate([state, jnp.linalg.norm(directions, axis=-1)], -1)
        hidden = nn.relu(nn.Dense(self.config.critic_width, kernel_init=DENSE_WEIGHTS, name="hidden")(state))
        value: jax.Array = nn.Dense(self.heads, kernel_init=DENSE_WEIGHTS, name="output")(hidden)
        return value


@dataclass(frozen=True)
class MemoryActorCritic:
    """The networks of such a high level as pure functions; parameters `{"actor": {"weights": [M, K]}, "critic"}`.

    Attributes:
        config: Sizes of V. The rest does not matter here: there is one critic, its output is linear, and goals are unit
            vectors.
        heads: M.
        embedding_size: E.
    """

    config: NetworkConfig
    heads: int
    embedding_size: int

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Returns freshly drawn parameters: goals in random directions of what is remembered."""
        weights_key, value_key = jax.random.split(key)
        history, number = jnp.zeros((1, 1), jnp.int32), len(REMEMBERED)
        embedding, directions = jnp.zeros((1, self.embedding_size)), jnp.zeros((1, number, self.embedding_size))
        return {
            "actor": {"weights": _INITIAL * jax.random.normal(weights_key, (self.heads, number))},
            "critic": self._value.init(value_key, history, history, embedding, directions)["params"],
        }

    @property
    def _value(self) -> _StateValue:
        return _StateValue(self.config, self.heads)

    def weights(self, actor: dict[str, Any]) -> jax.Array:
        """Returns [M, K] how much each goal follows each of `REMEMBERED`."""
        return _STRIDE * actor["weights"]

    def named_weights(self, actor: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns the same as scalars, `goal_I_KIND`, goals counted from 1."""
        weights = self.weights(actor)
        return {
            f"goal_{goal + 1}_{kind}": weights[goal, number]
            for goal in range(self.heads)
            for number, kind in enumerate(REMEMBERED)
        }

    def slope(self, actor: dict[str, Any], directions: jax.Array) -> jax.Array:
        """Returns psi [..., M, E], by how much Q rises along a goal, for directions [..., K, E]."""
        return jnp.einsum("mk,...ke->...me", self.weights(actor), directions)

    def act(self, actor: dict[str, Any], directions: jax.Array) -> jax.Array:
        """Returns goals [..., M, E]: unit vectors, zero for a user of whom nothing is remembered."""
        return unit(self.slope(actor, directions))

    def perturb(self, goals: jax.Array, deviation: float, key: jax.Array) -> jax.Array:
        """Returns unit goals with Gaussian noise on each coordinate; no goal (zero) stays none."""
        noisy = unit(goals + deviation * jax.random.normal(key, goals.shape))
        return jnp.where(jnp.any(goals != 0, -1, keepdims=True), noisy, 0.0)

    def value(
        self, critic: dict[str, Any], state: tuple[jax.Array, jax.Array], embedding: jax.Array, directions: jax.Array
    ) -> jax.Array:
        """Returns V [..., M] of the clicked and ordered items [..., N] and directions [..., K, E]."""
        value: Any = self._value.apply({"params": critic}, *state, embedding, directions)
        return jnp.asarray(value)


def memory_targets(networks: MemoryActorCritic, target: Any, batch: Batch, embedding: jax.Array) -> jax.Array:
    """Returns [B, M] y = r + discount * (V'(s') + |psi'(s')|), the primed critic's value of the best goal."""
    assert batch.next_directions is not None
    value = networks.value(target["critic"], batch.next_state, embedding, batch.next_directions)
    best = jnp.linalg.norm(networks.slope(target["actor"], batch.next_directions), axis=-1)
    return batch.reward + batch.discount[:, None] * (value + best)


def memory_loss(
    networks: MemoryActorCritic, params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the squared error of Q, summed over goals, a mean over transitions; and metrics."""
    assert batch.directions is not None
    value = networks.value(params["critic"], batch.state, embedding, batch.directions)
    slope = networks.slope(params["actor"], batch.directions)
    q = value + jnp.sum(slope * batch.action, -1)
    chex.assert_equal_shape([q, targets, batch.reward])
    loss = jnp.sum(jnp.mean(batch.active * (q - targets) ** 2, axis=0))
    best = jnp.mean(value + jnp.linalg.norm(slope, axis=-1))
    return loss, {"critic_loss": loss, "q": jnp.mean(q), "q_of_actor": best}


def update_memory_level(
    networks: MemoryActorCritic, config: LevelConfig, level: LevelState, batch: Batch, embedding: jax.Array
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Updates the critic, its weights of directions with it, then the targets; returns the level and metrics.

    Both learn at the critic's rate.
    """
    targets = jax.lax.stop_gradient(memory_targets(networks, level.target, batch, embedding))
    optimizer = dataclasses.replace(config.optimizer, actor_rate=config.optimizer.critic_rate)
    config = dataclasses.replace(config, optimizer=optimizer)
    return descend_level(partial(memory_loss, networks), config, level, batch, targets, embedding)

"""One DDPG update of one level (Eq. 16 to 21): M critics and M policies on shared encoders, in one gradient step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from harness.compute.sharding import EPISODES, EVERYWHERE, mean_over_devices, per_device
from harness.training.optimizers import clipped_adam, descend
from hrlmg_jax.agent.networks import ActorCritic

Loss = Callable[[Any, "Batch", jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""`(params, batch, targets [B, M], embedding [J, E]) -> (loss, metrics)`, means over transitions."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam of actor and critic: learning rates, and the largest norm of each one's gradient."""

    actor_rate: float
    critic_rate: float
    clip_norm: float


@dataclass(frozen=True)
class LevelConfig:
    """How a level learns.

    Attributes:
        optimizer: Of actor and critic.
        tau: By how much the targets follow (Algorithm 2, line 27).
        gamma: Discount.
        bootstrap: Whether the end of a session, which is a truncation, is bootstrapped from like any other step.
    """

    optimizer: OptimizerConfig
    tau: float
    gamma: float
    bootstrap: bool

    def discount(self, truncated: jax.Array) -> jax.Array:
        """Returns gamma, or 0 for transitions [B] bool after which nothing counts."""
        ends = jnp.zeros_like(truncated) if self.bootstrap else truncated
        return jnp.where(ends, 0.0, self.gamma)


@flax.struct.dataclass
class LevelState:
    """What learning changes in one level: parameters, target parameters, Adam's moments (actor, critic)."""

    params: Any
    target: Any
    opt_state: Any


@flax.struct.dataclass
class Batch:
    """B transitions of one level.

    Attributes:
        state: Two histories [B, N] int32 that the state is made of.
        action: [B, M, E] executed actions (embeddings of items) or goals.
        reward: [B, M] what each head is trained on: r^low, or phi_i.
        active: [B, M] float32, 0 for goals whose stage never came (a session that ended early).
        discount: [B] gamma, or 0 where nothing follows.
        next_state: Two histories [B, N] of the next state.
        directions: [B, K, E] what the networks see besides: the active goal, or what is remembered; None for nothing.
        next_directions: [B, K, E] the same in the next state.
    """

    state: tuple[jax.Array, jax.Array]
    action: jax.Array
    reward: jax.Array
    active: jax.Array
    discount: jax.Array
    next_state: tuple[jax.Array, jax.Array]
    directions: jax.Array | None = None
    next_directions: jax.Array | None = None


def optimizers(config: OptimizerConfig) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Returns the optimisers of actor and critic."""
    return clipped_adam(config.actor_rate, config.clip_norm), clipped_adam(config.critic_rate, config.clip_norm)


def init_level(params: Any, config: OptimizerConfig) -> LevelState:
    """Returns fresh parameters as a level that has learned nothing, the targets equal to them."""
    actor, critic = optimizers(config)
    opt_state = (actor.init(params["actor"]), critic.init(params["critic"]))
    return LevelState(params, jax.tree.map(jnp.copy, params), opt_state)


def td_targets(
    networks: ActorCritic,
    target: Any,
    batch: Batch,
    embedding: jax.Array,
    executed: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Returns [B, M] y = r + discount * min_k Q'_k(s', f'(s')), with the primed actor and critics.

    Args:
        target: Target parameters.
        batch: Transitions.
        embedding: [J, E] items.
        executed: From the actor's [B, M, E] to what the critic is asked about: the same, or the nearest items.
    """
    actor_state, critic_states = networks.encode(target, *batch.next_state, embedding)
    proposal = networks.propose(target["actor"], actor_state, batch.next_directions)
    q = networks.value(target["critic"], critic_states, executed(proposal.vector), batch.next_directions)
    return batch.reward + batch.discount[:, None] * jnp.min(q, axis=0)


def actor_critic_loss(
    networks: ActorCritic, params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the critics' loss (Eq. 16, 19) plus the actor's (Eq. 18, 21), each of which moves only its own networks.

    Both are taken at the parameters before the update, so that critics and actor share one pass of encoders; the M
    heads' losses are summed, and so are the K critics'. The actor follows the first critic at its own proto-action.

    Args:
        params: Its parameters, to differentiate.
        batch: Transitions.
        targets: [B, M] from `td_targets`, constants.
        embedding: [J, E] items.
    """
    actor_state, critic_states = networks.encode(params, *batch.state, embedding)
    # Critics: (y - Q_k(s, a))^2.
    critic_loss, metrics = _critic_loss(networks, params["critic"], critic_states, batch, targets)
    # Actor: -Q_1(s, f(s)), the critic held still.
    proposal = networks.propose(params["actor"], actor_state, batch.directions)
    first_critic = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[:1]), params["critic"])
    first_state = jax.lax.stop_gradient(critic_states[:1])
    proposed = networks.value(first_critic, first_state, proposal.vector, batch.directions)[0]
    actor_loss = -jnp.sum(jnp.mean(proposed, axis=0))
    metrics |= {
        "actor_loss": actor_loss,
        "q_of_actor": jnp.mean(proposed),
        "saturation": jnp.mean(proposal.saturation),
    }
    return critic_loss + actor_loss, metrics


def critic_loss(
    networks: ActorCritic, params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the critics' loss alone; see `actor_critic_loss`."""
    _, critic_states = networks.encode(params, *batch.state, embedding)
    return _critic_loss(networks, params["critic"], critic_states, batch, targets)


def _critic_loss(
    networks: ActorCritic, critic: Any, states: jax.Array, batch: Batch, targets: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    q = networks.value(critic, states, batch.action, batch.directions)
    chex.assert_equal_shape([q[0], targets, batch.reward])
    loss = jnp.sum(jnp.mean(batch.active * (q - targets) ** 2, axis=1))
    return loss, {"critic_loss": loss, "q": jnp.mean(q)}


def descend_level(
    loss: Loss,
    config: LevelConfig,
    level: LevelState,
    batch: Batch,
    targets: jax.Array,
    embedding: jax.Array,
    moved: tuple[str, ...] = ("actor", "critic"),
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Takes one step of Adam down a loss, then lets the targets follow.

    Many devices take each the gradient of their transitions.

    Args:
        config: How the level learns.
        level: Before the step.
        batch: Transitions.
        targets: [B, M] that the loss compares with.
        embedding: [J, E] items.
        moved: Which of "actor" and "critic" learn; the other stays as it is.

    Returns:
        The level, and the metrics of the loss with the norms of the gradients.
    """

    def of_share(params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array) -> Any:
        return mean_over_devices(jax.grad(loss, has_aux=True)(params, batch, targets, embedding))

    along = PartitionSpec(EPISODES)
    spread = per_device(of_share, (EVERYWHERE, along, along, EVERYWHERE), EVERYWHERE, targets.shape[0])
    gradient, metrics = spread(level.params, batch, targets, embedding)
    params, opt_states = dict(level.params), []
    parts = zip(("actor", "critic"), optimizers(config.optimizer), level.opt_state, strict=True)
    for name, optimizer, opt_state in parts:
        if name in moved:
            params[name], opt_state, norm = descend(optimizer, gradient[name], opt_state, level.params[name])
            metrics[f"{name}_gradient_norm"] = norm
        opt_states.append(opt_state)
    return LevelState(params, optax.incremental_update(params, level.target, config.tau), tuple(opt_states)), metrics


def update_level(
    networks: ActorCritic,
    config: LevelConfig,
    level: LevelState,
    batch: Batch,
    embedding: jax.Array,
    executed: Callable[[jax.Array], jax.Array],
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Updates critics and actor once, then the targets; returns the level and its losses, Q means and saturation."""
    targets = jax.lax.stop_gradient(td_targets(networks, level.target, batch, embedding, executed))
    return descend_level(partial(actor_critic_loss, networks), config, level, batch, targets, embedding)


def fit_rewards(
    networks: ActorCritic, config: LevelConfig, level: LevelState, batch: Batch, embedding: jax.Array
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Lets the critics learn the rewards of the actions themselves, whatever follows; the actor stays as it is."""
    loss = partial(critic_loss, networks)
    return descend_level(loss, config, level, batch, batch.reward, embedding, moved=("critic",))

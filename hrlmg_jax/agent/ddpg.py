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

from harness.sharding import EPISODES, EVERYWHERE, mean_over_devices, per_device
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
        following: Two histories [B, N] of the next state.
        seen: [B, K, E] what the networks see besides: the active goal, or what is remembered; None for nothing.
        following_seen: [B, K, E] the same in the next state.
    """

    state: tuple[jax.Array, jax.Array]
    action: jax.Array
    reward: jax.Array
    active: jax.Array
    discount: jax.Array
    following: tuple[jax.Array, jax.Array]
    seen: jax.Array | None = None
    following_seen: jax.Array | None = None


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
        networks: Of the level.
        target: Target parameters.
        batch: Transitions.
        embedding: [J, E] items.
        executed: From the actor's [B, M, E] to what the critic is asked about: the same, or the nearest items.
    """
    actor_state, critic_states = networks.encode(target, *batch.following, embedding)
    proposal = networks.propose(target["actor"], actor_state, batch.following_seen)
    q = networks.value(target["critic"], critic_states, executed(proposal.vector), batch.following_seen)
    return batch.reward + batch.discount[:, None] * jnp.min(q, axis=0)


def losses(
    networks: ActorCritic, params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array, supervised: bool = False
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the critics' loss (Eq. 16, 19) plus the actor's (Eq. 18, 21), each of which moves only its own networks.

    Both are taken at the parameters before the update, so that critics and actor share one pass of encoders; the M
    heads' losses are summed, and so are the K critics'. The actor follows the first critic at its own proto-action.

    Args:
        networks: Of the level.
        params: Its parameters, to differentiate.
        batch: Transitions.
        targets: [B, M] from `td_targets`, constants.
        embedding: [J, E] items.
        supervised: Leaves the actor's loss out.
    """
    actor_state, critic_states = networks.encode(params, *batch.state, embedding)
    q = networks.value(params["critic"], critic_states, batch.action, batch.seen)
    chex.assert_equal_shape([q[0], targets, batch.reward])
    critic_loss = jnp.sum(jnp.mean(batch.active * (q - targets) ** 2, axis=1))
    if supervised:
        return critic_loss, {"critic_loss": critic_loss, "q": jnp.mean(q)}
    proposal = networks.propose(params["actor"], actor_state, batch.seen)
    first_critic = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[:1]), params["critic"])
    proposed = networks.value(first_critic, jax.lax.stop_gradient(critic_states[:1]), proposal.vector, batch.seen)[0]
    actor_loss = -jnp.sum(jnp.mean(proposed, axis=0))
    metrics = {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "q": jnp.mean(q),
        "q_of_actor": jnp.mean(proposed),
        "saturation": jnp.mean(proposal.saturation),
    }
    return critic_loss + actor_loss, metrics


def gradient_of(
    loss: Loss, params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """Returns the gradient of a loss and its metrics; many devices take each that of their transitions."""

    def own(params: Any, batch: Batch, targets: jax.Array, embedding: jax.Array) -> Any:
        return mean_over_devices(jax.grad(loss, has_aux=True)(params, batch, targets, embedding))

    along = PartitionSpec(EPISODES)
    spread = per_device(own, (EVERYWHERE, along, along, EVERYWHERE), EVERYWHERE, targets.shape[0])
    gradient, metrics = spread(params, batch, targets, embedding)
    return gradient, metrics


def descend_level(
    gradient: Any, config: OptimizerConfig, tau: float, level: LevelState, moved: tuple[str, ...]
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Takes one step of Adam, then lets the targets follow; returns the level and the norms of the gradients.

    Args:
        gradient: Of all parameters.
        config: Of both optimisers.
        tau: By how much the targets follow.
        level: Before the step.
        moved: Which of "actor" and "critic" learn; the other stays as it is.
    """
    params, opt_states, norms = dict(level.params), [], {}
    for name, optimizer, opt_state in zip(("actor", "critic"), optimizers(config), level.opt_state, strict=True):
        if name in moved:
            params[name], opt_state, norm = descend(optimizer, gradient[name], opt_state, level.params[name])
            norms[f"{name}_gradient_norm"] = norm
        opt_states.append(opt_state)
    return LevelState(params, optax.incremental_update(params, level.target, tau), tuple(opt_states)), norms


def update_level(
    networks: ActorCritic,
    config: OptimizerConfig,
    tau: float,
    level: LevelState,
    batch: Batch,
    embedding: jax.Array,
    executed: Callable[[jax.Array], jax.Array],
    supervised: bool = False,
) -> tuple[LevelState, dict[str, jax.Array]]:
    """Updates critics and actor once, then the targets; returns the level and its losses, Q means and saturation.

    With `supervised` the critics learn the rewards of the actions themselves, whatever follows, and the actor stays as
    it is.
    """
    if supervised:
        targets = batch.reward
    else:
        targets = jax.lax.stop_gradient(td_targets(networks, level.target, batch, embedding, executed))
    loss = partial(losses, networks, supervised=supervised)
    gradient, metrics = gradient_of(loss, level.params, batch, targets, embedding)
    level, norms = descend_level(gradient, config, tau, level, ("critic",) if supervised else ("actor", "critic"))
    return level, metrics | norms

"""Goals: stages of a window, internal reward (Eq. 12), benefit assignment (Eq. 14 and 15), what they are made from."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sim.histories import Histories


def stage_of(step: jax.Array, period: int, num_goals: int) -> jax.Array:
    """Returns which goal (0 to M - 1, int32) is active at a step of a session.

    A window of c steps is cut into M stages of floor(c / M) steps; a remainder goes to the last. This is one reading of
    Eq. 12 and Eq. 14, whose ranges differ by one step.

    Args:
        step: t, any shape.
        period: c >= M, steps per window.
        num_goals: M.
    """
    return jnp.minimum(step % period // (period // num_goals), num_goals - 1).astype(jnp.int32)


def internal_reward(action: jax.Array, goal: jax.Array) -> jax.Array:
    """Returns the cosine of executed action and active goal (Eq. 12), [...] for vectors [..., E]; 0 for zero."""
    norms = jnp.linalg.norm(action, axis=-1) * jnp.linalg.norm(goal, axis=-1)
    return jnp.sum(action * goal, -1) / jnp.maximum(norms, 1e-12)


def assign_benefit(stage_rewards: jax.Array, beta: float) -> jax.Array:
    """Returns phi_i = sum_{k <= i} beta^(i - k) phi0_k (Eq. 15); beta = 0 gives phi0 (Eq. 14).

    Args:
        stage_rewards: [..., M] phi0, the sum of external rewards in each stage.
        beta: Benefit discount.
    """
    stages = jnp.arange(stage_rewards.shape[-1])
    exponent = stages[:, None] - stages
    # 0^0 = 1: with beta = 0 only a goal's own stage counts.
    weight = jnp.where(exponent >= 0, jnp.power(jnp.float32(beta), jnp.maximum(exponent, 0)), 0.0)
    return stage_rewards @ weight.T


def as_directions(goal: jax.Array | None) -> jax.Array | None:
    """Returns goals [..., E] as the only direction, [..., 1, E], that networks see."""
    return None if goal is None else goal[..., None, :]


def remembered(past: Histories, embedding: jax.Array) -> jax.Array:
    """Returns [..., 3, E] what a high level remembers of a long past: where browsed, clicked and ordered items lay.

    Mean embeddings, those of n items shrunk by n / (n + 1): few items say little, and none nothing.

    Args:
        past: [..., L] items before the session, padded with -1.
        embedding: [J, E].
    """

    def mean(items: jax.Array) -> jax.Array:
        known = (items >= 0).astype(embedding.dtype)
        total = jnp.einsum("...l,...le->...e", known, embedding[jnp.maximum(items, 0)])
        return total / (known.sum(-1, keepdims=True) + 1)

    return jnp.stack([mean(past.browsed), mean(past.clicked), mean(past.ordered)], -2)

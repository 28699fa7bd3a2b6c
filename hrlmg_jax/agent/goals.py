"""Goals: stages of a window, intrinsic reward (Eq. 12), benefit assignment (Eq. 14 and 15), settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from harness.settings import Count, CountOrZero, NotNegative, SettingError, Share


def stage_of(step: jax.Array, period: int, num_goals: int) -> jax.Array:
    """Returns which goal (0 to M - 1, int32) is active at a step of a session.

    A window of c steps is cut into M stages of `stage_lengths`. This is one reading of Eq. 12 and Eq. 14, whose ranges
    differ by one step.

    Args:
        step: t, any shape.
        period: c >= M, steps per window.
        num_goals: M.
    """
    return jnp.minimum(step % period // (period // num_goals), num_goals - 1).astype(jnp.int32)


def stage_lengths(period: int, num_goals: int) -> list[int]:
    """Returns the steps of each stage: floor(c / M); the last has the remainder too, on which the paper is silent."""
    shortest = period // num_goals
    return [*[shortest] * (num_goals - 1), period - shortest * (num_goals - 1)]


def intrinsic_reward(action: jax.Array, goal: jax.Array) -> jax.Array:
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


@dataclass(frozen=True)
class GoalConfig:
    """Goals and how they act (`conf/agent/hrl_mg.yaml` explains each)."""

    enabled: bool
    count: Count
    period: Count
    intrinsic_weight: NotNegative
    benefit_discount: Share
    noise: NotNegative
    conditioned: bool
    frozen: bool
    hindsight: bool
    discount: Literal["gamma", "gamma_pow_c"]
    store_partial_window: bool
    memory: CountOrZero = 0

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.period < self.count:
            raise SettingError(
                f".period is {self.period}, less than .count ({self.count})",
                do="Every goal needs a step: give a period of at least the count.",
            )
        if self.conditioned and not self.enabled:
            raise SettingError(".conditioned needs goals", do="Set .enabled=true.")

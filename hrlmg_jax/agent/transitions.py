"""What the replay memories of both levels hold, and the batches that the levels learn from."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hrlmg_jax.agent.ddpg import Batch
from hrlmg_jax.agent.goals import GoalConfig, assign_benefit
from sim.envs.session_env import SessionObservation, SessionTrajectory
from sim.tables.events import CLICK


@flax.struct.dataclass
class LowTransition:
    """One step as ids: (s^l, a, r^ex, s'^l) follow from these, the embedding and, with a memory, the log.

    Attributes:
        browsed: [..., N] int32 before the step.
        clicked: [..., N] int32 before the step.
        item: [...] int32 recommended.
        feedback: [...] int8 answer.
        intrinsic_reward: [...] float32 r^in (Eq. 12).
        truncated: [...] bool, the session ended with this step.
        goal: [..., E] goal in force, if the low level is conditioned on it, else None.
        next_goal: [..., E] goal in force in the next state.
        ordered: [..., N] int32 before the step, if the low level has a memory, else None.
        row: [...] int32 row of the log before which the session began, likewise.
    """

    browsed: jax.Array
    clicked: jax.Array
    item: jax.Array
    feedback: jax.Array
    intrinsic_reward: jax.Array
    truncated: jax.Array
    goal: jax.Array | None = None
    next_goal: jax.Array | None = None
    ordered: jax.Array | None = None
    row: jax.Array | None = None


@flax.struct.dataclass
class HighTransition:
    """One window: (s^h, g^{1:M}, rewards, s'^h) as ids, goals and sums.

    Attributes:
        clicked: [..., N] int32 when the window began.
        ordered: [..., N] int32 when it began.
        goals: [..., M, E] (or what was done instead, with hindsight).
        stage_reward: [..., M] phi0 (Eq. 14).
        steps: [...] int32 steps in the window; fewer than c if the session ended.
        truncated: [...] bool, the session ended with this window.
        next_clicked: [..., N] int32 after it.
        next_ordered: [..., N] int32 after it.
        row: [...] int32 row of the log before which the session began, if the high level has a memory, else None.
    """

    clicked: jax.Array
    ordered: jax.Array
    goals: jax.Array
    stage_reward: jax.Array
    steps: jax.Array
    truncated: jax.Array
    next_clicked: jax.Array
    next_ordered: jax.Array
    row: jax.Array | None = None


def low_transition(
    before: SessionObservation, played: SessionTrajectory, truncated: jax.Array, intrinsic: jax.Array
) -> LowTransition:
    """Returns the step that B sessions took.

    Args:
        before: What the policy saw.
        played: What it recommended, and the answers.
        truncated: [B] bool, the session ended with this step.
        intrinsic: [B] r^in.
    """
    return LowTransition(
        browsed=before.histories.browsed,
        clicked=before.histories.clicked,
        item=played.item,
        feedback=played.feedback.astype(jnp.int8),
        intrinsic_reward=intrinsic,
        truncated=truncated,
    )


def push(history: jax.Array, item: jax.Array, happened: jax.Array) -> jax.Array:
    """Appends items [B] to histories [B, N] where something happened, [B] bool; the oldest fall out."""
    return jnp.where(happened[:, None], jnp.concatenate([history[:, 1:], item[:, None]], -1), history)


def low_batch(
    rows: LowTransition, external: jax.Array, alpha: float, discount: jax.Array, embedding: jax.Array
) -> Batch:
    """Returns the low level's transitions as arrays, r^low = r^ex + alpha r^in (Eq. 3).

    What the networks see besides the histories is left to add.

    Args:
        rows: B of them.
        external: [B] r^ex.
        alpha: Weight of the intrinsic reward; 0 for a low level alone.
        discount: [B] gamma, or 0 where nothing follows.
        embedding: [J, E] items.
    """
    reward = external + alpha * rows.intrinsic_reward
    browsed = push(rows.browsed, rows.item, jnp.ones_like(rows.truncated))
    clicked = push(rows.clicked, rows.item, rows.feedback >= CLICK)
    return Batch(
        state=(rows.browsed, rows.clicked),
        action=embedding[rows.item][:, None],
        reward=reward[:, None],
        active=jnp.ones((rows.item.shape[0], 1)),
        discount=discount,
        next_state=(browsed, clicked),
    )


def high_batch(rows: HighTransition, goals: GoalConfig, gamma: float, discount: jax.Array) -> Batch:
    """Returns the high level's windows as arrays: rewards phi_i of Eq. 15 for the goals whose stage has come.

    Args:
        rows: B windows.
        goals: M, c, beta, and whether a window is discounted as one step or as c.
        gamma: Discount of one step.
        discount: [B] gamma, or 0 where nothing follows.
    """
    began = jnp.arange(goals.count) * (goals.period // goals.count)
    if goals.discount == "gamma_pow_c":
        discount *= gamma ** (rows.steps - 1)
    return Batch(
        state=(rows.clicked, rows.ordered),
        action=rows.goals,
        reward=assign_benefit(rows.stage_reward, goals.benefit_discount),
        active=(rows.steps[:, None] > began).astype(jnp.float32),
        discount=discount,
        next_state=(rows.next_clicked, rows.next_ordered),
    )

"""The running windows of the high level: c steps in which its M goals are in force one after another."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from hrlmg_jax.agent.goals import GoalConfig, stage_of
from hrlmg_jax.agent.transitions import HighTransition
from sim.envs.histories import Histories
from sim.envs.nearest_items import unit


@flax.struct.dataclass
class Window:
    """The current window of c steps in each of B sessions.

    Attributes:
        goals: [B, M, E] in force.
        clicked: [B, N] int32 clicked items when it began (the high-level state).
        ordered: [B, N] int32 ordered items when it began.
        stage_reward: [B, M] external reward so far in each stage (phi0, Eq. 14).
        stage_action: [B, M, E] sum of the embeddings of the items recommended in each stage.
    """

    goals: jax.Array
    clicked: jax.Array
    ordered: jax.Array
    stage_reward: jax.Array
    stage_action: jax.Array


def new_window(goals: jax.Array, clicked: jax.Array, ordered: jax.Array) -> Window:
    """Returns windows that begin with goals [B, M, E] and histories [B, N]."""
    return Window(goals, clicked, ordered, jnp.zeros(goals.shape[:2]), jnp.zeros_like(goals))


def goal_in_force(window: Window, step: jax.Array, goals: GoalConfig) -> jax.Array:
    """Returns [B, E] the goal g^j of the stage that a step [B] of the sessions belongs to."""
    stage = stage_of(step, goals.period, goals.count)
    return jnp.take_along_axis(window.goals, stage[:, None, None], axis=1)[:, 0]


def add_step(window: Window, step: jax.Array, action: jax.Array, reward: jax.Array, goals: GoalConfig) -> Window:
    """Adds a step [B] to the stage that it belongs to: its action [B, E] and external reward [B] (Eq. 14)."""
    stage = jax.nn.one_hot(stage_of(step, goals.period, goals.count), goals.count)
    return dataclasses.replace(
        window,
        stage_reward=window.stage_reward + stage * reward[:, None],
        stage_action=window.stage_action + stage[..., None] * action[:, None],
    )


def high_transition(
    window: Window,
    step: jax.Array,
    truncated: jax.Array,
    after: Histories,
    row: jax.Array | None,
    goals: GoalConfig,
) -> tuple[HighTransition, jax.Array]:
    """Returns the windows as transitions of the high level, and which of them [B] bool end with a step.

    Args:
        window: With the step added.
        step: [B] int32 number of the step in its session.
        truncated: [B] bool, the session ends with it; a window cut short counts if `store_partial_window`.
        after: Histories [B, N] after it.
        row: [B] what a high level with a memory looks up in the log, else None.
        goals: c, and whether goals or (hindsight) the mean actions of their stages are stored.
    """
    steps = step % goals.period + 1
    transition = HighTransition(
        clicked=window.clicked,
        ordered=window.ordered,
        goals=unit(window.stage_action) if goals.hindsight else window.goals,
        stage_reward=window.stage_reward,
        steps=steps,
        truncated=truncated,
        next_clicked=after.clicked,
        next_ordered=after.ordered,
        row=row,
    )
    return transition, (steps == goals.period) | (truncated & goals.store_partial_window)

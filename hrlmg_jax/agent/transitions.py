"""What the replay memories of both levels hold."""

from __future__ import annotations

import flax.struct
import jax


@flax.struct.dataclass
class LowTransition:
    """One step as ids: (s^l, a, r^ex, s'^l) follow from these, the embedding and, with a memory, the log.

    Attributes:
        browsed: [..., N] int32 before the step.
        clicked: [..., N] int32 before the step.
        item: [...] int32 recommended.
        feedback: [...] int8 answer.
        internal: [...] float32 r^in (Eq. 12).
        last: [...] bool, the session ended with this step.
        goal: [..., E] goal in force, if the low level is conditioned on it, else None.
        following_goal: [..., E] goal in force in the next state.
        ordered: [..., N] int32 before the step, if the low level sees what is remembered, else None.
        row: [...] int32 row of the log before which the session began, likewise.
    """

    browsed: jax.Array
    clicked: jax.Array
    item: jax.Array
    feedback: jax.Array
    internal: jax.Array
    last: jax.Array
    goal: jax.Array | None
    following_goal: jax.Array | None
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
        last: [...] bool, the session ended with this window.
        following_clicked: [..., N] int32 after it.
        following_ordered: [..., N] int32 after it.
        row: [...] int32 row of the log before which the session began, if the high level has a memory, else None.
    """

    clicked: jax.Array
    ordered: jax.Array
    goals: jax.Array
    stage_reward: jax.Array
    steps: jax.Array
    last: jax.Array
    following_clicked: jax.Array
    following_ordered: jax.Array
    row: jax.Array | None = None

"""The running windows of the high level's goals."""

from __future__ import annotations

import flax.struct
import jax


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

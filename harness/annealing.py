"""Settings that change in the course of training."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def annealed(start: float, end: float, steps: int, done: jax.Array) -> jax.Array:
    """Returns the value that goes linearly from `start` to `end` over `steps` training steps, after `done` of them."""
    return start + jnp.clip(done / max(1, steps), 0, 1) * (end - start)

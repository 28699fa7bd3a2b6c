"""What all learners share of gradient descent: Adam on clipped gradients, and linear schedules."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def clipped_adam(learning_rate: float | optax.Schedule, clip_norm: float) -> optax.GradientTransformation:
    """Returns Adam on gradients whose global norm is clipped."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate))


def descend(
    optimizer: optax.GradientTransformation, gradient: Any, opt_state: Any, params: Any
) -> tuple[Any, Any, jax.Array]:
    """Returns parameters and optimiser state after one step, and the norm of the gradient before clipping."""
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, optax.tree.norm(gradient)


def annealed(start: float, end: float, steps: int, done: jax.Array) -> jax.Array:
    """Returns the value that goes linearly from `start` to `end` over `steps` training steps, after `done` of them.

    `optax.linear_schedule` rounds otherwise (four of ten values differ in the last bit), which would change results.
    """
    return start + jnp.clip(done / max(1, steps), 0, 1) * (end - start)

"""Fits of user models that stop early: the parameters with the lowest held-out log-loss are kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class FitState:
    """What fitting changes.

    Attributes:
        params: What is fitted.
        opt_state: Of the optimiser.
        best: Parameters with the lowest held-out log-loss so far.
        best_loss: That log-loss (nats).
        stale: int32 evaluations since.
        step: int32 updates done.
        key: Of the run.
    """

    params: Any
    opt_state: Any
    best: Any
    best_loss: jax.Array
    stale: jax.Array
    step: jax.Array
    key: jax.Array


def begun_with(params: Any, opt_state: Any, key: jax.Array) -> FitState:
    """Returns the state before the first step."""
    best = jax.tree.map(jnp.copy, params)
    return FitState(params, opt_state, best, jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0), key)


def keep_best(state: FitState, metrics: dict[str, float]) -> FitState:
    """Returns the state after an evaluation with `held_out_log_loss` (nats)."""
    if metrics["held_out_log_loss"] >= float(state.best_loss):
        return dataclasses.replace(state, stale=state.stale + 1)
    best, loss = jax.tree.map(jnp.copy, state.params), jnp.float32(metrics["held_out_log_loss"])
    return dataclasses.replace(state, best=best, best_loss=loss, stale=jnp.int32(0))

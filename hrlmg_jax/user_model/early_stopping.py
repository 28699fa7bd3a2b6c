"""Fits of user models that stop early: the parameters with the lowest held-out log-loss are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from harness.runs.run_folder import RunFolder
from harness.training.agent import Agent
from harness.training.loop import run_training
from harness.training.parallel_seeds import SeedRun
from hrlmg_jax.sessions import row_labels
from hrlmg_jax.user_model.settings import FittedConfig
from sim.tables.events import EventLog

ENOUGH_USERS = 1_500
"""Held-out users that tell when a fit stops, at most: to evaluate thousands of them would take minutes."""


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


class Fit(NamedTuple):
    """What is fitted, and how.

    Attributes:
        init, train_step, world, headline, few_steps: As of an `Agent`; the state is a `FitState`.
        evaluate: `state -> metrics`, with `held_out_log_loss` (nats) among them.
        hopeless: `state -> bool`; called after each evaluation, True ends the fit early.
    """

    init: Callable[[jax.Array, Any], FitState]
    train_step: Callable[[FitState, Any], tuple[FitState, dict[str, jax.Array]]]
    world: Any
    headline: str
    evaluate: Callable[[FitState], dict[str, float]]
    hopeless: Callable[[FitState], bool] = lambda state: False
    few_steps: bool = False


def run_fit(fit: Fit, settings: FittedConfig, log: EventLog, folder: RunFolder) -> FitState:
    """Returns the state after all steps, or after `settings.patience` evaluations without a better one.

    Args:
        fit: What is fitted.
        settings: Steps, evaluations, seed and patience.
        log: What it is fitted to.
        folder: Of metrics and checkpoints, from which it continues.
    """
    agent = Agent(
        init=fit.init,
        pretrain=lambda state: state,
        train_step=fit.train_step,
        world=fit.world,
        episodes_per_step=0,
        headline=fit.headline,
        after_evaluation=_keep_best,
        finished=lambda state: int(state.stale) >= settings.patience or fit.hopeless(state),
        few_steps=fit.few_steps,
    )
    run = SeedRun(agent, folder, jax.random.key(settings.seed), fit.evaluate)
    [state] = run_training([run], settings.train, row_labels(log))
    return state


def begun_with(params: Any, opt_state: Any, key: jax.Array) -> FitState:
    """Returns the state before the first step."""
    best = jax.tree.map(jnp.copy, params)
    return FitState(params, opt_state, best, jnp.float32(jnp.inf), jnp.int32(0), jnp.int32(0), key)


def _keep_best(state: FitState, metrics: dict[str, float]) -> FitState:
    """Returns the state after an evaluation with `held_out_log_loss` (nats)."""
    if metrics["held_out_log_loss"] >= float(state.best_loss):
        return dataclasses.replace(state, stale=state.stale + 1)
    best, loss = jax.tree.map(jnp.copy, state.params), jnp.float32(metrics["held_out_log_loss"])
    return dataclasses.replace(state, best=best, best_loss=loss, stale=jnp.int32(0))

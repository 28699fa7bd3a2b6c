"""Fits the paper's network to logged feedback."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from harness.runs.run_folder import RunFolder
from harness.training.agent import Agent
from harness.training.loop import run_training
from harness.training.parallel_seeds import SeedRun
from hrlmg_jax.sessions import row_labels
from hrlmg_jax.user_model.early_stopping import FitState, begun_with, keep_best
from hrlmg_jax.user_model.network import FeedbackNetwork, FeedbackParams, LearnedFeedback
from hrlmg_jax.user_model.settings import FitConfig, PaperConfig
from sim.datasets.sessions import SessionData
from sim.envs.histories import HistoryTable
from sim.tables.events import NUM_FEEDBACK

_EVALUATION_ROWS = 8192


@flax.struct.dataclass
class FitWorld:
    """What fitting reads on the device: the log and its training rows."""

    table: HistoryTable
    feedback: jax.Array
    rows: jax.Array
    embedding: jax.Array


def fit_feedback(config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> FeedbackParams:
    """Trains the network by cross-entropy on training users, early-stopped on held-out users.

    Args:
        config: Settings.
        embedding: [J, E] item embeddings.
        folder: Of the fit's metrics and checkpoints, from which it continues.

    Returns:
        The parameters with the lowest held-out log-loss.
    """
    # What training reads, and the base rates of the answers.
    settings = config.simulator
    assert isinstance(settings, PaperConfig)
    model = LearnedFeedback(FeedbackNetwork(settings.network))
    world = FitWorld(
        table=data.table,
        feedback=jnp.asarray(data.log.feedback),
        rows=jnp.asarray(data.rows("train"), jnp.int32),
        embedding=jnp.asarray(embedding),
    )
    length, held_out = config.env.history_length, data.rows("held_out")
    optimizer = optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay)
    rates = np.bincount(data.log.feedback[data.rows("train")], minlength=NUM_FEEDBACK) / len(world.rows)

    def init(key: jax.Array, world: FitWorld) -> FitState:
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key, world.embedding)
        # The first guess is the base rate.
        params["output"]["bias"] = jnp.asarray(np.log(np.maximum(rates, 1e-6)), jnp.float32)
        return begun_with(params, optimizer.init(params), run_key)

    def train_step(state: FitState, world: FitWorld) -> tuple[FitState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        rows = jax.random.choice(key, world.rows, (settings.batch_size,))

        def loss(params: Any) -> jax.Array:
            logits = _logits(model, FeedbackParams(params, world.embedding), world.table, rows, length)
            return jnp.mean(_cross_entropy(logits, world.feedback[rows]))

        value, gradient = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        next_state = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
        return next_state, {"log_loss": value}

    def evaluate(state: FitState) -> dict[str, float]:
        params = FeedbackParams(state.params, world.embedding)
        probabilities = predict(model, params, data, held_out, length)
        return {"held_out_log_loss": log_loss(probabilities, data.log.feedback[held_out])}

    agent = Agent(
        init=init,
        pretrain=lambda state: state,
        train_step=train_step,
        world=world,
        episodes_per_step=0,
        headline="log_loss",
        after_evaluation=keep_best,
        finished=lambda state: int(state.stale) >= settings.patience,
    )
    key = jax.random.key(settings.seed)
    [state] = run_training([SeedRun(agent, folder, key, evaluate)], settings.train, row_labels(data.log))
    return FeedbackParams(state.best, world.embedding)


def _logits(
    model: LearnedFeedback, params: FeedbackParams, table: HistoryTable, rows: jax.Array, length: int
) -> jax.Array:
    histories = jax.vmap(lambda row: table.before(row, length))(rows)
    return model.logits(params, histories, table.item_of(rows))


def _cross_entropy(logits: jax.Array, feedback: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), feedback.astype(jnp.int32)[:, None], 1)[:, 0]


_predict_batch: Callable[..., jax.Array] = jax.jit(
    lambda model, params, table, rows, length: jax.nn.softmax(_logits(model, params, table, rows, length)),
    static_argnums=(0, 4),
)


def predict(
    model: LearnedFeedback, params: FeedbackParams, data: SessionData, rows: np.ndarray, length: int
) -> np.ndarray:
    """Returns [r, 3] float64 probabilities of skip, click and order at rows of the log, given what came before."""
    size = min(_EVALUATION_ROWS, len(rows))
    parts = []
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        padded = jnp.asarray(np.resize(batch, size), jnp.int32)
        parts.append(np.asarray(_predict_batch(model, params, data.table, padded, length))[: len(batch)])
    return np.concatenate(parts).astype(np.float64)


def log_loss(probabilities: np.ndarray, feedback: np.ndarray) -> float:
    """Returns the mean negative log-likelihood (nats) of answers [R] under probabilities [R, 3]."""
    given = probabilities[np.arange(len(feedback)), feedback]
    return float(-np.mean(np.log(np.maximum(given, 1e-12))))

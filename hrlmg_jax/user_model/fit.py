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
from hrlmg_jax.user_model.early_stopping import ENOUGH_USERS, Fit, FitState, begun_with, run_fit
from hrlmg_jax.user_model.item_embedding import told_by_others
from hrlmg_jax.user_model.network import FeedbackNetwork, FeedbackParams, LearnedFeedback
from hrlmg_jax.user_model.settings import FitConfig, PaperConfig
from sim.datasets.sessions import SessionData
from sim.envs.histories import HistoryTable
from sim.tables.events import NUM_FEEDBACK

_EVALUATION_ROWS = 8192


@flax.struct.dataclass
class FitWorld:
    """What fitting reads on the device.

    Attributes:
        table, feedback: The log.
        rows: [2, r] its training rows, of two halves of the users, padded.
        number: [2] how many each half has.
        embedding: [J, E] item vectors that all users tell of.
        of_others: [2, J, E] for each half those that the other half tells of.
    """

    table: HistoryTable
    feedback: jax.Array
    rows: jax.Array
    number: jax.Array
    embedding: jax.Array
    of_others: jax.Array


def fit_feedback(config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> FeedbackParams:
    """Trains the network by cross-entropy on training users, early-stopped on held-out users.

    A step takes rows of one half of the training users, and item vectors that the other half tells of
    (`told_by_others`).

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
    world = _make_world(settings, data, embedding)
    length, held_out = config.env.history_length, data.rows_of_some_users("held_out", ENOUGH_USERS, settings.seed)
    optimizer = optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay)
    rates = np.bincount(data.log.feedback[data.rows("train")], minlength=NUM_FEEDBACK)
    rates = rates / rates.sum()

    def init(key: jax.Array, world: FitWorld) -> FitState:
        init_key, run_key = jax.random.split(key)
        params = model.init(init_key, world.embedding)
        # The first guess is the base rate.
        params["output"]["bias"] = jnp.asarray(np.log(np.maximum(rates, 1e-6)), jnp.float32)
        return begun_with(params, optimizer.init(params), run_key)

    def train_step(state: FitState, world: FitWorld) -> tuple[FitState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        half = state.step % 2
        rows = world.rows[half, jax.random.randint(key, (settings.batch_size,), 0, world.number[half])]

        def loss(params: Any) -> jax.Array:
            logits = _logits(model, FeedbackParams(params, world.of_others[half]), world.table, rows, length)
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

    state = run_fit(Fit(init, train_step, world, "log_loss", evaluate), settings, data.log, folder)
    return FeedbackParams(state.best, world.embedding)


def _make_world(settings: PaperConfig, data: SessionData, embedding: np.ndarray) -> FitWorld:
    log, rows = data.log, data.rows("train")
    users = np.random.default_rng(settings.seed).permutation(np.unique(log.user[rows]))
    halves = np.array_split(users, 2) if len(users) > 1 else [users, users]
    of_half = [rows[np.isin(log.user[rows], half)] for half in halves]
    number = [len(one) for one in of_half]
    padded = np.stack([np.pad(one, (0, max(number) - len(one))) for one in of_half])
    return FitWorld(
        table=data.table,
        feedback=jnp.asarray(log.feedback),
        rows=jnp.asarray(padded, jnp.int32),
        number=jnp.asarray(number, jnp.int32),
        embedding=jnp.asarray(embedding),
        of_others=jnp.asarray(told_by_others(settings.embedding, log, rows, halves, embedding, settings.seed)),
    )


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

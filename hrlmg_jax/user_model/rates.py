"""simulator=rates: users to whom an item is what it is to everybody, whoever they are and whatever they were shown.

What a model of users has to beat: it knows nothing of taste, and its users never tire. A policy is worth the rates of
its items, so that the list of the best of them cannot be beaten.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.run_folder import RunFolder
from hrlmg_jax.user_model.settings import FitConfig, RatesConfig
from sim.datasets.sessions import SessionData
from sim.envs.histories import Histories
from sim.tables.events import NUM_FEEDBACK


@flax.struct.dataclass
class RatesParams:
    """The shares of skips, clicks and orders by item, `rates` [J, 3], and the item `embedding` [J, E]."""

    rates: jax.Array
    embedding: jax.Array


@dataclass(frozen=True)
class RatesUsers:
    """The model as a `UserModel`."""

    config: RatesConfig

    def initial(self, params: RatesParams, start: jax.Array) -> tuple[()]:
        """Returns nothing: all users are alike."""
        return ()

    def probabilities(self, params: RatesParams, hidden: tuple[()], histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [3] probabilities of skip, click and order."""
        return params.rates[item]

    def update(self, params: RatesParams, hidden: tuple[()], item: jax.Array, feedback: jax.Array) -> tuple[()]:
        """Returns nothing."""
        return ()

    def fit(self, config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> RatesParams:
        """Counts the answers of training users; an item begins with some events at the rates of all."""
        rows = data.rows("train")
        counts = np.zeros((len(embedding), NUM_FEEDBACK))
        np.add.at(counts, (data.log.item[rows], data.log.feedback[rows]), 1)
        prior = self.config.prior_events * counts.sum(0) / counts.sum()
        rates = (counts + prior) / (counts.sum(1, keepdims=True) + self.config.prior_events)
        return RatesParams(jnp.asarray(rates, jnp.float32), jnp.asarray(embedding))

    def shapes(self, num_items: int, embedding_size: int) -> RatesParams:
        """Returns parameters with shapes in place of arrays."""
        rates, embedding = (jax.ShapeDtypeStruct((num_items, n), jnp.float32) for n in (NUM_FEEDBACK, embedding_size))
        return RatesParams(rates, embedding)  # type: ignore[arg-type]

    def in_sessions(self, params: RatesParams, data: SessionData, rows: np.ndarray) -> RatesParams:
        """Returns the parameters: the past does not matter."""
        return params

    def of_strangers(self, params: RatesParams, number: int) -> RatesParams:
        """Returns the parameters."""
        return params

    def predict(self, params: RatesParams, data: SessionData, rows: np.ndarray, history_length: int) -> np.ndarray:
        """Returns [r, 3] probabilities at rows of the log."""
        return np.asarray(params.rates, np.float64)[data.log.item[rows]]

    def findings(self, params: RatesParams) -> list[str]:
        """Returns nothing."""
        return []

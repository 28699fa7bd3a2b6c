"""simulator=paper: the user of Section 4.1, whose past are the histories alone."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.run_folder import RunFolder
from hrlmg_jax.user_model.fit import fit_feedback, predict
from hrlmg_jax.user_model.network import FeedbackParams, LearnedFeedback
from hrlmg_jax.user_model.settings import FitConfig
from sim.datasets.sessions import SessionData


@dataclass(frozen=True)
class PaperUsers(LearnedFeedback):
    """The paper's network as a `UserModel`."""

    def fit(self, config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> FeedbackParams:
        """Trains the network by cross-entropy."""
        return fit_feedback(config, data, embedding, folder)

    def shapes(self, num_items: int, embedding_size: int) -> FeedbackParams:
        """Returns parameters with shapes in place of arrays."""
        embedding = jax.ShapeDtypeStruct((num_items, embedding_size), jnp.float32)
        network = jax.eval_shape(self.init, jax.random.key(0), embedding)
        return FeedbackParams(network, embedding)  # type: ignore[arg-type]

    def in_sessions(self, params: FeedbackParams, data: SessionData, rows: np.ndarray) -> FeedbackParams:
        """Returns the parameters: histories are the environment's."""
        return params

    def of_strangers(self, params: FeedbackParams, number: int) -> FeedbackParams:
        """Returns the parameters."""
        return params

    def predict(self, params: FeedbackParams, data: SessionData, rows: np.ndarray, history_length: int) -> np.ndarray:
        """Returns [r, 3] probabilities given the histories before each row."""
        return predict(self, params, data, rows, history_length)

    def findings(self, params: FeedbackParams) -> list[str]:
        """Returns nothing."""
        return []

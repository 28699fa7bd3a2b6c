"""The protocol of users learned from a log."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from harness.runs.run_folder import RunFolder
from hrlmg_jax.user_model.settings import FitConfig
from sim.datasets.sessions import SessionData
from sim.envs.session_env import FeedbackModel


class UserModel(FeedbackModel, Protocol):
    """How learned users answer, and how they are learned.

    As a `FeedbackModel` it is a pure function of one session: `initial` gives the user's state at its beginning,
    `probabilities` what they answer in a state, `update` the state after an answer. What is known of the past of each
    session's user enters by `in_sessions`, once. The parameters are a `flax.struct` dataclass with the item vectors
    [J, E] as `embedding`; they are kept in a file by the names of their fields.
    """

    def fit(self, config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> Any:
        """Returns parameters learned from training users; held-out users may stop the fit and nothing else.

        Args:
            config: Settings.
            data: The log and its parts.
            embedding: [J, E] item vectors.
            folder: Of the fit's metrics and checkpoints, from which it continues.
        """

    def shapes(self, num_items: int, embedding_size: int) -> Any:
        """Returns parameters with shapes in place of arrays."""

    def in_sessions(self, params: Any, data: SessionData, rows: np.ndarray) -> Any:
        """Returns what `initial` reads in sessions that begin at rows [S] of the log: nothing that came later."""

    def of_strangers(self, params: Any, number: int) -> Any:
        """Returns what `initial` reads in sessions of users of whom nothing is known."""

    def predict(self, params: Any, data: SessionData, rows: np.ndarray, history_length: int) -> np.ndarray:
        """Returns [r, 3] float64 probabilities of skip, click and order at rows of the log, given what came before."""

    def findings(self, params: Any) -> list[str]:
        """Returns what the fit has found out about the log that a reader of its report should know, a sentence each."""

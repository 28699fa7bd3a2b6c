"""Users who answer as they did in a log that knows nearly all answers: an environment without unknown ones.

A user answers an item as they did when they were shown it, whenever that was and whatever came before; of several
answers the strongest counts. The few items that they were never shown are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from sim.envs.histories import Histories
from sim.tables.events import NUM_FEEDBACK, EventLog

_MOST_BYTES = 2**31


@flax.struct.dataclass
class MatrixParams:
    """`answers` [U, I] int8 of all users to all items, and the `user` [S] int32 of each session."""

    answers: jax.Array
    user: jax.Array


@dataclass(frozen=True)
class MatrixUsers:
    """The users of a complete log as a `FeedbackModel`; the hidden state is who it is."""

    def initial(self, params: MatrixParams, start: jax.Array) -> jax.Array:
        """Returns the user of a session."""
        return params.user[start]

    def probabilities(
        self, params: MatrixParams, hidden: jax.Array, histories: Histories, item: jax.Array
    ) -> jax.Array:
        """Returns probability 1 for the answer that the log knows."""
        return jax.nn.one_hot(params.answers[hidden, item], NUM_FEEDBACK)

    def update(self, params: MatrixParams, hidden: jax.Array, item: jax.Array, feedback: jax.Array) -> jax.Array:
        """Returns the user, whom no answer changes."""
        return hidden


def matrix_of_sessions(log: EventLog, rows: np.ndarray) -> MatrixParams:
    """Returns the answers of a complete log, for sessions that begin at rows [S] of it.

    Raises:
        UserError: The matrix of all users and items is too large for memory.
    """
    if log.num_users * log.num_items > _MOST_BYTES:
        raise UserError(
            f"the answers of {log.num_users:,} users to {log.num_items:,} items are too many for env.users=truth",
            where=log.source,
            do="Set env.users=learned.",
        )
    answers = np.zeros((log.num_users, log.num_items), np.int8)
    np.maximum.at(answers, (log.user, log.item), log.feedback)
    return MatrixParams(jnp.asarray(answers), jnp.asarray(log.user[rows], jnp.int32))

"""Item embeddings from training logs: matrix factorisation of who was shown, clicked and ordered what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from sklearn.utils.extmath import randomized_svd

from harness.errors import UserError
from harness.settings import Count, NotNegative
from sim.tables.events import EventLog


@dataclass(frozen=True)
class EmbeddingConfig:
    """Settings of the item embeddings (`conf/simulator/base.yaml` explains each)."""

    size: Count
    together: Literal["user", "session"]
    skip_weight: NotNegative
    click_weight: NotNegative
    order_weight: NotNegative
    spectrum_power: NotNegative

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.skip_weight == self.click_weight == self.order_weight == 0:
            raise UserError("simulator.embedding.*_weight are all 0", do="Give one of them a value.")


def embed_items(config: EmbeddingConfig, log: EventLog, rows: np.ndarray, seed: int) -> np.ndarray:
    """Embeds the items of a log by the sessions that they share.

    X [sessions, J] holds the weight of each feedback. With D_s and D_i the sums of its rows and columns, the singular
    vectors of D_s^-1/2 X D_i^-1/2 beyond the first (which only tells popularity) place items near each other that occur
    together more often than by chance: the second-order factorisation of item-to-item co-occurrence, at a cost linear
    in the log. Items are scaled by sigma^spectrum_power and to norm 1.

    Args:
        config: Weights and size.
        rows: [r] its training rows; nothing else is looked at.

    Returns:
        [J, E] float32 of unit norm. Items without training rows (that have a weight) get the mean direction; where the
        log supports fewer dimensions the rest are 0.
    """
    weight = np.asarray([config.skip_weight, config.click_weight, config.order_weight])[log.feedback[rows]]
    if not weight.any():
        raise UserError(
            f"no feedback in the training part of {log.name} has a weight",
            where="simulator.embedding",
            do="Give a positive weight to a feedback that occurs: skip_weight, click_weight or order_weight.",
        )
    _, group = np.unique((log.user if config.together == "user" else log.session)[rows], return_inverse=True)
    items, column = np.unique(log.item[rows], return_inverse=True)  # items of other rows change no random number
    shape = (int(group.max()) + 1, len(items))
    together = scipy.sparse.csr_array((weight, (group, column)), shape=shape)
    scaled = _scaled(together)
    rank = min(config.size + 1, min(shape) - 1)
    if rank < 2:
        raise UserError(
            f"{log.name} has too few sessions or items to embed", where=log.source, do="Provide a longer training log."
        )
    _, sigma, right = randomized_svd(scaled, rank, n_iter=5, random_state=np.random.RandomState(seed % 2**32))
    vectors = np.zeros((len(items), config.size))
    vectors[:, : rank - 1] = (right[1:] * sigma[1:, None] ** config.spectrum_power).T
    count = np.asarray(together.sum(0)).ravel()
    vectors /= np.sqrt(np.maximum(count, 1e-12))[:, None]
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = (count[:, None] > 0) & (norm > 1e-12)  # the factorisation leaves rounding errors where the column is empty
    vectors = np.divide(vectors, norm, out=np.zeros_like(vectors), where=known)
    mean = vectors.mean(0)
    mean = mean / np.linalg.norm(mean) if np.linalg.norm(mean) > 1e-12 else np.eye(1, config.size)[0]
    embedding = np.tile(mean, (log.num_items, 1))
    embedding[items] = np.where(known, vectors, mean)
    return embedding.astype(np.float32)


def _scaled(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Returns D_s^-1/2 X D_i^-1/2; empty rows and columns stay empty."""
    sums = [np.asarray(matrix.sum(axis)).ravel() for axis in (1, 0)]
    by_row, by_column = (scipy.sparse.diags_array(1 / np.sqrt(np.maximum(total, 1e-12))) for total in sums)
    return scipy.sparse.csr_array(by_row @ matrix @ by_column)

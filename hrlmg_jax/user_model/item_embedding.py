"""Item embeddings from training logs: matrix factorisation of who was shown, clicked and ordered what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from harness.errors import UserError
from harness.settings import Count, NotNegative, SettingError
from sim.tables.events import EventLog

_PRIOR, _LARGEST = 50.0, 2.5  # of the appeal


@dataclass(frozen=True)
class EmbeddingConfig:
    """Settings of the item embeddings (`conf/simulator/base.yaml` explains each)."""

    size: Count
    together: Literal["user", "session"]
    skip_weight: NotNegative
    click_weight: NotNegative
    order_weight: NotNegative
    spectrum_power: NotNegative
    appeal_weight: NotNegative = 0.0

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.skip_weight == self.click_weight == self.order_weight == 0:
            raise SettingError(".*_weight are all 0", do="Give one of them a value.")
        if self.appeal_weight and self.size == 1:
            raise SettingError(
                ".size is 1: .appeal_weight leaves no room for directions",
                do="Set the size to 2 at least, or the weight to 0.",
            )


def embed_items(config: EmbeddingConfig, log: EventLog, rows: np.ndarray, seed: int) -> np.ndarray:
    """Embeds the items of a log by the sessions that they share.

    X [sessions, J] holds the weight of each feedback. With D_s and D_i the sums of its rows and columns, the singular
    vectors of D_s^-1/2 X D_i^-1/2 beyond the first (which only tells popularity) place items near each other that occur
    together more often than by chance: the second-order factorisation of item-to-item co-occurrence, at a cost linear
    in the log. Items are scaled by sigma^spectrum_power and to norm 1.

    Where the appeal has a weight, a coordinate in place of the last of these says how well an item does with everyone
    (`_appeal`), times the weight, before the norm is 1 again: shared sessions tell tastes apart, and not the good items
    of a taste from the bad ones.

    Args:
        config: Weights and size.
        rows: [r] its training rows; nothing else is looked at.

    Returns:
        [J, E] float32 of unit norm. Items without training rows (that have a weight) get the mean direction; where the
        log supports fewer dimensions the rest are 0.
    """
    from sklearn.utils.extmath import randomized_svd  # slow to import, needed by this computation only

    # Which items share a session, and with which weight.
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
    # Singular vectors beyond the first, and the appeal.
    directions = config.size - bool(config.appeal_weight)
    rank = min(directions + 1, min(shape) - 1)
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
    return _with_appeal(config, embedding, log, rows)


def turned_towards(
    config: EmbeddingConfig, embedding: np.ndarray, known: np.ndarray, earlier: np.ndarray
) -> np.ndarray:
    """Turns item vectors so that known items come as near as they can to where they were (orthogonal Procrustes).

    A factorisation is as good in every turn of its directions; the appeal is a coordinate of its own and not turned.

    Args:
        config: Says whether the last coordinate is the appeal.
        embedding: [J, E] vectors.
        known: [K] indices of known items.
        earlier: [K, E] where they were.

    Returns:
        [J, E] float32, each of the norm that it had.
    """
    directions = config.size - bool(config.appeal_weight)
    left, _, right = np.linalg.svd(embedding[known, :directions].T.astype(np.float64) @ earlier[:, :directions])
    turned = embedding.copy()
    turned[:, :directions] = embedding[:, :directions] @ (left @ right)
    return turned.astype(np.float32)


def told_by_others(
    config: EmbeddingConfig,
    log: EventLog,
    rows: np.ndarray,
    halves: Sequence[np.ndarray],
    embedding: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Returns [2, J, E] for each half of the training users the vectors that the other half tells of.

    In those of all, items that a user has clicked are near each other because of that, and predict what they were made
    of. These are turned towards those of all, with which users of neither half are predicted.

    Args:
        rows: [r] training rows.
        halves: Two arrays of users.
        embedding: [J, E] vectors of all; also of a half that is too small to tell anything.
        seed: Of the factorisation.
    """

    def told_by(users: np.ndarray) -> np.ndarray:
        theirs = rows[np.isin(log.user[rows], users)]
        try:
            vectors = embed_items(config, log, theirs, seed)
        except UserError:
            return embedding
        known = np.unique(log.item[theirs])
        return turned_towards(config, vectors, known, embedding[known])

    first, second = halves
    return np.stack([told_by(second), told_by(first)])


def _with_appeal(config: EmbeddingConfig, vectors: np.ndarray, log: EventLog, rows: np.ndarray) -> np.ndarray:
    """Returns [J, E] float32 vectors of unit norm, their last coordinate the appeal if that has a weight."""
    if config.appeal_weight:
        vectors = vectors.copy()
        vectors[:, -1] = config.appeal_weight * _appeal(log, rows)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def _appeal(log: EventLog, rows: np.ndarray) -> np.ndarray:
    """Returns [J] the logarithm of each item's reward per impression, relative to all items', in standard deviations.

    The rewards are the paper's: 1 for a click and 5 for an order. An item counts as if it had been shown 50 times
    more, at the mean rate; no appeal is further than 2.5 from 0.
    """
    reward = np.asarray([0.0, 1.0, 5.0])[log.feedback[rows]]
    mean = reward.mean()
    if not mean:
        return np.zeros(log.num_items)
    total = np.bincount(log.item[rows], reward, minlength=log.num_items)
    shown = np.bincount(log.item[rows], minlength=log.num_items)
    appeal = np.log((total / mean + _PRIOR) / (shown + _PRIOR))
    deviation = appeal[shown > 0].std()
    return np.clip(appeal / max(deviation, 1e-12), -_LARGEST, _LARGEST)


def _scaled(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Returns D_s^-1/2 X D_i^-1/2; empty rows and columns stay empty."""
    sums = [np.asarray(matrix.sum(axis)).ravel() for axis in (1, 0)]
    by_row, by_column = (scipy.sparse.diags_array(1 / np.sqrt(np.maximum(total, 1e-12))) for total in sums)
    return scipy.sparse.csr_array(by_row @ matrix @ by_column)

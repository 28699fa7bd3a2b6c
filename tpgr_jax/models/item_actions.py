"""The items as actions of a continuous policy: fixed vectors in the unit ball, from training users only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse.linalg import svds

from harness.settings import Count
from sim.tables.ratings import RatingData
from tpgr_jax.models.matrix_factorisation import factor_vectors


@dataclass(frozen=True)
class VectorConfig:
    """Which vectors (`conf/agent/ddpg_knn.yaml` explains each)."""

    vectors: Literal["svd", "mf"]
    vector_size: Count
    vector_epochs: Count
    vector_length: Literal["unit", "at_most_one"]


def action_vectors(
    config: VectorConfig, data: RatingData, users: np.ndarray, reward_of_code: np.ndarray, seed: int
) -> np.ndarray:
    """Returns [I, E] float32 item vectors for `World.item_vectors`.

    Args:
        config: "svd" is `reward_vectors`, "mf" is `factor_vectors`; their length as in `scaled_vectors`.
        data: Ratings.
        users: [n] training users, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code.
    """
    if config.vectors == "svd":
        vectors = reward_vectors(data, users, reward_of_code, config.vector_size)
    else:
        vectors = factor_vectors(data, users, config.vector_size, config.vector_epochs, seed)
    return scaled_vectors(vectors, config.vector_length)


def scaled_vectors(vectors: np.ndarray, length: str) -> np.ndarray:
    """Returns item vectors [I, E] in the unit ball, where proto-actions lie too.

    Args:
        vectors: [I, E].
        length: "unit": each of norm 1 (zero stays zero); "at_most_one": all divided by the largest norm.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if length == "at_most_one":
        norms = norms.max(keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def reward_vectors(data: RatingData, users: np.ndarray, reward_of_code: np.ndarray, size: int) -> np.ndarray:
    """Returns [I, size] right singular vectors of the users' empirical rewards times the singular values.

    PureSVD (Cremonesi, Koren and Turrin 2010), where an item that a user did not rate counts as 0, which is what the
    simulator pays for it. Largest singular value first; columns beyond the rank that can be had are zero.

    Args:
        data: Ratings.
        users: [n] training users, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code; the first is 0.
        size: E.
    """
    rewards = data.matrix(reward_of_code, users).astype(np.float64)
    rank = min(size, *(side - 1 for side in rewards.shape))
    vectors = np.zeros((data.num_items, size), np.float32)
    if rank > 0 and rewards.data.any():
        # A fixed start makes the iteration repeatable.
        _, singular, right = svds(rewards, k=rank, v0=np.ones(min(rewards.shape)))
        vectors[:, :rank] = (right.T * singular)[:, np.argsort(-singular)]
    return vectors

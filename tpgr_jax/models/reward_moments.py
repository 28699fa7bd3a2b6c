"""Means, covariances and principal axes of users' rewards; an item that a user did not rate has reward 0.

Everything works on the sparse matrix of rewards: no table of users x items is made.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from harness.errors import UserError
from sim.tables.ratings import RatingData

_ROWS_AT_A_TIME = 256
_SMALL_CATALOGUE = 512  # up to here a dense decomposition is as fast as an iterative one


def reward_matrix(data: RatingData, users: np.ndarray, reward_of_code: np.ndarray) -> scipy.sparse.csr_array:
    """Returns the sparse [n, I] float64 matrix of empirical rewards.

    Args:
        data: Ratings of all users.
        users: [n] (training) users, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code; entry 0 is 0.
    """
    return data.matrix(reward_of_code, users).astype(np.float64)


def mean_rewards(rewards: scipy.sparse.csr_array) -> np.ndarray:
    """Returns [I] float64 mean reward of each item over all n users."""
    return np.asarray(rewards.sum(axis=0)) / rewards.shape[0]


def reward_covariance(rewards: scipy.sparse.csr_array) -> np.ndarray:
    """Returns the dense [I, I] float32 covariance of the items' rewards over the n users.

    Rows are made some at a time, so that beside the result only sparse matrices are held.
    """
    num_users, num_items = rewards.shape
    mean = mean_rewards(rewards)
    by_item = rewards.T.tocsr()
    covariance = np.empty((num_items, num_items), np.float32)
    for first in range(0, num_items, _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        covariance[rows] = (by_item[rows] @ rewards).toarray() / num_users - mean[rows, None] * mean
    return covariance


def principal_axes(
    rewards: scipy.sparse.csr_array, size: int, centred: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest eigenvalues of the items' second moments and their eigenvectors.

    The truncated singular value decomposition of the reward matrix, by Lanczos iteration (ARPACK) on a linear
    operator.

    Args:
        rewards: [n, I] rewards.
        size: K <= I, how many.
        centred: Whether to subtract each item's mean over users: moments are covariances, else mean products.

    Returns:
        [K] eigenvalues, largest first, none negative; [I, K] orthonormal eigenvectors, float64.

    Raises:
        UserError: More axes than items.
    """
    num_users, num_items = rewards.shape
    if size > num_items:
        raise UserError(f"asks for {size} factors of {num_items:,} items", where="agent.policy", do="Set fewer.")
    mean = mean_rewards(rewards) if centred else np.zeros(num_items)

    def moments(block: np.ndarray) -> np.ndarray:
        return rewards.T @ (rewards @ block) / num_users - np.multiply.outer(mean, mean @ block)

    if num_items <= max(_SMALL_CATALOGUE, size):
        values, vectors = np.linalg.eigh(moments(np.eye(num_items)))
    else:
        operator = scipy.sparse.linalg.LinearOperator(
            (num_items, num_items), matvec=moments, matmat=moments, dtype=np.float64
        )
        start = np.random.default_rng(seed).standard_normal(num_items)
        values, vectors = scipy.sparse.linalg.eigsh(operator, size, v0=start)
    order = np.argsort(values)[::-1][:size]
    return np.maximum(values[order], 0), vectors[:, order]

"""Means, covariances and principal axes of users' rewards; an item that a user did not rate has reward 0.

Everything works on the sparse matrix of rewards: no table of users x items is made.
"""

from __future__ import annotations

from collections.abc import Callable

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
    mean = mean_rewards(rewards) if centred else np.zeros(num_items)

    def moments(vector: np.ndarray) -> np.ndarray:
        return rewards.T @ (rewards @ vector) / num_users - mean * (mean @ vector)

    return largest_eigenvectors(moments, num_items, size, seed)


def largest_eigenvectors(
    moments: Callable[[np.ndarray], np.ndarray], number: int, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest eigenvalues of a positive semi-definite matrix and their eigenvectors.

    Args:
        moments: The product of the [N, N] matrix with a vector.
        number: N.
        size: K <= N, how many.
        seed: Of the vector that the iteration begins with.

    Returns:
        [K] eigenvalues, largest first, none negative; [N, K] orthonormal eigenvectors, float64.

    Raises:
        UserError: K > N.
    """
    if size > number:
        raise UserError(f"asks for {size} factors of {number:,} items", where="agent.policy", do="Set fewer.")
    if number <= max(_SMALL_CATALOGUE, size):
        values, vectors = np.linalg.eigh(np.stack([moments(unit) for unit in np.eye(number)], 1))
    else:
        operator = scipy.sparse.linalg.LinearOperator((number, number), matvec=moments, dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(number)
        values, vectors = scipy.sparse.linalg.eigsh(operator, size, v0=start)
    order = np.argsort(values)[::-1][:size]
    return np.maximum(values[order], 0), vectors[:, order]

"""The value of an item as a product of numbers of its own with numbers of the user, and with fewer of either.

An item with predicted reward r and chance p of a positive one is worth (1 - share) r + share p, where share says how
much a streak counts. Both predictions are linear in the user's K factors, so that the value is a product of 2 (K + 1)
numbers. r and p of an item go together; a few combinations of these numbers hold nearly all that values differ by.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tpgr_jax.models.user_response_model import POSITIVE, REWARD, FittedResponses


def value_rows(fitted: FittedResponses) -> np.ndarray:
    """Returns [I, 2 (K + 1)]: loadings and mean of each item's reward, then of its chance of a positive one."""
    return np.concatenate(
        [
            part
            for channel in (REWARD, POSITIVE)
            for part in (fitted.loadings[:, channel], fitted.mean[:, channel, None])
        ],
        1,
    )


def value_inputs(factors: jax.Array, share: jax.Array) -> jax.Array:
    """Returns [S, 2 (K + 1)], whose products with `value_rows` are the values of items.

    Args:
        factors: [S, K] of users.
        share: [S] of the chance of a positive answer in the value, 0 to 1.
    """
    weight = share[:, None]
    with_one = jnp.concatenate([factors, jnp.ones_like(weight)], -1)
    return jnp.concatenate([(1 - weight) * with_one, weight * with_one], -1)


def compressed(rows: np.ndarray, rank: int, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best approximation of values by products of R numbers: [2 (K + 1), R] for users, [I, R] of items.

    The best in the weighted mean square over items, and over users whose factors are independent with unit variance (as
    the model's are before any answer) and whose shares are spread evenly over 0 to 1: the singular value decomposition
    of the rows in the metric of these users' inputs (Eckart and Young 1936).

    Args:
        rows: [I, 2 (K + 1)] of `value_rows`.
        rank: R, at most 2 (K + 1).
        weight: [I] of items, at least 0: where an error would change decisions.
    """
    # Second moments of the inputs: 1/3 of (1 - share)^2 and share^2, 1/6 of their product.
    moments = np.kron([[1 / 3, 1 / 6], [1 / 6, 1 / 3]], np.eye(rows.shape[1] // 2))
    root = np.linalg.cholesky(moments)
    _, vectors = np.linalg.eigh(root.T @ ((rows * weight[:, None]).T @ rows) @ root)
    largest = vectors[:, ::-1][:, :rank]
    return np.linalg.solve(root.T, largest), rows @ root @ largest

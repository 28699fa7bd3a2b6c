"""The four metrics of Table 2 per user, and confidence intervals of their means."""

from __future__ import annotations

from dataclasses import dataclass

import chex
import numpy as np


@dataclass(frozen=True)
class UserMetrics:
    """One entry per test user, [U] float64 each.

    Attributes:
        reward: Mean reward per recommendation.
        precision: Hits / T.
        recall: Hits / number of relevant items of the user; 0 if there are none.
        f1: Harmonic mean of the two; 0 without hits. Its mean over users is the paper's F1.
    """

    reward: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def user_metrics(rewards: np.ndarray, hits: np.ndarray, num_relevant: np.ndarray) -> UserMetrics:
    """Computes the metrics of one episode per user.

    Args:
        rewards: [U, T] reward of each recommendation.
        hits: [U, T] bool, the item is relevant to the user.
        num_relevant: [U] number of relevant items of each user.
    """
    chex.assert_rank([rewards, hits, num_relevant], [2, 2, 1])
    chex.assert_equal_shape([rewards, hits])
    chex.assert_equal_shape_prefix([rewards, num_relevant], 1)
    num_hits = hits.sum(axis=1)
    precision = num_hits / hits.shape[1]
    recall = num_hits / np.maximum(num_relevant, 1)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return UserMetrics(rewards.mean(axis=1, dtype=np.float64), precision, recall, f1)

"""Ranking metrics: average precision and normalised discounted cumulative gain."""

from __future__ import annotations

import chex
import numpy as np


def average_precision(relevant: np.ndarray) -> np.ndarray:
    """Returns [S] the average precision of each list: the mean of precision@k over the ranks k of its relevant items.

    Args:
        relevant: [S, L] bool, best rank first; pad short lists with False. A list without a relevant item gets 0.
    """
    chex.assert_rank(relevant, 2)
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, relevant.shape[1] + 1)
    return np.sum(precision * relevant, axis=1) / np.maximum(hits[:, -1], 1)


def ndcg(gain: np.ndarray, cutoff: int) -> np.ndarray:
    """Returns [S] DCG@k / ideal DCG@k with DCG@k = sum_{i <= k} gain_i / log2(i + 1) (Jaervelin and Kekaelaeinen 2002).

    Args:
        gain: [S, L] gains >= 0, best rank first; pad short lists with 0. A list without any gain gets 0.
        cutoff: k.
    """
    chex.assert_rank(gain, 2)
    ideal = -np.sort(-gain, axis=1)
    discount = 1 / np.log2(np.arange(2, gain.shape[1] + 2))
    dcg, ideal_dcg = ((values * discount)[:, :cutoff].sum(1) for values in (gain, ideal))
    return np.divide(dcg, ideal_dcg, out=np.zeros(len(gain)), where=ideal_dcg > 0)

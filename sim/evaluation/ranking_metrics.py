"""How good the order of a list is: average precision and normalised discounted cumulative gain."""

from __future__ import annotations

import numpy as np


def average_precision(relevant: np.ndarray) -> np.ndarray:
    """Returns [S] the mean, over the relevant places of each list, of the share of relevant items up to that place.

    Args:
        relevant: [S, L] bool, best rank first; pad short lists with False. A list without a relevant item gets 0.
    """
    hits = np.cumsum(relevant, axis=1)
    precision = hits / np.arange(1, relevant.shape[1] + 1)
    return np.sum(precision * relevant, axis=1) / np.maximum(hits[:, -1], 1)


def ndcg(gain: np.ndarray, cutoff: int) -> np.ndarray:
    """Returns [S] DCG@k / ideal DCG@k with DCG@k = sum_{i <= k} gain_i / log2(i + 1) (Jaervelin and Kekaelaeinen 2002).

    Args:
        gain: [S, L] gains >= 0, best rank first; pad short lists with 0. A list without any gain gets 0.
        cutoff: k.
    """
    ideal = -np.sort(-gain, axis=1)
    discount = 1 / np.log2(np.arange(2, gain.shape[1] + 2))
    found, best = ((values * discount)[:, :cutoff].sum(1) for values in (gain, ideal))
    return np.divide(found, best, out=np.zeros(len(gain)), where=best > 0)

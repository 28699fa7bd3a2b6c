"""The four metrics of Table 2 per user, and how sure a mean is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class UserMetrics:
    """One entry per test user, [U] float64 each.

    Attributes:
        reward: Mean reward per recommendation.
        precision: Hits / T.
        recall: Hits / number of relevant items of the user, 0 without any.
        f1: Harmonic mean of the two, 0 without hits. Its mean over users is the paper's F1.
    """

    reward: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def user_metrics(rewards: np.ndarray, hits: np.ndarray, num_relevant: np.ndarray) -> UserMetrics:
    """Computes the metrics of one episode per user.

    Args:
        rewards: [U, T].
        hits: [U, T] bool, the item is relevant to the user.
        num_relevant: [U] relevant items of each user.
    """
    num_hits = hits.sum(axis=1)
    precision = num_hits / hits.shape[1]
    recall = num_hits / np.maximum(num_relevant, 1)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return UserMetrics(rewards.mean(axis=1, dtype=np.float64), precision, recall, f1)


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the t-interval of the mean of [n] independent values; a single value is its own interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean
    import scipy.stats  # takes a second to import, which short commands need not wait for

    margin = scipy.stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * scipy.stats.sem(values)
    return mean - float(margin), mean + float(margin)


def clustered_mean_interval(totals: np.ndarray, counts: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the t-interval of the mean of values that come in independent groups, such as the ratings of users.

    The mean over all values is the ratio of two sums over groups; its variance is that of a ratio estimator (Cochran,
    Sampling Techniques, 1977, chapter 6). A single group is its own interval.

    Args:
        totals: [n] sum of each group's values.
        counts: [n] their number, at least 1.
        confidence: Of the interval.
    """
    groups = len(counts)
    mean = float(np.sum(totals) / np.sum(counts))
    if groups < 2:
        return mean, mean
    import scipy.stats

    squares = float(np.sum((totals - mean * counts) ** 2))
    error = np.sqrt(squares * groups / (groups - 1)) / np.sum(counts)
    margin = float(scipy.stats.t.ppf(0.5 + confidence / 2, groups - 1) * error)
    return mean - margin, mean + margin


def welch_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the two-sided p-value of Welch's unequal-variance t-test (Ruxton 2006); 1 where both never vary.

    Args:
        first: [n] values, n >= 2, for instance one reward per test user.
        second: [m] values, m >= 2.
    """
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return 1.0 if first[0] == second[0] else 0.0
    import scipy.stats

    tested = scipy.stats.ttest_ind_from_stats(
        np.mean(first),
        np.std(first, ddof=1),
        len(first),
        np.mean(second),
        np.std(second, ddof=1),
        len(second),
        equal_var=False,
    )
    return float(tested.pvalue)

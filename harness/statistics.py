"""Confidence intervals and tests of means."""

from __future__ import annotations

import numpy as np


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the t-interval of the mean of [n] independent values; of a single value, the value itself twice."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean
    import scipy.stats  # takes a second to import; short commands do without

    margin = scipy.stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * scipy.stats.sem(values)
    return mean - float(margin), mean + float(margin)


def clustered_mean_interval(totals: np.ndarray, counts: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the t-interval of the mean of values that come in independent groups, such as the ratings of users.

    The mean over all values is the ratio of two sums over groups; its variance is that of a ratio estimator (Cochran,
    Sampling Techniques, 1977, chapter 6). Of a single group, the mean itself twice.

    Args:
        totals: [n] sum of each group's values.
        counts: [n] number of values in each group, at least 1.
        confidence: Confidence level.
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
    """Returns the two-sided p-value of Welch's unequal-variance t-test (Ruxton 2006); 1 if neither sample varies.

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

"""Confidence intervals and tests of means."""

from __future__ import annotations

import numpy as np

SMALLEST_P = 1e-300
"""No p-value is smaller: below it floats end, and what is that small says nothing but "smaller"."""


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
    """Returns the two-sided p-value of Welch's unequal-variance t-test (Ruxton 2006), for values that are not paired.

    Where neither sample varies it is 1 if they are equal, else `SMALLEST_P`, which no p-value is below.

    Args:
        first: [n] independent values, n >= 2, for instance one mean per seed.
        second: [m] values, m >= 2, independent of the first.
    """
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return 1.0 if first[0] == second[0] else SMALLEST_P
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
    return max(float(tested.pvalue), SMALLEST_P)


def paired_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the two-sided p-value of the paired t-test: Student's test of one sample on the differences.

    Where all differences are equal, t is 0 / 0 or infinite. The p-value is then 1 if they are 0, else that of the sign
    test, 2^(1 - n): n pairs that agree in their sign cannot be surer without a variance. None is below `SMALLEST_P`.

    Args:
        first: [n] values, n >= 2, one per user, session, or whatever the pairs are.
        second: [n] values of the same, in the same order.

    Raises:
        ValueError: The numbers of values differ.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"{np.shape(first)} and {np.shape(second)} values cannot be paired")
    differences = np.asarray(first, float) - np.asarray(second, float)
    rounding = 4 * np.finfo(float).eps * max(np.abs(first).max(), np.abs(second).max())
    if np.ptp(differences) <= rounding:
        return 1.0 if np.abs(differences).max() <= rounding else max(2.0 ** (1 - len(differences)), SMALLEST_P)
    import scipy.stats

    return max(float(scipy.stats.ttest_1samp(differences, 0.0).pvalue), SMALLEST_P)

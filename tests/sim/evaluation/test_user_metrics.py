"""The metrics of Table 2 by hand, and the statistics against their textbook formulas."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.special
import scipy.stats

from harness.statistics import SMALLEST_P, clustered_mean_interval, mean_interval, paired_p_value, welch_p_value
from sim.evaluation.user_metrics import user_metrics


def test_golden_values():
    # Four users, T = 4.
    #   user 0: 2 hits, 4 relevant: precision 1/2, recall 1/2, F1 = 1/2
    #   user 1: 1 hit, 1 relevant: precision 1/4, recall 1, F1 = 2 * 1/4 / (5/4) = 2/5
    #   user 2: no hits, 3 relevant: all 0
    #   user 3: nothing relevant, so no hits: all 0
    hits = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], bool)
    rewards = np.array([[1, 0.5, -0.5, 0], [0.1, 0.2, 0.3, 0.4], [-1, -1, -1, -1], [0, 0, 0, 2]], np.float32)
    metrics = user_metrics(rewards, hits, np.array([4, 1, 3, 0]))
    np.testing.assert_allclose(metrics.reward, [0.25, 0.25, -1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(metrics.precision, [0.5, 0.25, 0, 0])
    np.testing.assert_allclose(metrics.recall, [0.5, 1, 0, 0])
    np.testing.assert_allclose(metrics.f1, [0.5, 0.4, 0, 0])
    for values in (metrics.reward, metrics.precision, metrics.recall, metrics.f1):
        assert values.dtype == np.float64
        assert values.shape == (4,)


def test_mean_f1_is_not_the_f1_of_the_means():
    # User 0: precision 1, recall 1/4, F1 = 2/5. User 1: precision 1/4, recall 1, F1 = 2/5.
    # The mean of the F1 is 2/5; both means are 5/8, and so would be their F1.
    hits = np.array([[True] * 4, [True, False, False, False]])
    metrics = user_metrics(np.zeros((2, 4)), hits, np.array([16, 1]))
    precision, recall = metrics.precision.mean(), metrics.recall.mean()
    assert metrics.f1.mean() == pytest.approx(0.4)
    assert 2 * precision * recall / (precision + recall) == pytest.approx(0.625)


def test_all_hits_of_exactly_the_relevant_items_are_perfect():
    metrics = user_metrics(np.ones((1, 32)), np.ones((1, 32), bool), np.array([32]))
    assert metrics.precision == metrics.recall == metrics.f1 == metrics.reward == 1


@pytest.mark.filterwarnings("error")
def test_random_users_against_a_loop():
    generator = np.random.default_rng(0)
    hits = generator.random((200, 32)) < generator.random((200, 1)) * 0.5
    rewards = generator.normal(size=(200, 32))
    num_relevant = np.where(hits.any(1), hits.sum(1) + generator.integers(0, 50, 200), generator.integers(0, 2, 200))
    metrics = user_metrics(rewards, hits, num_relevant)
    for user in range(200):
        n = sum(bool(hit) for hit in hits[user])
        precision = n / 32
        recall = n / num_relevant[user] if num_relevant[user] else 0
        f1 = 2 * precision * recall / (precision + recall) if n else 0
        assert metrics.reward[user] == pytest.approx(sum(rewards[user]) / 32, abs=1e-12)
        assert metrics.precision[user] == pytest.approx(precision)
        assert metrics.recall[user] == pytest.approx(recall)
        assert metrics.f1[user] == pytest.approx(f1)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("count", [2, 3, 500])
def test_the_interval_is_scipys_t_interval(count, confidence):
    values = np.random.default_rng(count).normal(3, 2, count)
    found = mean_interval(values, confidence)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
    np.testing.assert_allclose(found, [interval.low, interval.high])


def test_the_interval_by_hand():
    # 1, 2, 3: mean 2, s = 1, standard error 1/sqrt(3), t(0.975, 2) = 4.302653.
    low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_the_interval_of_one_value_and_of_equal_values_is_a_point():
    assert mean_interval(np.array([0.7])) == (0.7, 0.7)
    assert mean_interval(np.full(9, 0.5)) == (0.5, 0.5)


def welch_by_hand(first, second):
    """Ruxton (2006): t' and the Welch-Satterthwaite degrees of freedom; p from the incomplete beta function."""
    n, m = len(first), len(second)
    mean_first, mean_second = sum(first) / n, sum(second) / m
    var_first = sum((x - mean_first) ** 2 for x in first) / (n - 1)
    var_second = sum((x - mean_second) ** 2 for x in second) / (m - 1)
    error = var_first / n + var_second / m
    t = (mean_first - mean_second) / error**0.5
    freedom = error**2 / (var_first**2 / (n**2 * (n - 1)) + var_second**2 / (m**2 * (m - 1)))
    return scipy.special.betainc(freedom / 2, 0.5, freedom / (freedom + t**2))


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.3, 1.0), (0.3, 8.0), (4.0, 0.1)])
def test_welch_against_the_textbook(shift, spread):
    generator = np.random.default_rng(1)
    first, second = generator.normal(0, 1, 40), generator.normal(shift, spread, 95)
    expected = welch_by_hand(first.tolist(), second.tolist())
    assert welch_p_value(first, second) == pytest.approx(expected, rel=1e-8)
    assert welch_p_value(second, first) == pytest.approx(expected, rel=1e-8)


def test_welch_is_not_students_test():
    generator = np.random.default_rng(2)
    first, second = generator.normal(0, 5, 8), generator.normal(1, 0.5, 200)
    assert welch_p_value(first, second) != pytest.approx(scipy.stats.ttest_ind(first, second).pvalue, rel=1e-3)


@pytest.mark.filterwarnings("error")
def test_welch_without_variance():
    assert welch_p_value(np.full(5, 0.3), np.full(9, 0.3)) == 1
    assert welch_p_value(np.full(5, 0.3), np.full(9, 0.4)) == SMALLEST_P


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_welch_with_one_side_without_variance():
    varying = np.array([0.1, 0.2, 0.4])
    assert welch_p_value(np.full(5, 0.25), varying) == pytest.approx(welch_by_hand([0.25] * 5, varying.tolist()))


@hypothesis.given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(-2, 2))
def test_the_paired_test_is_scipys(number, seed, shift):
    generator = np.random.default_rng(seed)
    first = generator.normal(0, 3, number)
    second = first + generator.normal(shift, 0.5, number)
    wanted = scipy.stats.ttest_rel(first, second).pvalue
    assert paired_p_value(first, second) == pytest.approx(wanted, rel=1e-8)
    order = generator.permutation(number)
    assert paired_p_value(second[order], first[order]) == pytest.approx(wanted, rel=1e-8)


def test_the_paired_test_by_hand():
    # Differences 1, 2, 3: t = 2 sqrt(3) with two degrees of freedom, p = 1 - t / sqrt(t^2 + 2) = 1 - sqrt(12 / 14).
    assert paired_p_value(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1 - (12 / 14) ** 0.5)


@pytest.mark.filterwarnings("error")
def test_the_paired_test_without_variance():
    varying = np.array([0.1, 0.7, 1.3, 2.9])
    assert paired_p_value(varying, varying) == 1
    # Equal differences other than 0, but for rounding: as sure as four equal signs.
    assert paired_p_value(varying, varying + 0.1) == 2.0**-3
    assert paired_p_value(np.ones(2000), np.zeros(2000)) == SMALLEST_P
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_p_value(varying, varying[:3])


def test_no_p_value_is_zero():
    values = np.random.default_rng(0).normal(0, 1e-9, 5000)
    assert paired_p_value(1 + values, values) == welch_p_value(1 + values, values) == SMALLEST_P


def test_the_interval_of_grouped_values_by_hand():
    # Groups (1, 3), (5): mean 3, residuals 4 - 6 = -2 and 5 - 3 = 2; error sqrt(8 * 2 / 1) / 3 = 4/3, t(0.975, 1).
    low, high = clustered_mean_interval(np.array([4.0, 5.0]), np.array([2, 1]))
    assert low == pytest.approx(3 - 12.706205 * 4 / 3, abs=1e-4)
    assert high == pytest.approx(3 + 12.706205 * 4 / 3, abs=1e-4)
    assert clustered_mean_interval(np.array([4.0]), np.array([2])) == (2.0, 2.0)


def test_groups_of_one_value_are_independent_values():
    values = np.random.default_rng(0).normal(size=50)
    np.testing.assert_allclose(clustered_mean_interval(values, np.ones(50)), mean_interval(values))


def test_the_interval_of_grouped_values_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = {"grouped": 0, "ungrouped": 0}
    for _ in range(400):
        counts = generator.integers(1, 20, 40)
        groups = np.repeat(np.arange(40), counts)
        values = generator.normal(size=40)[groups] + generator.normal(size=len(groups))
        low, high = clustered_mean_interval(np.bincount(groups, values), counts)
        covered["grouped"] += low <= 0 <= high
        low, high = mean_interval(values)
        covered["ungrouped"] += low <= 0 <= high
    assert 0.91 <= covered["grouped"] / 400 <= 0.98
    assert covered["ungrouped"] / 400 < 0.7

"""Results over seeds: by hand, and p-values against SciPy's own tests."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from harness.reports.method_results import (
    EPISODES,
    SEEDS,
    MethodResult,
    difference,
    paired_p_value_of,
    paired_p_values_of_seeds,
    values_of_seeds,
)
from harness.reports.results import p_text


def results(rows, runs=None):
    values = np.array(rows, float)
    return MethodResult("x", "x", {}, [None] * len(values) if runs is None else runs, {"reward": values})


def test_two_methods_with_seeds_are_tested_on_the_means_of_seeds():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 1.0, (5, 40)), rng.normal(0.5, 2.0, (3, 40))
    found = difference(results(first), results(second), "reward")
    assert found.mean == pytest.approx(first.mean() - second.mean())
    wanted = scipy.stats.ttest_ind(first.mean(1), second.mean(1), equal_var=False).pvalue
    assert found.p_value == pytest.approx(wanted, rel=1e-9)
    assert (found.over_seeds, found.numbers) == (True, (5, 3))
    paired = scipy.stats.ttest_rel(first.mean(0), second.mean(0)).pvalue
    assert found.paired_p_value == pytest.approx(paired, rel=1e-9)


def test_a_method_without_seeds_is_a_constant():
    rng = np.random.default_rng(1)
    seeds, fixed = rng.normal(1.0, 1.0, (4, 30)), rng.normal(0.7, 1.0, (1, 30))
    wanted = scipy.stats.ttest_1samp(seeds.mean(1), fixed.mean()).pvalue
    baseline, repeated = results(fixed, runs=[]), results(fixed, runs=[None, None])  # equal with both its seeds
    for other in (baseline, repeated):
        assert other.seedless
        for found, numbers in (
            (difference(results(seeds), other, "reward"), (4, 0)),
            (difference(other, results(seeds), "reward"), (0, 4)),
        ):
            assert found.p_value == pytest.approx(wanted, rel=1e-9)
            assert (found.over_seeds, found.numbers) == (True, numbers)


def test_a_single_seed_leaves_only_episodes_to_test():
    rng = np.random.default_rng(2)
    single, seeds, fixed = rng.normal(1, 1, (1, 30)), rng.normal(0, 1, (4, 30)), rng.normal(0, 1, (1, 30))
    assert not results(single).seedless
    for one, other in (
        (results(single), results(seeds)),
        (results(single), results(fixed, runs=[])),
        (results(fixed, runs=[]), results(single, runs=[])),
    ):
        found = difference(one, other, "reward")
        values = [rows.values["reward"].mean(0) for rows in (one, other)]
        assert found.p_value == pytest.approx(scipy.stats.ttest_rel(*values).pvalue, rel=1e-9)
        assert not found.over_seeds
        assert found.numbers == (30, 30)
    assert difference(results([[1.0]]), results([[2.0]]), "reward").p_value is None


def test_means_and_intervals_by_hand():
    found = results([[1, 2, 3, 4], [2, 3, 4, 5]])
    # Seeds have means 2.5 and 3.5: standard error 1/2, t(0.975, 1) = 12.706205.
    assert found.estimate("reward", SEEDS) == pytest.approx((3.0, 3.0 - 6.353102, 3.0 + 6.353102), abs=1e-5)
    assert found.estimate("reward", SEEDS).text(1) == "3.0 ± 6.4"
    # Episodes have 1.5, 2.5, 3.5, 4.5: s = 1.290994, standard error 0.645497, t(0.975, 3) = 3.182446.
    assert found.estimate("reward", EPISODES) == pytest.approx((3.0, 3.0 - 2.054260, 3.0 + 2.054260), abs=1e-5)
    assert results([[1, 2]]).estimate("reward", SEEDS) == (1.5, 1.5, 1.5)
    assert found.seeds_differ


def test_equal_seeds_are_one_row():
    equal, zeros = np.array([[1.0, 2.0], [1.0, 2.0]]), np.zeros((2, 2))
    shapes = {key: rows.shape for key, rows in values_of_seeds({"a": equal, "b": zeros}).items()}
    assert shapes == {"a": (1, 2), "b": (1, 2)}
    assert values_of_seeds({"a": equal, "b": np.array([[0.0, 0.0], [0.0, 1.0]])})["a"].shape == (2, 2)


def test_a_single_run_of_a_method_without_seeds_is_known_to_be_like_the_others():
    single = MethodResult("x", "x", {}, [None], {"reward": np.ones((1, 3))}, seed_has_effect=False)
    assert single.seedless
    assert (single.seeds_text, results(np.ones((1, 3)), [None, None]).seeds_text) == ("1", "2 (equal)")


def test_no_p_value_is_zero():
    assert [p_text(p) for p in (0.0, 1e-320, 2.13e-67, 0.5)] == ["p < 1e-300", "p < 1e-300", "p = 2.1e-67", "p = 0.5"]


def test_p_values_seed_by_seed_on_the_same_episodes():
    rng = np.random.default_rng(3)
    seeds = [SimpleNamespace(settings={"seed": seed}) for seed in (0, 1, 2)]
    first, second, fixed = rng.normal(1, 1, (3, 20)), rng.normal(0, 1, (2, 20)), rng.normal(0, 1, (1, 20))
    own, other = results(first, seeds), results(second, seeds[:2])
    found = paired_p_values_of_seeds(own, other, "reward")
    for seed in (0, 1):
        assert found[seed] == pytest.approx(scipy.stats.ttest_rel(first[seed], second[seed]).pvalue, rel=1e-9)
    assert found[2] is None
    beside_a_list = paired_p_values_of_seeds(own, results(fixed, []), "reward")
    assert beside_a_list[2] == pytest.approx(scipy.stats.ttest_rel(first[2], fixed[0]).pvalue, rel=1e-9)
    assert paired_p_values_of_seeds(results(fixed, seeds[:1]), own, "reward") == {}


def test_other_episodes_are_not_paired():
    splits = np.zeros(4, int), np.array([0, 0, 1, 1])
    one, other = (MethodResult("x", "x", {}, [None], {"reward": np.ones((1, 4))}, splits=split) for split in splits)
    assert paired_p_value_of(one, other, "reward") is None
    assert paired_p_value_of(one, results(np.ones((1, 3))), "reward") is None

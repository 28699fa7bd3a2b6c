"""Results over seeds: by hand, and p-values against SciPy's own tests."""

import numpy as np
import pytest
import scipy.stats
from run_folders import make_run

from harness.errors import UserError
from harness.reports.seed_results import SeedResults, check_same_episodes, difference, values_of_seeds
from harness.runs.index import find_runs


def results(rows, runs=None):
    values = np.array(rows, float)
    return SeedResults("x", [None] * len(values) if runs is None else runs, {"reward": values})


def test_two_methods_with_seeds_are_tested_on_the_means_of_seeds():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 1.0, (5, 40)), rng.normal(0.5, 2.0, (3, 40))
    found = difference(results(first), results(second), "reward")
    assert found.mean == pytest.approx(first.mean() - second.mean())
    wanted = scipy.stats.ttest_ind(first.mean(1), second.mean(1), equal_var=False).pvalue
    assert found.p_value == pytest.approx(wanted, rel=1e-9)
    assert (found.over_seeds, found.numbers) == (True, (5, 3))
    pooled = scipy.stats.ttest_ind(first.ravel(), second.ravel(), equal_var=False).pvalue
    assert found.pooled_p_value == pytest.approx(pooled, rel=1e-9)


def test_a_method_without_seeds_is_a_constant():
    rng = np.random.default_rng(1)
    seeds, fixed = rng.normal(1.0, 1.0, (4, 30)), rng.normal(0.7, 1.0, (1, 30))
    wanted = scipy.stats.ttest_1samp(seeds.mean(1), fixed.mean()).pvalue
    opponent, repeated = results(fixed, runs=[]), results(fixed, runs=[None, None])  # equal with both its seeds
    for other in (opponent, repeated):
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
        values = [rows.values["reward"].ravel() for rows in (one, other)]
        assert found.p_value == pytest.approx(scipy.stats.ttest_ind(*values, equal_var=False).pvalue, rel=1e-9)
        assert not found.over_seeds
        assert found.numbers == tuple(map(len, values))
    assert difference(results([[1.0]]), results([[2.0]]), "reward").p_value is None


def test_means_and_intervals_by_hand():
    found = results([[1, 2, 3, 4], [2, 3, 4, 5]])
    # Seeds have means 2.5 and 3.5: standard error 1/2, t(0.975, 1) = 12.706205.
    assert found.estimate("reward") == pytest.approx((3.0, 3.0 - 6.353102, 3.0 + 6.353102), abs=1e-5)
    assert found.estimate("reward").text(1) == "3.0 ± 6.4"
    assert found.seed_matters


def test_equal_seeds_are_one_row():
    same, other = {"a": np.array([1.0, 2.0]), "b": np.array([0.0, 0.0])}, {"a": np.array([1.0, 2.0])}
    assert {key: rows.shape for key, rows in values_of_seeds([same, same], ["a", "b"]).items()} == {
        "a": (1, 2),
        "b": (1, 2),
    }
    assert values_of_seeds([same, other | {"b": np.array([0.0, 1.0])}], ["a", "b"])["a"].shape == (2, 2)


def test_results_of_other_episodes_are_refused(tmp_path):
    for name in "abc":
        make_run(tmp_path / name, [1, 2], {"seed": ord(name)})
    runs = find_runs([str(tmp_path)], "eval.json").runs
    one = {"row": np.array([3, 4]), "reward": np.array([1.0, 2.0])}
    two = {"row": np.array([3, 5]), "reward": np.array([1.0, 2.0])}

    def check(*arrays, part=lambda run: None):
        return check_same_episodes(runs, arrays, "x.npz", "row", "sessions", "mine", part)

    assert check(one, one, one) == [one]
    # Only runs of the same part must be about the same episodes.
    assert check(one, two, one, part=lambda run: run.folder.path.name == "b") == [one, two]
    for wrong in (two, one | {"reward": np.array([1.0])}):
        with pytest.raises(UserError, match=r"c/x\.npz: has other sessions than .*a, or .*\n.*python -m mine run="):
            check(one, one, wrong)

"""What lists are like, by hand and against definitions."""

import itertools

import numpy as np
import pytest
import scipy.sparse

from sim.evaluation.list_metrics import Catalogue, gini, intra_list_distance, list_metrics, sameness_warning

# Six training users; items 0 to 4 were rated by 4, 2, 2, 1 and 0 of them.
OWNERS = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
CATALOGUE = Catalogue(scipy.sparse.csr_array(OWNERS.astype(np.float32) * 5))
ITEMS = np.array([[0, 1], [0, 1], [2, 0], [4, 3]])
REWARDS = np.array([[1.0, 0.5], [0.0, 0.5], [1.0, 1.0], [0.0, 0.2]])


def test_lists_by_hand():
    found = list_metrics(ITEMS, REWARDS, np.array([5, 50, 1, 7]), CATALOGUE)
    assert found["coverage"] == 1.0
    # Recommended 3, 2, 1, 1, 1 times; ascending 1, 1, 1, 2, 3: (-4 - 2 + 0 + 4 + 12) / (5 * 8).
    assert found["gini"] == pytest.approx(10 / 40)
    information = np.log2(7 / np.array([5, 3, 3, 2, 1]))
    assert found["novelty"] == pytest.approx(information[ITEMS].mean())
    # Cosine of 0 and 1: 2 / sqrt(8); of 2 and 0: 0; item 4 has nothing in common with any.
    assert found["intra_list_distance"] == pytest.approx(1 - (2 * 2 / np.sqrt(8) + 0 + 0) / 4)
    assert found["distinct_lists_per_100"] == 75.0
    assert found["most_common_list"] == 0.5
    # Users by activity: 2, 0 | 3 | 1.
    assert found["reward_by_activity"] == pytest.approx({"least": 3.5 / 4, "middle": 0.1, "most": 0.25})
    # Of nine entries item 0 begins the first third, 1 the second, 2 and the others the last.
    assert found["by_popularity"]["head"] == pytest.approx({"share": 3 / 8, "reward": 2 / 3})
    assert found["by_popularity"]["middle"] == pytest.approx({"share": 2 / 8, "reward": 0.5})
    assert found["by_popularity"]["tail"] == pytest.approx({"share": 3 / 8, "reward": 1.2 / 3})


def test_distance_is_the_mean_over_pairs():
    random = np.random.default_rng(0)
    owners = scipy.sparse.random_array((30, 200), density=0.1, rng=random, format="csr")
    rows = Catalogue(owners).unit_rows
    lists = np.array([random.choice(30, 6, replace=False) for _ in range(20)])
    dense = rows.toarray()
    expected = [1 - dense[a] @ dense[b] for items in lists for a, b in itertools.combinations(items, 2)]
    assert intra_list_distance(lists, rows) == pytest.approx(np.mean(expected))
    assert intra_list_distance(lists[:, :1], rows) is None


def test_gini_at_its_ends():
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 9])) == 0.75


def test_the_same_list_for_nearly_all_is_warned_of():
    same, one_other = np.tile([0, 1, 2], (20, 1)), np.tile([0, 1, 2], (20, 1))
    one_other[0], zeros, activity = [2, 1, 0], np.zeros((20, 3)), np.arange(20)
    for items, expected in ((same, "100 %"), (one_other, "95 %")):
        warning = sameness_warning(list_metrics(items, zeros, activity, CATALOGUE))
        assert expected.replace(" ", "") in warning
    assert sameness_warning({"most_common_list": 0.89}) is None

"""Average precision and NDCG against hand-worked lists and a loop."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.evaluation.ranking_metrics import average_precision, ndcg


def test_average_precision_of_hand_worked_lists():
    relevant = np.array(
        [
            [1, 0, 1, 0],  # (1/1 + 2/3) / 2
            [0, 1, 1, 1],  # (1/2 + 2/3 + 3/4) / 3
            [0, 0, 0, 1],
            [1, 1, 0, 0],
            [0, 0, 0, 0],
        ],
        bool,
    )
    expected = [5 / 6, (1 / 2 + 2 / 3 + 3 / 4) / 3, 1 / 4, 1, 0]
    np.testing.assert_allclose(average_precision(relevant), expected)


def test_ndcg_of_hand_worked_lists():
    gain = np.array([[0, 1, 5], [5, 1, 0], [1, 0, 5], [0, 0, 0]], float)
    ideal = 5 + 1 / math.log2(3)
    expected = [(1 / math.log2(3) + 5 / 2) / ideal, 1, (1 + 5 / 2) / ideal, 0]
    np.testing.assert_allclose(ndcg(gain, 3), expected)
    # At 1 the ideal list shows the order first.
    np.testing.assert_allclose(ndcg(gain, 1), [0, 1, 1 / 5, 0])
    np.testing.assert_allclose(ndcg(gain, 40), expected)


def test_padding_changes_nothing():
    gain = np.array([[0, 5, 1, 0, 1]], float)
    padded = np.pad(gain, ((0, 0), (0, 7)))
    np.testing.assert_allclose(ndcg(padded, 4), ndcg(gain, 4))
    np.testing.assert_allclose(average_precision(padded > 0), average_precision(gain > 0))


@given(st.lists(st.sampled_from([0, 1, 5]), min_size=1, max_size=12), st.integers(1, 14))
def test_metrics_equal_their_definitions(gains, cutoff):
    def dcg(values):
        return sum(value / math.log2(rank + 1) for rank, value in enumerate(values[:cutoff], 1))

    best = dcg(sorted(gains, reverse=True))
    array = np.array([gains], float)
    np.testing.assert_allclose(ndcg(array, cutoff), [dcg(gains) / best if best else 0], atol=1e-12)
    hits, total = 0, 0.0
    for rank, value in enumerate(gains, 1):
        if value:
            hits += 1
            total += hits / rank
    np.testing.assert_allclose(average_precision(array > 0), [total / hits if hits else 0], atol=1e-12)

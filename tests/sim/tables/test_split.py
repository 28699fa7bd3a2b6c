"""The split of users: exact sizes, disjoint, complete, seeded."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from harness.errors import UserError
from sim.tables.split import split_users


@pytest.mark.parametrize(
    ("users", "fraction", "sizes"), [(6_040, 0.2, (4_832, 1_208)), (5, 0.5, (2, 3)), (10, 0.04 + 0.01, (9, 1))]
)
def test_sizes(users, fraction, sizes):
    train, test = split_users(users, fraction, 0)
    assert (len(train), len(test)) == sizes


@hypothesis.given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_sides_are_sorted_disjoint_and_complete(users, fraction, seed):
    try:
        train, test = split_users(users, fraction, seed)
    except UserError:
        assert users * fraction < 0.5 or users * (1 - fraction) <= 0.5 + 1e-9
        return
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(users))


def test_the_seed_decides():
    first, again, other = (split_users(1000, 0.2, seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_draw_is_the_documented_one():
    order = np.random.default_rng(7).permutation(50)
    np.testing.assert_array_equal(split_users(50, 0.2, 7)[1], np.sort(order[:10]))


@pytest.mark.parametrize(
    ("users", "fraction", "seed", "problem"),
    [
        (2, 0.1, 0, "leaves no test users"),
        (2, 0.9, 0, "leaves no training users"),
        (1, 0.5, 0, "leaves no training users"),
        (0, 0.5, 0, "leaves no test users"),
        (10, 0.0, 0, "out of range"),
        (10, 1.0, 0, "out of range"),
        (10, float("nan"), 0, "out of range"),
        (10, 0.2, -1, "negative"),
    ],
)
def test_impossible_splits(users, fraction, seed, problem):
    with pytest.raises(UserError, match=problem):
        split_users(users, fraction, seed)

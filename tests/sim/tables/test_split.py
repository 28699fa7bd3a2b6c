"""The splits of users: exact sizes, disjoint, complete, seeded."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from harness.errors import UserError
from sim.tables.split import fold_users, split_users


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


@hypothesis.given(st.integers(2, 200), st.integers(2, 12), st.integers(0, 2**32))
def test_folds_are_disjoint_and_complete_and_differ_by_at_most_one_user(users, folds, seed):
    hypothesis.assume(folds <= users)
    splits = [fold_users(users, folds, fold, seed) for fold in range(folds)]
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in splits])), np.arange(users))
    sizes = [len(test) for _, test in splits]
    assert max(sizes) - min(sizes) <= 1
    for train, test in splits:
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(users))


def test_folds_depend_on_users_number_and_seed_alone():
    for fold in range(3):
        wanted = np.sort(np.array_split(np.random.default_rng(7).permutation(50), 3)[fold])
        for _ in range(2):
            np.testing.assert_array_equal(fold_users(50, 3, fold, 7)[1], wanted)
    assert not np.array_equal(fold_users(50, 3, 0, 8)[1], fold_users(50, 3, 0, 7)[1])
    for fold_side, split_side in zip(fold_users(6_040, 5, 0, 3), split_users(6_040, 0.2, 3), strict=True):
        np.testing.assert_array_equal(fold_side, split_side)


@pytest.mark.parametrize(
    ("users", "folds", "fold", "seed", "problem"),
    [
        (10, 1, 0, 0, r"data\.folds: 1 fold leaves nobody to learn from"),
        (4, 5, 0, 0, r"data\.folds: 5 folds of 4 users"),
        (10, 5, 5, 0, r"data\.fold: 5 is not one of 5 folds"),
        (10, 5, -1, 0, r"data\.fold: -1 is not"),
        (10, 5, 0, -1, r"data\.split_seed: -1 is negative"),
    ],
)
def test_impossible_folds(users, folds, fold, seed, problem):
    with pytest.raises(UserError, match=problem):
        fold_users(users, folds, fold, seed)

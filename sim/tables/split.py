"""The split of users into training and test users."""

from __future__ import annotations

import math

import numpy as np

from harness.errors import UserError


def fold_users(num_users: int, folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits users 0 to U - 1 so that the test users of fold 0 to K - 1 are disjoint and cover all users.

    Fold k is the k-th of K consecutive parts of `np.random.default_rng(seed).permutation(U)`, whose sizes differ by at
    most one, the larger ones first: fold 0 of 5 of 6,040 users has the test users of `split_users(6040, 0.2, seed)`.

    Args:
        num_users: U.
        folds: K, 2 or more.
        fold: k, 0 to K - 1.
        seed: Seed of the permutation, 0 or more.

    Returns:
        Indices of the training users and of the test users, each ascending, int64.

    Raises:
        UserError: Number, fold or seed is out of range, or there are fewer users than folds.
    """
    _check_seed(seed)
    if not 2 <= folds <= num_users:
        raise UserError(
            f"{folds} folds of {num_users:,} users" if folds > 1 else f"{folds} fold leaves nobody to learn from",
            where="data.folds",
            do="Set 2 or more, and at most the number of users.",
        )
    if not 0 <= fold < folds:
        raise UserError(f"{fold} is not one of {folds} folds", where="data.fold", do=f"Set 0 to {folds - 1}.")
    parts = np.array_split(np.random.default_rng(seed).permutation(num_users), folds)
    return np.sort(np.concatenate([*parts[:fold], *parts[fold + 1 :]])), np.sort(parts[fold])


def split_users(num_users: int, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits users 0 to U - 1 at random; the test users of two seeds overlap, those of two folds do not.

    The number of test users is U * test_fraction rounded to the nearest integer, halves up: 6,040 users and 0.2 give
    1,208. They are the first ones of `np.random.default_rng(seed).permutation(U)`.

    Args:
        num_users: U.
        test_fraction: Share of test users, between 0 and 1.
        seed: Seed of the permutation, 0 or more.

    Returns:
        Indices of the training users and of the test users, each ascending, int64.

    Raises:
        UserError: The fraction or seed is out of range, or one side would be empty.
    """
    if not 0 < test_fraction < 1:
        do = "Set it between 0 and 1, exclusive."
        raise UserError(f"{test_fraction} is out of range", where="data.test_fraction", do=do)
    _check_seed(seed)
    num_test = math.floor(num_users * test_fraction + 0.5)
    if not 0 < num_test < num_users:
        side = "test" if num_test == 0 else "training"
        raise UserError(
            f"{test_fraction:g} of {num_users:,} users leaves no {side} users",
            where="data.test_fraction",
            do="Change the fraction, or use a data set with more users.",
        )
    order = np.random.default_rng(seed).permutation(num_users)
    return np.sort(order[num_test:]), np.sort(order[:num_test])


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"{seed} is negative", where="data.split_seed", do="Set 0 or more.")

"""The split of users into training and test users."""

from __future__ import annotations

import math

import numpy as np

from harness.errors import UserError


def split_users(num_users: int, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits users 0 to U - 1 at random.

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
    if seed < 0:
        raise UserError(f"{seed} is negative", where="data.split_seed", do="Set 0 or more.")
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

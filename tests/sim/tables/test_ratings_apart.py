"""What stands apart from a scale, and what is a scale."""

import numpy as np
import pytest

from sim.tables.ratings_apart import SeenRatings, ratings_apart


def apart(*values: float) -> list[tuple[tuple[float, ...], tuple[float, float]]]:
    """What of some equally frequent ratings stands apart, and the ends of the others."""
    return [(one.values, one.rest) for one in ratings_apart(np.array(values, float), np.full(len(values), 10))]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5, 99], [((99,), (1, 5))]),
        ([1, 2, 3, 4, 5, 98, 99], [((98, 99), (1, 5))]),
        ([-99, -98, 1, 2, 3, 4, 5], [((-99, -98), (1, 5))]),
        ([-1, 1, 2, 3, 4, 5, 99], [((-1,), (1, 5)), ((99,), (1, 5))]),
        ([*np.arange(-10, 10.1, 0.25), 99], [((99,), (-10, 10))]),
        ([-3, 0.5, 1, 1.5, 2], [((-3,), (0.5, 2))]),
        # Scales.
        ([-2, -1, 1, 2], []),
        ([-5, -3, -1, 1, 3, 5], []),
        ([1, 2, 3, 5], []),
        ([0, 1, 2, 3, 4, 5], []),
        ([1, 99], []),
    ],
)
def test_what_stands_apart(values, expected):
    assert apart(*values) == expected


def test_many_zeros_are_no_stars():
    stars, counts = np.arange(6.0), np.array([900, 10, 10, 10, 10, 10])
    [zero] = ratings_apart(stars, counts, [f"line {n}" for n in range(2, 8)])
    assert zero.describe() == "the rating 0 (94.7% of all, first on line 2) stands apart from the others"


def test_equal_values_count_together():
    """As of a scale that clips the ratings of other users."""
    [ninety_nine] = ratings_apart(np.array([1.0, 1, 2, 3, 4, 99, 99]), np.full(7, 10))
    assert (ninety_nine.values, ninety_nine.share) == ((99.0,), 20 / 70)


def test_ratings_may_arrive_in_parts():
    seen = SeenRatings()
    assert seen.apart() == []
    seen.add(np.array([1.0, 2, 3]), lambda row: f"line {row + 2}")
    seen.add(np.array([4.0, 99, 5, 99]), lambda row: f"line {row + 5}")
    [one] = seen.apart()
    assert (one.values, one.share, one.place) == ((99.0,), 2 / 7, "line 6")

"""The fast argmax against NumPy's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sim.envs.fast_argmax import fast_argmax


@pytest.mark.parametrize("shape", [(200, 1), (200, 2), (200, 61), (20, 256), (20, 257), (3, 5, 3706), (40_000,)])
def test_the_first_of_the_largest(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    for largest in (3, 10_000_000):  # many equals, and few
        values = generator.integers(-largest, largest, shape).astype(np.float32)
        values[generator.random(shape) < 0.3] = -np.inf
        np.testing.assert_array_equal(jax.jit(fast_argmax)(values), np.argmax(values, -1))


def test_nothing_but_infinities_is_the_first() -> None:
    assert fast_argmax(np.full(1000, -np.inf, np.float32)) == 0

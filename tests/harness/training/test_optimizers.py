"""Gradient descent and what follows it, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.training.optimizers import annealed, clipped_adam, descend


def test_descend_is_adam_on_the_clipped_gradient():
    """Two steps by Adam's formulas; the gradient (3, 4) is clipped to norm 1, (0, 0.5) is not."""
    optimizer = clipped_adam(0.1, 1.0)
    params = {"a": jnp.asarray([1.0]), "b": jnp.asarray([2.0])}
    state = optimizer.init(params)
    point, first, second = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    for number, (gradient, norm) in enumerate([((3.0, 4.0), 5.0), ((0.0, 0.5), 0.5)], start=1):
        pieces = {"a": jnp.asarray([gradient[0]]), "b": jnp.asarray([gradient[1]])}
        params, state, found = descend(optimizer, pieces, state, params)
        clipped = np.array(gradient) / max(norm, 1.0)
        first, second = 0.9 * first + 0.1 * clipped, 0.999 * second + 0.001 * clipped**2
        point = point - 0.1 * first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        assert float(found) == pytest.approx(norm)
        np.testing.assert_allclose([*params["a"], *params["b"]], point, atol=1e-5)


def test_annealing_is_linear_and_then_constant():
    values = jax.vmap(lambda done: annealed(0.8, 0.2, 10, done))(jnp.asarray([0, 5, 10, 1_000]))
    np.testing.assert_allclose(values, [0.8, 0.5, 0.2, 0.2], atol=1e-6)
    assert float(annealed(0.8, 0.2, 0, jnp.int32(1))) == pytest.approx(0.2)

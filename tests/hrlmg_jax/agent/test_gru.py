"""The written-out backward pass of the GRU against JAX's own differentiation of the textbook form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.agent.gru import last_hidden

HIDDEN = 4


def textbook(gates, known, recurrent, candidate_bias):
    """One GRU, one sample: gates [N, 3H], known [N], recurrent [H, 3H], candidate_bias [H]."""
    hidden = jnp.zeros(HIDDEN)
    for gates_t, known_t in zip(gates, known, strict=True):
        x_r, x_z, x_n = jnp.split(gates_t, 3)
        h_r, h_z, h_n = jnp.split(hidden @ recurrent, 3)
        reset, update = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
        candidate = jnp.tanh(x_n + reset * (h_n + candidate_bias))
        hidden = jnp.where(known_t, (1 - update) * candidate + update * hidden, hidden)
    return hidden


def draw(steps, stack, batch, seed=0):
    rng = np.random.default_rng(seed)
    gates = rng.normal(size=(steps, stack, *batch, 3 * HIDDEN))
    known = rng.random((steps, stack, *batch)) < 0.7
    recurrent, bias = rng.normal(size=(stack, HIDDEN, 3 * HIDDEN)), rng.normal(size=(stack, HIDDEN))
    weight = rng.normal(size=(stack, *batch, HIDDEN))  # of each number of the result in a scalar loss
    as_arrays = (jnp.asarray(array, jnp.float32) for array in (gates, recurrent, bias, weight))
    gates, recurrent, bias, weight = as_arrays
    return gates, jnp.asarray(known), recurrent, bias, weight


def by_textbook(gates, known, recurrent, bias):
    samples = jax.vmap(textbook, (1, 1, None, None))
    return jax.vmap(samples, (1, 1, 0, 0))(gates, known, recurrent, bias)


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_value_and_gradients_are_those_of_the_textbook_form(steps):
    gates, known, recurrent, bias, weight = draw(steps, 2, (5,))

    def loss(function):
        return lambda gates, recurrent, bias: jnp.sum(weight * function(gates, known, recurrent, bias))

    wanted = jax.value_and_grad(loss(by_textbook), (0, 1, 2))(gates, recurrent, bias)
    found = jax.value_and_grad(loss(last_hidden), (0, 1, 2))(gates, recurrent, bias)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_any_shape_of_batch_and_vmap_give_the_same():
    gates, known, recurrent, bias, weight = draw(4, 2, (3, 2), seed=1)

    def loss(gates, known, recurrent, bias, weight):
        return jnp.sum(weight * last_hidden(gates, known, recurrent, bias))

    whole = jax.grad(loss, (0, 2, 3))(gates, known, recurrent, bias, weight)
    each = jax.vmap(jax.grad(loss, (0, 2, 3)), (2, 2, None, None, 1))(gates, known, recurrent, bias, weight)
    np.testing.assert_allclose(jnp.moveaxis(each[0], 0, 2), whole[0], atol=1e-5)
    np.testing.assert_allclose(each[1].sum(0), whole[1], atol=1e-5)
    np.testing.assert_allclose(each[2].sum(0), whole[2], atol=1e-5)
    stacked = jax.vmap(last_hidden, (None, None, 0, None))(gates, known, jnp.stack([recurrent, 0 * recurrent]), bias)
    np.testing.assert_allclose(stacked[0], last_hidden(gates, known, recurrent, bias), atol=1e-6)

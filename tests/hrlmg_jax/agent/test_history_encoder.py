"""The state encoder against two GRUs in NumPy, and that padding changes nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.agent.history_encoder import HistoryEncoder

ITEMS, EMBEDDING, HIDDEN, STATE, LENGTH = 9, 6, 4, 5, 3
ENCODER = HistoryEncoder(HIDDEN, STATE)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru(params: dict[str, Any], number: int, items: list[int], embedding: jax.Array) -> np.ndarray:
    """The last hidden state [H] of GRU `number` over items (-1: skipped), one step after the other in float64."""
    inputs, recurrent, bias, candidate_bias = (
        np.asarray(params[name], np.float64)[number] for name in ("inputs", "recurrent", "bias", "candidate_bias")
    )
    w_r, w_z, w_n = np.split(inputs, 3, axis=1)
    u_r, u_z, u_n = np.split(recurrent, 3, axis=1)
    b_r, b_z, b_n = np.split(bias, 3)
    h = np.zeros(HIDDEN)
    for item in items:
        if item < 0:
            continue
        x = np.asarray(embedding[item], np.float64)
        r = sigmoid(x @ w_r + h @ u_r + b_r)
        z = sigmoid(x @ w_z + h @ u_z + b_z)
        n = np.tanh(x @ w_n + b_n + r * (h @ u_n + candidate_bias))
        h = (1 - z) * n + z * h
    return h


def oracle(params: dict[str, Any], first: list[int], second: list[int], embedding: jax.Array) -> np.ndarray:
    """s = W_1 h_1 + W_2 h_2 + b (Eq. 4, 8)."""
    kernel = np.asarray(params["merge"]["kernel"], np.float64)
    merged = gru(params, 0, first, embedding) @ kernel[:HIDDEN] + gru(params, 1, second, embedding) @ kernel[HIDDEN:]
    return merged + np.asarray(params["merge"]["bias"], np.float64)


def padded(items: list[int], length: int = LENGTH) -> list[int]:
    return [-1] * (length - len(items)) + items


@pytest.fixture(scope="module")
def embedding() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(ITEMS, EMBEDDING)), jnp.float32)


@pytest.fixture(scope="module")
def params(embedding: jax.Array) -> dict[str, Any]:
    """Parameters of every kind away from zero, so that none can be left out unnoticed."""
    history = jnp.zeros((1,), jnp.int32)
    shapes = jax.eval_shape(lambda: ENCODER.init(jax.random.key(0), history, history, embedding)["params"])
    generator = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: generator.normal(0, 0.7, leaf.shape).astype(np.float32), shapes)


@jax.jit
def apply(params: Any, first: jax.Array, second: jax.Array, embedding: jax.Array) -> jax.Array:
    return ENCODER.apply({"params": params}, first, second, embedding)


def encode(params: Any, first: Any, second: Any, embedding: jax.Array) -> np.ndarray:
    return np.asarray(apply(params, jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32), embedding))


def test_state_is_two_grus_merged(params: dict[str, Any], embedding: jax.Array) -> None:
    generator = np.random.default_rng(2)
    for _ in range(20):
        first, second = generator.integers(0, ITEMS, (2, LENGTH)).tolist()
        expected = oracle(params, first, second, embedding)
        np.testing.assert_allclose(encode(params, first, second, embedding), expected, atol=2e-6)


@pytest.mark.parametrize("first_length", range(LENGTH + 1))
@pytest.mark.parametrize("second_length", [0, 2])
def test_a_padded_history_gives_the_state_of_the_history_alone(
    params: dict[str, Any], embedding: jax.Array, first_length: int, second_length: int
) -> None:
    first, second = [5, 0, 7][:first_length], [0, 8][:second_length]
    found = encode(params, padded(first), padded(second), embedding)
    np.testing.assert_allclose(found, oracle(params, first, second, embedding), atol=2e-6)
    more = encode(params, padded(first, LENGTH + 4), padded(second, LENGTH + 4), embedding)
    np.testing.assert_allclose(found, more, atol=1e-7)
    if first_length == second_length:
        np.testing.assert_allclose(found, encode(params, first, second, embedding), atol=1e-7)


def test_a_history_without_padding_equals_itself_behind_padding(params: dict[str, Any], embedding: jax.Array) -> None:
    """Both histories cut to the same length n and encoded as [n], for every n, no steps at all included."""
    for length in range(LENGTH + 1):
        first, second = [4, 1, 1][:length], [2, 0, 3][:length]
        alone = encode(params, np.array(first, np.int32), np.array(second, np.int32), embedding)
        np.testing.assert_allclose(alone, encode(params, padded(first), padded(second), embedding), atol=1e-7)


def test_empty_histories_give_the_bias(params: dict[str, Any], embedding: jax.Array) -> None:
    found = encode(params, [-1] * LENGTH, [-1] * LENGTH, embedding)
    np.testing.assert_array_equal(found, params["merge"]["bias"])


def test_order_and_kind_of_history_matter(params: dict[str, Any], embedding: jax.Array) -> None:
    state = encode(params, [1, 2, 3], [4, 5, 6], embedding)
    assert np.abs(encode(params, [3, 2, 1], [4, 5, 6], embedding) - state).max() > 1e-3
    assert np.abs(encode(params, [1, 2, 3], [6, 5, 4], embedding) - state).max() > 1e-3
    assert np.abs(encode(params, [4, 5, 6], [1, 2, 3], embedding) - state).max() > 1e-3


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_batches_are_encoded_one_by_one(params: dict[str, Any], embedding: jax.Array, shape: tuple[int, ...]) -> None:
    first, second = np.random.default_rng(3).integers(-1, ITEMS, (2, *shape, LENGTH))
    found = encode(params, first, second, embedding)
    assert found.shape == (*shape, STATE)
    for place in np.ndindex(*shape):
        expected = oracle(params, first[place].tolist(), second[place].tolist(), embedding)
        np.testing.assert_allclose(found[place], expected, atol=2e-6)


def test_no_gradient_flows_through_padding(params: dict[str, Any], embedding: jax.Array) -> None:
    @jax.jit
    def gradients(first: jax.Array, second: jax.Array) -> Any:
        def total(params: Any, embedding: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(ENCODER.apply({"params": params}, first, second, embedding)))

        return jax.grad(total, argnums=(0, 1))(params, embedding)

    first, second = [3, 5], [5, 8]
    of_padded, by_item = gradients(jnp.asarray(padded(first)), jnp.asarray(padded(second)))
    of_alone, alone_by_item = gradients(jnp.asarray(first), jnp.asarray(second))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), of_padded, of_alone)
    np.testing.assert_allclose(by_item, alone_by_item, atol=1e-6)
    touched = np.any(np.asarray(by_item) != 0, -1)
    assert np.flatnonzero(touched).tolist() == [3, 5, 8]
    nothing, nothing_by_item = gradients(jnp.full(LENGTH, -1), jnp.full(LENGTH, -1))
    assert not np.any(np.asarray(nothing_by_item))
    assert all(not np.any(np.asarray(leaf)) for name, leaf in nothing.items() if name != "merge")

"""The state encoder: the SRU against a plain loop over time, and the paper's reward mapping."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpgr_jax.networks.encoder import Encoder, reward_bin

LENGTH, BATCH, ITEMS, EMBEDDING, HIDDEN, STATUS, BINS = 6, 3, 11, 4, 5, 9, 10


def paper_bin(reward: Fraction | float) -> int:
    """The mapping l - floor(l (b - r) / (b - a)) on (a, b] = (-1, 1], l = 10, clipped to 1..l, counted from 0."""
    place = BINS - math.floor(BINS * (1 - Fraction(reward)) / 2)
    return min(max(place, 1), BINS) - 1


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def loop_over_time(
    params: dict, item: np.ndarray, reward: np.ndarray, status: np.ndarray, status_in_rnn: bool
) -> np.ndarray:
    """The section "State" of the specification, one interaction after the other in float64."""
    table = np.asarray(params["item_embedding"], np.float64)
    kernel = np.asarray(params["gates"]["kernel"], np.float64)
    bias = np.asarray(params["gates"]["bias"], np.float64)
    states = np.zeros((*item.shape, HIDDEN + STATUS))
    for b in range(item.shape[1]):
        cell, hidden = np.zeros(HIDDEN), np.zeros(HIDDEN)
        for t in range(item.shape[0]):
            states[t, b] = np.concatenate([hidden, status[t, b]])
            if t + 1 == item.shape[0]:
                break
            one_hot = np.zeros(BINS)
            one_hot[paper_bin(float(reward[t, b]))] = 1
            x = np.concatenate([table[item[t, b]], one_hot, status[t + 1, b] if status_in_rnn else []])
            candidate, forget, reset, skip = np.split(x @ kernel + bias, 4)
            forget, reset = sigmoid(forget), sigmoid(reset)
            cell = forget * cell + (1 - forget) * candidate
            hidden = reset * np.tanh(cell) + (1 - reset) * skip
    return states


class Encoded(NamedTuple):
    """An encoder with random parameters and what it makes of random episodes."""

    encoder: Encoder
    params: dict
    item: np.ndarray
    reward: np.ndarray
    status: np.ndarray
    state: np.ndarray


@pytest.fixture(scope="module", params=[True, False], ids=["status_in_rnn", "status_beside_rnn"])
def encoded(request: pytest.FixtureRequest) -> Encoded:
    generator = np.random.default_rng(0)
    encoder = Encoder(ITEMS, EMBEDDING, HIDDEN, status_in_rnn=request.param, train_embedding=True)
    item = generator.integers(0, ITEMS, (LENGTH, BATCH)).astype(np.int32)
    reward = generator.uniform(-1.5, 2.5, (LENGTH, BATCH)).astype(np.float32)
    status = generator.uniform(0, 1, (LENGTH, BATCH, STATUS)).astype(np.float32)
    status[0] = 0
    params = encoder.init(jax.random.key(0), item, reward, status)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.8, leaf.shape), jnp.float32), params)
    state = jax.jit(lambda params: encoder.apply({"params": params}, item, reward, status))(params)
    return Encoded(encoder, params, item, reward, status, np.asarray(state))


def test_parallel_encoding_equals_a_loop_over_time(encoded: Encoded) -> None:
    expected = loop_over_time(
        encoded.params, encoded.item, encoded.reward, encoded.status, encoded.encoder.status_in_rnn
    )
    np.testing.assert_allclose(encoded.state, expected, atol=1e-5, rtol=1e-5)


def test_state_is_hidden_beside_status_and_its_size_is_announced(encoded: Encoded) -> None:
    assert encoded.state.shape == (LENGTH, BATCH, HIDDEN + STATUS)
    assert encoded.encoder.state_size == HIDDEN + STATUS
    np.testing.assert_array_equal(encoded.state[..., HIDDEN:], encoded.status)


def test_first_state_is_zero(encoded: Encoded) -> None:
    np.testing.assert_array_equal(encoded.state[0], 0)
    assert np.all(np.any(encoded.state[1:, :, :HIDDEN] != 0, -1))


def test_step_by_step_encoding_equals_the_parallel_one(encoded: Encoded) -> None:
    step = jax.jit(lambda *inputs: encoded.encoder.apply({"params": encoded.params}, *inputs, method=Encoder.step))
    cell = jnp.zeros((BATCH, HIDDEN))
    for t in range(LENGTH):
        item = encoded.item[t - 1] if t else np.full(BATCH, -1, np.int32)
        reward = encoded.reward[t - 1] if t else np.zeros(BATCH, np.float32)
        cell, state = step(cell, item, reward, encoded.status[t])
        np.testing.assert_allclose(state, encoded.state[t], atol=1e-5)


def test_status_reaches_the_recurrent_unit_only_if_asked(encoded: Encoded) -> None:
    size = EMBEDDING + BINS + (STATUS if encoded.encoder.status_in_rnn else 0)
    assert encoded.params["gates"]["kernel"].shape == (size, 4 * HIDDEN)
    changed = encoded.status + np.float32(0.5)
    state = encoded.encoder.apply({"params": encoded.params}, encoded.item, encoded.reward, changed)
    same_hidden = np.allclose(state[1:, :, :HIDDEN], encoded.state[1:, :, :HIDDEN], atol=1e-6)
    assert same_hidden is not encoded.encoder.status_in_rnn


def test_states_do_not_depend_on_the_present_or_the_future(encoded: Encoded) -> None:
    item, reward, status = encoded.item.copy(), encoded.reward.copy(), encoded.status.copy()
    item[3:], reward[3:], status[4:] = 0, 1.0, 0.25
    state = encoded.encoder.apply({"params": encoded.params}, item, reward, status)
    np.testing.assert_allclose(state[:4], encoded.state[:4], atol=1e-6)
    assert not np.allclose(state[4:, :, :HIDDEN], encoded.state[4:, :, :HIDDEN], atol=1e-3)


@pytest.mark.parametrize("train_embedding", [True, False])
def test_gradients_reach_the_item_embeddings_only_if_trained(encoded: Encoded, train_embedding: bool) -> None:
    encoder = Encoder(ITEMS, EMBEDDING, HIDDEN, encoded.encoder.status_in_rnn, train_embedding)
    gradient = jax.jit(
        jax.grad(
            lambda params: jnp.sum(
                jnp.sin(encoder.apply({"params": params}, encoded.item, encoded.reward, encoded.status))
            )
        )
    )(encoded.params)
    assert np.any(np.asarray(gradient["gates"]["kernel"]) != 0)
    touched = np.any(np.asarray(gradient["item_embedding"]) != 0, -1)
    expected = np.isin(np.arange(ITEMS), encoded.item[:-1]) if train_embedding else np.zeros(ITEMS, bool)
    np.testing.assert_array_equal(touched, expected)


def test_reward_bins_at_exact_edges_are_the_paper_formula() -> None:
    edges = [Fraction(k, 5) for k in range(-5, 6)]  # -1, -0.8, ..., 1
    bins = np.asarray(reward_bin(jnp.asarray([float(edge) for edge in edges], jnp.float32), -1.0, 1.0))
    assert bins.tolist() == [paper_bin(edge) for edge in edges] == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_reward_bins_between_the_edges_are_the_paper_formula() -> None:
    rewards = [Fraction(2 * k + 1, 10) for k in range(-5, 5)]
    bins = np.asarray(reward_bin(jnp.asarray([float(reward) for reward in rewards], jnp.float32), -1.0, 1.0))
    assert bins.tolist() == [paper_bin(reward) for reward in rewards] == list(range(10))


@pytest.mark.parametrize("alpha", [Fraction(1, 10), Fraction(1, 5)])
@pytest.mark.parametrize("half_stars", [False, True])
def test_sequential_rewards_keep_their_bin_in_single_precision_and_are_clipped(
    alpha: Fraction, half_stars: bool
) -> None:
    """Every r + alpha * run that Eq. 6 can give in 32 steps, computed in float32 as the simulator does."""
    ratings = [Fraction(k, 2) for k in range(1, 11)] if half_stars else [Fraction(k) for k in range(1, 6)]
    exact, single = [], []
    for empirical in [Fraction(0)] + [2 * rating / 5 - 1 for rating in ratings]:
        for run in range(-31, 32):
            exact.append(empirical + alpha * run)
            single.append(np.float32(float(empirical)) + np.float32(float(alpha)) * np.float32(run))
    bins = np.asarray(reward_bin(jnp.asarray(np.array(single)), -1.0, 1.0))
    assert bins.tolist() == [paper_bin(reward) for reward in exact]
    assert bins[int(np.argmax(single))] == BINS - 1
    assert bins[int(np.argmin(single))] == 0


def test_reward_bins_on_another_range_and_number() -> None:
    # (0, 3] in three bins: (0, 1] -> 0, (1, 2] -> 1, (2, 3] -> 2.
    rewards = jnp.asarray([-5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 40], jnp.float32)
    assert np.asarray(reward_bin(rewards, 0.0, 3.0, 3)).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]


def test_an_episode_of_one_step_has_one_zero_state(encoded: Encoded) -> None:
    state = encoded.encoder.apply(
        {"params": encoded.params}, encoded.item[:1], encoded.reward[:1], np.zeros((1, BATCH, STATUS), np.float32)
    )
    np.testing.assert_array_equal(state, np.zeros((1, BATCH, HIDDEN + STATUS)))

"""The replay memory against a deque, and how evenly it is sampled."""

import collections

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.training.replay import Replay, add_rows, make_replay, sample_rows

CAPACITY, BATCH = 7, 4
EXAMPLE = {
    "item": jax.ShapeDtypeStruct((), jnp.int32),
    "pair": jax.ShapeDtypeStruct((2,), jnp.float32),
    "feedback": jax.ShapeDtypeStruct((3,), jnp.int8),
    "done": jax.ShapeDtypeStruct((), jnp.bool_),
}
add, sample = jax.jit(add_rows), jax.jit(sample_rows, static_argnums=2)


def rows_of(numbers) -> dict[str, np.ndarray]:
    """Rows that tell their numbers in every array."""
    numbers = np.asarray(numbers, np.int32)
    return {
        "item": numbers,
        "pair": np.stack([numbers + 0.5, -numbers], 1).astype(np.float32),
        "feedback": np.repeat(numbers[:, None] % 100, 3, 1).astype(np.int8),
        "done": numbers % 2 == 1,
    }


def held(replay: Replay) -> list[int]:
    """The numbers of the rows held, oldest first; checks that each row's arrays belong together."""
    size, position = int(replay.size), int(replay.position)
    slots = (position - size + np.arange(size)) % replay.capacity
    found = {name: np.asarray(array)[slots] for name, array in replay.rows.items()}
    for name, array in rows_of(found["item"]).items():
        np.testing.assert_array_equal(found[name], array)
    return found["item"].tolist()


masks = st.lists(st.lists(st.booleans(), min_size=BATCH, max_size=BATCH), max_size=12)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(masks=masks)
def test_the_memory_holds_the_last_rows_exactly(masks):
    replay, expected = make_replay(EXAMPLE, CAPACITY), collections.deque(maxlen=CAPACITY)
    number = 1
    for mask in masks:
        numbers = np.arange(number, number + BATCH)
        number += BATCH
        replay = add(replay, rows_of(numbers), np.array(mask))
        expected.extend(numbers[mask].tolist())
        assert held(replay) == list(expected)
        assert int(replay.size) == len(expected)
    # What can be sampled is what is held.
    drawn = np.asarray(sample(replay, jax.random.key(number), 200)["item"])
    assert set(drawn.tolist()) == (set(expected) or {0})


@pytest.mark.parametrize("mask", [[True] * BATCH, [False] * BATCH, [False, True, False, True]])
def test_a_memory_of_one_batch(mask):
    replay = make_replay(EXAMPLE, BATCH)
    replay = add(replay, rows_of([1, 2, 3, 4]), np.ones(BATCH, bool))
    replay = add(replay, rows_of([5, 6, 7, 8]), np.array(mask))
    assert held(replay) == [*[1, 2, 3, 4][sum(mask) :], *np.array([5, 6, 7, 8])[mask]]


def test_more_rows_than_the_memory_holds_are_refused():
    with pytest.raises(AssertionError, match="more rows"):
        add_rows(make_replay(EXAMPLE, BATCH - 1), rows_of([1, 2, 3, 4]), jnp.ones(BATCH, bool))


def test_held_rows_are_drawn_uniformly_and_others_never():
    replay = make_replay(EXAMPLE, 100)
    for first in range(1, 41, BATCH):
        replay = add(replay, rows_of(range(first, first + BATCH)), np.array([True, True, False, True]))
    expected = [number for number in range(1, 41) if number % 4 != 3]
    drawn = jax.device_get(sample(replay, jax.random.key(0), 60_000))
    numbers, counts = np.unique(drawn["item"], return_counts=True)
    assert numbers.tolist() == expected
    assert ((counts - 2_000) ** 2 / 2_000).sum() < 70  # 29 degrees of freedom: p = 3e-5
    for name, array in rows_of(drawn["item"]).items():
        np.testing.assert_array_equal(drawn[name], array)
    again = sample(replay, jax.random.key(0), 60_000)
    np.testing.assert_array_equal(again["item"], drawn["item"])
    assert (np.asarray(sample(replay, jax.random.key(1), 60_000)["item"]) != drawn["item"]).any()


def test_types_and_shapes_are_those_of_the_example():
    replay = make_replay(EXAMPLE, CAPACITY)
    assert replay.capacity == CAPACITY
    assert (int(replay.position), int(replay.size)) == (0, 0)
    assert replay.bytes_per_row == 4 + 2 * 4 + 3 * 1 + 1
    wider = {name: array.astype(np.float32) for name, array in rows_of([3, 4, 5, 6]).items()}
    for memory in (replay, add(replay, wider, np.ones(BATCH, bool))):
        for name, example in EXAMPLE.items():
            assert memory.rows[name].dtype == example.dtype
            assert memory.rows[name].shape == (CAPACITY, *example.shape)
    drawn = sample(add(replay, wider, np.ones(BATCH, bool)), jax.random.key(0), 5)
    assert {name: (array.dtype, array.shape) for name, array in drawn.items()} == {
        name: (example.dtype, (5, *example.shape)) for name, example in EXAMPLE.items()
    }


def test_an_example_may_be_a_row_itself():
    replay = make_replay({"item": np.int32(3), "pair": np.zeros(2, np.float32)}, 5)
    assert (replay.capacity, replay.bytes_per_row) == (5, 12)

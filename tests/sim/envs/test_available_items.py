"""What is left to recommend, against sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sim.envs.available_items import draw_item, hide_recommended, recommended_before


def test_hidden_are_the_recommended_items_and_no_others():
    scores = np.arange(6, dtype=np.float32)
    found = hide_recommended(jnp.asarray(scores), jnp.asarray([4, 0, -1, -1]))
    np.testing.assert_array_equal(found, [-np.inf, 1, 2, 3, -np.inf, 5])
    # Nothing recommended: the last item, which -1 would index, stays.
    np.testing.assert_array_equal(hide_recommended(jnp.asarray(scores), jnp.full(3, -1)), scores)
    # Items may come again: no recommended items at all.
    np.testing.assert_array_equal(hide_recommended(jnp.asarray(scores), jnp.zeros(0, jnp.int32)), scores)


def test_recommended_before_by_hand():
    items = jnp.asarray([[4, 7], [5, 8], [6, 9]])
    expected = [[[-1, -1, -1], [-1, -1, -1]], [[4, -1, -1], [7, -1, -1]], [[4, 5, -1], [7, 8, -1]]]
    np.testing.assert_array_equal(recommended_before(items), expected)
    np.testing.assert_array_equal(recommended_before(items, jnp.asarray([2, 0])), [expected[2], expected[0]])


@pytest.mark.parametrize(("recommended", "allow_repeats"), [([], False), ([5, 0, 3], False), ([5, 0, 3], True)])
def test_draws_are_uniform_over_what_is_left(recommended, allow_repeats):
    number, length = 20_000, 4
    padded = np.full((number, length), -1)
    padded[:, : len(recommended)] = recommended
    carried = jnp.asarray(padded[:, :0] if allow_repeats else padded)
    drawn = draw_item(jax.random.key(0), jnp.full(number, len(recommended)), carried, 6)
    left = [item for item in range(6) if allow_repeats or item not in recommended]
    counts = np.bincount(drawn, minlength=6)
    assert counts.nonzero()[0].tolist() == left
    expected = number / len(left)
    assert np.abs(counts[left] - expected).max() < 5 * np.sqrt(expected)

"""What is remembered of a user: directions by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from hrlmg_jax.agent.memory import REMEMBERED, mean_directions
from sim.envs.histories import Histories


def test_what_is_remembered_are_shrunk_directions_of_each_kind() -> None:
    """Of n items the direction of their sum, n / (n + 1) long; lately clicked items are not those of before."""
    embedding = jnp.asarray([[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    before = Histories(*(jnp.asarray(items, jnp.int32) for items in ([[-1, 0, 1]], [[-1, -1, 1]], [[-1, -1, -1]])))
    found = mean_directions(before, jnp.asarray([[0, 0]]), jnp.asarray([[-1, 1]]), embedding)
    # [3, 0] + [0, 4] is 5 long: [0.6, 0.8], of two items.
    expected = {
        "browsed_before": [0.4, 0.8 * 2 / 3],
        "clicked_before": [0, 0.5],
        "ordered_before": [0, 0],
        "clicked_lately": [2 / 3, 0],
        "ordered_lately": [0, 0.5],
    }
    assert tuple(expected) == REMEMBERED
    np.testing.assert_allclose(found, [list(expected.values())], rtol=1e-6)

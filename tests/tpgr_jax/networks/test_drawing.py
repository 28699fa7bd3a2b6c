"""Initial parameters that are drawn in parts."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from tpgr_jax.networks import drawing
from tpgr_jax.networks.drawing import in_rows

INITIALIZER = nn.initializers.lecun_normal(batch_axis=(0,))


def test_small_arrays_are_drawn_as_ever():
    key, shape = jax.random.key(0), (50, 8, 4)
    np.testing.assert_array_equal(in_rows(INITIALIZER)(key, shape), INITIALIZER(key, shape))


@pytest.mark.parametrize("rows", [100, 98])
def test_parts_differ_and_have_the_deviation_of_the_whole(rows, monkeypatch):
    """Also where the last part is not full and overlaps the one before."""
    monkeypatch.setattr(drawing, "_LARGE", 100)
    monkeypatch.setattr(drawing, "_AT_A_TIME", 20 * 8 * 4)
    drawn = np.asarray(in_rows(INITIALIZER)(jax.random.key(0), (rows, 8, 4)))
    assert len(np.unique(drawn)) == drawn.size
    np.testing.assert_allclose(drawn.std(), 8**-0.5, rtol=0.05)

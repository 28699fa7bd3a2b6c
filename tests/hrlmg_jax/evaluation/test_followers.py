"""Fixed policies that follow lists and clicks."""

from types import SimpleNamespace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.evaluation.followers import fixed_followers
from sim.datasets.sessions import SessionData


def test_a_log_without_orders_has_rates_all_the_same():
    counts = {"shown": np.array([4, 2, 2]), "clicked": np.array([2, 0, 1]), "ordered": np.zeros(3, int)}
    data = cast(SessionData, SimpleNamespace(training_counts=lambda: counts, num_items=3))
    followers = fixed_followers(data, dict.fromkeys(("popularity", "best_rate"), np.array([0, 2, 1])), jnp.eye(3))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(followers))

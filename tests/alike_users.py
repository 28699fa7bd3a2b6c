"""A tiny generated shop, and learned users to whom all items are alike."""

from dataclasses import dataclass
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.baselines.fixed_lists import fixed_rankings
from hrlmg_jax.problem import Problem
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.store import Simulator
from sim.datasets.sessions import SessionData


def tiny_shop(cache: Path) -> RunConfig:
    """Returns the settings of a run on 60 generated users and 100 items."""
    words = ["data.size=tiny", "data.num_users=60", "data.num_items=100", f"data.cache={cache}"]
    words += ["env.episode_length=10", "simulator.held_out_fraction=0.3"]
    return read_settings(RunConfig, composed_values("train_hrl_mg", words))


@flax.struct.dataclass
class Rates:
    """Rates of skips, clicks and orders, and an embedding."""

    rates: jax.Array
    embedding: jax.Array


@dataclass(frozen=True)
class EveryoneAlike:
    """Learned users who are plainly bad: all items are alike to them."""

    def initial(self, params, start):
        return ()

    def probabilities(self, params, hidden, histories, item):
        return params.rates

    def update(self, params, hidden, item, feedback):
        return ()

    def in_sessions(self, params, data, rows):
        return params

    def predict(self, params, data, rows, history_length):
        return np.tile(np.asarray(params.rates, np.float64), (len(rows), 1))

    def findings(self, params):
        return []


def problem_alike(config: RunConfig, data: SessionData, rates: list[float], longest_session: int) -> Problem:
    """Returns the problem with users who skip, click and order at some rates, whatever they are shown."""
    embedding = np.random.default_rng(0).standard_normal((data.log.num_items, 50)).astype(np.float32)
    params = Rates(jnp.asarray(rates), jnp.asarray(embedding))
    simulator = Simulator(EveryoneAlike(), params, {})
    return Problem(data, config.env, simulator, fixed_rankings(config.env, data), longest_session)

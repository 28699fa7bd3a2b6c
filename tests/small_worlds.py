"""Small worlds without files: ratings of twelve items, sessions with users who answer by chance, a generated log."""

import functools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from hand_made import hand_made_log, hand_made_ratings
from sim.envs.histories import make_history_table
from sim.envs.rating_env import EnvConfig, make_env_params, make_rating_env
from sim.envs.session_env import SessionEnv, SessionParams
from sim.generators.funnel import generate_log
from sim.gym.views import RatingView, SessionView
from sim.gym.worlds import World
from sim.tables.events import EventLog

USERS, ITEMS, LENGTH, ALPHA, HISTORY = 7, 12, 4, 0.1, 3
FIRST_ID = 100  # of the items
CHANCES = jnp.array([0.4, 0.4, 0.2])


def rating_table() -> np.ndarray:
    """[U, I] ratings 1 to 5, 0 = not rated; every user and item has one."""
    table = np.random.default_rng(0).integers(0, 6, (USERS, ITEMS))
    table[0], table[:, 0] = 5, 4
    return table


def rating_world(repeats: bool = False) -> World:
    """Users u0 to u6, of whom the odd ones are played with; items 100 to 111."""
    table = rating_table()
    users, items = np.nonzero(table)
    ids = np.array([f"u{user}" for user in range(USERS)])
    data = hand_made_ratings(ids[users], FIRST_ID + items, table[users, items], 1, 5)
    config = EnvConfig(ALPHA, LENGTH, "half_open", "policy", repeats, "dense", 1.0)
    played = np.arange(1, USERS, 2, dtype=np.int32)
    params = make_env_params(config, data, played, 3)
    view = RatingView(make_rating_env(config, data), -0.6, 1.0)
    return World("hand-made", view, params, played, np.asarray(data.user_ids)[played], np.asarray(data.item_ids))


@functools.cache
def generated_log() -> EventLog:
    """A log of 20 users and 100 items, made once in a process: it takes seconds to compile."""
    return generate_log(size="tiny", seed=0, num_users=20, num_items=100)


@dataclass(frozen=True)
class ByChance:
    """Skips, clicks and orders with the same chances always: `CHANCES`, its parameters."""

    def initial(self, params, start):
        return ()

    def probabilities(self, params, hidden, histories, item):
        return params

    def update(self, params, hidden, item, feedback):
        return hidden


def session_world() -> World:
    """Sessions of three users, each of whom was shown items 0 and 1 before and clicked the second."""
    log = hand_made_log([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2] * 3, [0, 1, 0] * 3, num_items=ITEMS)
    rows = np.array([2, 5, 8])
    env = SessionEnv(ByChance(), LENGTH, HISTORY)
    params = SessionParams(make_history_table(log), jnp.asarray(rows, jnp.int32), None, CHANCES)
    starts, names = np.arange(3, dtype=np.int32), ("skip", "click", "order")
    return World(
        "hand-made log",
        SessionView(env, ITEMS, ITEMS),
        params,
        starts,
        np.arange(3),
        FIRST_ID + np.arange(ITEMS),
        names,
    )

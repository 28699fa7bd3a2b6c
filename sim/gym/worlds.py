"""The simulators by keyword arguments: data, settings, who is played with, and what items are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.settings import read_settings
from harness.training.from_python import composed_in_python, overrides_of
from sim.datasets.events import SYNTHETIC_FUNNEL, LogConfig, load_log
from sim.datasets.items import ItemsConfig, load_items
from sim.datasets.ratings import AnyDataConfig, load_dataset
from sim.envs.histories import make_history_table
from sim.envs.rating_env import RatingEnv
from sim.envs.session_env import TRUTH, SessionConfig, SessionEnv, SessionParams
from sim.envs.simulator import ANY_SIMULATOR, EnvSettings, make_simulator
from sim.generators.funnel import FunnelModel, truth_of_sessions
from sim.gym.views import RatingView, SessionView, View
from sim.tables.items import ItemTable

Split = Literal["train", "test"]
RATINGS, SESSIONS = "gym_ratings", "gym_sessions"
"""Configurations: `conf/NAME.yaml`."""


@dataclass(frozen=True)
class RatingsSettings:
    """What `conf/gym_ratings.yaml` composes."""

    data: AnyDataConfig
    env: Annotated[EnvSettings, ANY_SIMULATOR]
    items: ItemsConfig


@dataclass(frozen=True)
class SessionsSettings:
    """What `conf/gym_sessions.yaml` composes."""

    data: LogConfig
    env: SessionConfig
    items: ItemsConfig


_KEPT = 4  # worlds in memory; single environments of one process share theirs


@dataclass(frozen=True, eq=False)
class World:
    """A simulator, ready to be played with.

    Attributes:
        name: Of the data.
        view: The functions of an episode.
        params: The simulator's tables.
        starts: [S] int32 episodes that are drawn from: users, or sessions.
        user_ids: [S] original ids of their users.
        item_ids: [I] original ids of the items, which actions number.
        answers: What the answers 0, 1, 2 are called; empty where answers are numbers.
        table: Titles of the items; None where none are known.
    """

    name: str
    view: View
    params: Any
    starts: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    answers: Sequence[str] = ()
    table: ItemTable | None = None

    def title(self, item: int) -> str:
        """Returns an item for people: its title, or its id."""
        return str(self.item_ids[item]) if self.table is None else self.table.label(item)

    def start_of(self, user: Any) -> int:
        """Returns the first episode of a user.

        Raises:
            UserError: No such user is played with.
        """
        found = np.flatnonzero(self.user_ids == user)
        if not len(found):
            raise UserError(
                f"there is no user {user!r} to play with in {self.name}",
                do=f"Ids are such as {', '.join(map(repr, self.user_ids[:3].tolist()))}; split=train and split=test "
                "have different ones.",
            )
        return int(self.starts[found[0]])


def make_world(
    configuration: str,
    settings: Mapping[str, Any],
    split: Split = "train",
    alpha: float | None = None,
    horizon: int | None = None,
) -> World:
    """Builds a simulator, or returns the one that equal arguments built before.

    Args:
        configuration: `RATINGS` or `SESSIONS`.
        settings: Keys of the configuration, see `harness.training.from_python.overrides_of`.
        split: Whom to play with: training users (of a log: sessions of its training part), or test users.
        alpha: env.alpha, the weight of the sequential reward; None: as configured.
        horizon: env.episode_length, recommendations in an episode; None: as configured.

    Raises:
        UserError: A mistake in the settings or the data.
    """
    short = {"env.alpha": alpha, "env.episode_length": horizon}
    given = {**settings, **{key: value for key, value in short.items() if value is not None}}
    if split not in ("train", "test"):
        raise UserError(f"split is {split!r}", do="Use train or test.")
    return _built(configuration, tuple(overrides_of(given)), split)


@lru_cache(_KEPT)
def _built(configuration: str, overrides: tuple[str, ...], split: Split) -> World:
    values = composed_in_python(configuration, overrides)
    return (_rating_world if configuration == RATINGS else _session_world)(values, split)


def _rating_world(values: Mapping[str, Any], split: Split) -> World:
    settings = read_settings(RatingsSettings, values)
    config = settings.data
    if config.validation or config.selection:
        raise UserError("data.validation and data.selection hold users out of a run", do="Leave them out here.")
    data = load_dataset(config)
    train, test = config.split(data.num_users)
    data = config.scaled(data, train)
    env, params, rewards = make_simulator(settings.env, data, train, config.relevant_above)
    if not isinstance(env, RatingEnv):
        raise UserError(
            f"the observations of {settings.env.description} are not known here",
            where="env.module",
            do="Choose env=rating, or wrap your simulator yourself.",
        )
    users = train if split == "train" else test
    _check_not_empty(len(users), split, "data.test_fraction")
    items = load_items(settings.items, config, data.item_ids, data.synthetic)
    view = RatingView(env, float(np.min(rewards)), float(np.max(rewards)))
    ids = np.asarray(data.user_ids)[users]
    return World(data.name, view, params, users.astype(np.int32), ids, np.asarray(data.item_ids), table=items)


def _session_world(values: Mapping[str, Any], split: Split) -> World:
    config = read_settings(SessionsSettings, values)
    settings = config.env
    if settings.users != TRUTH or config.data.reader != SYNTHETIC_FUNNEL:
        raise UserError(
            f"users who answer as in {config.data.name} would have to be learned; here those who wrote a generated log "
            "answer",
            where="env.users",
            do="Take data=synthetic_funnel with env.users=truth; hrlmg_jax trains in learned users.",
        )
    log = load_log(config.data)
    if log.num_items < settings.episode_length:
        raise UserError(
            f"{log.name} has {log.num_items} items, a session recommends {settings.episode_length} different ones",
            do=f"Set env.episode_length to at most {log.num_items}.",
        )
    rows = log.session_starts()[:-1][log.is_test == (split == "test")]
    _check_not_empty(len(rows), split, "data.split")
    params = SessionParams(make_history_table(log), jnp.asarray(rows, jnp.int32), None, truth_of_sessions(log, rows))
    rewards = settings.click_reward, settings.order_reward
    env = SessionEnv(FunnelModel(), settings.episode_length, settings.history_length, *rewards)
    view = SessionView(env, log.num_items)
    ids = np.asarray(log.user_ids)[log.user[rows]]
    starts = np.arange(len(rows), dtype=np.int32)
    return World(log.name, view, params, starts, ids, np.asarray(log.item_ids), ("skip", "click", "order"))


def _check_not_empty(number: int, split: str, key: str) -> None:
    if not number:
        raise UserError(f"split={split} has nobody to play with", where=key, do="Choose the other split.")

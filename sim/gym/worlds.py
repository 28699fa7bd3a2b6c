"""The simulators by keyword arguments: data, settings, who is played with, and what items are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.settings import CountOrZero, ProperShare, read_settings
from harness.training.from_python import composed_in_python, overrides_of
from sim.datasets.items import ItemsConfig, load_items
from sim.datasets.log_settings import SYNTHETIC_FUNNEL, LogConfig
from sim.datasets.ratings import AnyDataConfig, load_dataset
from sim.datasets.sessions import load_sessions
from sim.envs.rating_env import RatingEnv
from sim.envs.session_env import TRUTH, SessionConfig, SessionEnv, SessionParams
from sim.envs.simulator import ANY_SIMULATOR, EnvSettings, make_simulator
from sim.generators.funnel_truth import truth_of_sessions
from sim.generators.funnel_users import FunnelModel
from sim.gym.views import RatingView, SessionView, View
from sim.tables.items import ItemTable

Split = Literal["train", "validation", "test"]
RATINGS, MOVIELENS, SESSIONS = "gym_ratings", "gym_movielens", "gym_sessions"
"""Configurations: `conf/NAME.yaml`."""


@dataclass(frozen=True)
class RatingsSettings:
    """What `conf/gym_ratings.yaml` and `conf/gym_movielens.yaml` compose."""

    data: AnyDataConfig
    env: Annotated[EnvSettings, ANY_SIMULATOR]
    items: ItemsConfig


@dataclass(frozen=True)
class HeldOutConfig:
    """Which users of a log are held out, as in `conf/simulator/learned.yaml`."""

    held_out_fraction: ProperShare
    seed: CountOrZero


@dataclass(frozen=True)
class SessionsSettings:
    """What `conf/gym_sessions.yaml` composes."""

    data: LogConfig
    env: SessionConfig
    items: ItemsConfig
    simulator: HeldOutConfig


@dataclass(frozen=True, eq=False)
class World:
    """A simulator, ready to be played with.

    Attributes:
        name: Of the data.
        view: The functions of an episode.
        params: The simulator's tables.
        starts: [S] int32 episodes that are drawn from: users, or sessions.
        user_ids: [S] original ids of their users.
        item_ids: [I] original ids of the items that can be recommended, which actions number.
        answers: What the answers 0, 1, 2 are called; empty where answers are numbers.
        table: Titles of the items; None where none are known.
        synthetic: Whether the data were generated.
    """

    name: str
    view: View
    params: Any
    starts: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    answers: Sequence[str] = ()
    table: ItemTable | None = None
    synthetic: bool = False

    def title(self, item: int) -> str:
        """Returns an item for people: its title, or its id."""
        return str(self.item_ids[item]) if self.table is None else self.table.label(item)

    def start_of(self, user: Any) -> int:
        """Returns the first episode of a user.

        Raises:
            UserError: No such user is played with.
        """
        found = np.flatnonzero(self.user_ids == user if np.isscalar(user) else [])
        if not len(found):
            raise UserError(
                f"there is no user {user!r} to play with in {self.name}",
                do=f"Ids are such as {', '.join(map(repr, self.user_ids[:3].tolist()))}; other splits have others.",
            )
        return int(self.starts[found[0]])


def make_world(
    configuration: str,
    settings: Mapping[str, Any],
    split: Split = "train",
    alpha: float | None = None,
    horizon: int | None = None,
) -> World:
    """Builds a simulator; environments that are given the same one share its tables and programs.

    Args:
        configuration: `RATINGS`, `MOVIELENS` (ratings of a MovieLens data set) or `SESSIONS`.
        settings: Keys of the configuration, see `harness.training.from_python.overrides_of`.
        split: Whom to play with. Of ratings: training users; with data.validation or data.selection the tenth of them
            that is held out then (validation); or test users. Of a log: training users' sessions of its training part,
            those of held-out users (validation), or sessions of its test part. They are those of a run with the same
            settings.
        alpha: env.alpha, the weight of the sequential reward; None: as configured.
        horizon: env.episode_length, recommendations in an episode; None: as configured.

    Raises:
        UserError: A mistake in the settings or the data.
    """
    short = {"env.alpha": alpha, "env.episode_length": horizon}
    given = {**settings, **{key: value for key, value in short.items() if value is not None}}
    if split not in get_args(Split):
        raise UserError(f"split is {split!r}", do="Use train, validation or test.")
    chosen = settings.get("data")
    if configuration == MOVIELENS and isinstance(chosen, str) and not chosen.startswith("movielens_"):
        raise _no_movielens(chosen)
    values = composed_in_python(configuration, overrides_of(given))
    world = (_session_world if configuration == SESSIONS else _rating_world)(values, split)
    if configuration == MOVIELENS and world.synthetic:
        raise _no_movielens(world.name)
    return world


def _no_movielens(name: str) -> UserError:
    return UserError(
        f"{name} is no MovieLens data set",
        where="data",
        do="Choose one, such as movielens_100k, or make TPGR/Ratings-v0, which takes any ratings.",
    )


def _rating_world(values: Mapping[str, Any], split: Split) -> World:
    settings = read_settings(RatingsSettings, values)
    config = settings.data
    data = load_dataset(config)
    train, test, held_out = config.user_groups(data.num_users)
    if split == "test" and config.validation:
        raise UserError("test users take no part in data.validation=true", where="split", do="Use split=validation.")
    data = config.scaled(data, train)
    env, params, rewards = make_simulator(settings.env, data, train, config.hits_above)
    if not isinstance(env, RatingEnv):
        raise UserError(
            f"the observations of {settings.env.description} are not known here",
            where="env.module",
            do="Choose env=rating, or wrap your simulator yourself.",
        )
    users = {"train": train, "validation": held_out, "test": test}[split]
    _check_not_empty(len(users), split, "data.validation" if split == "validation" else "data.test_fraction")
    items = load_items(settings.items, config, data.item_ids, data.synthetic)
    view = RatingView(env, float(np.min(rewards)), float(np.max(rewards)))
    ids = np.asarray(data.user_ids)[users]
    starts, item_ids = users.astype(np.int32), np.asarray(data.item_ids)
    return World(data.name, view, params, starts, ids, item_ids, table=items, synthetic=data.synthetic)


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
    # The log, and the sessions that can begin.
    data = load_sessions(config.data, config.simulator.held_out_fraction, config.simulator.seed)
    log = data.log
    if data.num_items < settings.episode_length:
        raise UserError(
            f"{log.name} has {data.num_items} items to recommend, a session recommends {settings.episode_length} "
            "different ones",
            do=f"Set env.episode_length to at most {data.num_items}.",
        )
    rows = data.first_rows("held_out" if split == "validation" else split)
    _check_not_empty(len(rows), split, "data.split")
    # Their users, and what an episode shows.
    params = SessionParams(data.table, jnp.asarray(rows, jnp.int32), None, truth_of_sessions(log, rows))
    rewards = settings.click_reward, settings.order_reward
    env = SessionEnv(FunnelModel(), settings.episode_length, settings.history_length, *rewards)
    view = SessionView(env, data.num_items, log.num_items)
    ids = np.asarray(log.user_ids)[log.user[rows]]
    starts = np.arange(len(rows), dtype=np.int32)
    item_ids, answers = np.asarray(log.item_ids)[: data.num_items], ("skip", "click", "order")
    return World(log.name, view, params, starts, ids, item_ids, answers, synthetic=log.synthetic)


def _check_not_empty(number: int, split: str, key: str) -> None:
    if not number:
        do = f"Choose another split, or change {key}: validation users are held out with data.validation=true."
        raise UserError(f"split={split} has nobody to play with", where=key, do=do)

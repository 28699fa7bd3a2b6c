"""The sessions of a generated log: users of either kind with the shop that writes it, played in batches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sim.envs.histories import Histories, HistoryTable
from sim.envs.policy import Decision
from sim.envs.rollout import begin, play_on
from sim.envs.session_env import SessionEnv, SessionInfo, SessionObservation, SessionParams, SessionTrajectory
from sim.generators.drift import DriftModel
from sim.generators.funnel_users import FunnelModel, FunnelParams, FunnelUser, unit
from sim.generators.funnel_world import (
    DIMENSION,
    LOGGED,
    MAX_SESSION,
    SECONDS_PER_IMPRESSION,
    Schedule,
    World,
    draw_curiosity,
)
from sim.generators.shop import Catalogue, shop_policy, shown_probabilities
from sim.tables.events import CLICK, ShopName

_USERS_PER_BATCH = 1024
_MEMORY = 0.9  # of a shop: what a click counts after another one


class Visits(NamedTuple):
    """Sessions with the shop that writes the log: the truth, and clicks remembered [S, 50] when each begins."""

    users: FunnelParams
    clicks: jax.Array


@flax.struct.dataclass
class Visitor:
    """A user in the shop that writes the log: their hidden state, and the shop's sum_k 0.9^k e of their clicks [50]."""

    user: FunnelUser
    clicks: jax.Array


@dataclass(frozen=True)
class VisitorModel:
    """The truth as a feedback model, together with what a shop can know of its users."""

    truth: FunnelModel | DriftModel

    def initial(self, params: Visits, start: jax.Array) -> Visitor:
        """Returns a user at the beginning of a session."""
        return Visitor(self.truth.initial(params.users, start), params.clicks[start])

    def probabilities(self, params: Visits, hidden: Visitor, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [3] the true probabilities."""
        return self.truth.probabilities(params.users, hidden.user, histories, item)

    def update(self, params: Visits, hidden: Visitor, item: jax.Array, feedback: jax.Array) -> Visitor:
        """Returns the user after an answer; a click counts if the session goes on until then."""
        counts = (feedback >= CLICK) & (hidden.user.step < hidden.user.length)
        clicks = jnp.where(counts, _MEMORY * hidden.clicks + params.users.item[item], hidden.clicks)
        return Visitor(self.truth.update(params.users, hidden.user, item, feedback), clicks)


def interest_of(shop: ShopName, visitor: Visitor) -> jax.Array:
    """Returns [..., 50] what a shop knows of its visitors' interests, of norm 1 or less; 0 for nothing."""
    if shop == "reads_minds":
        return 0.5 * (visitor.user.taste + visitor.user.curiosity)
    return unit(visitor.clicks) if shop == "seen" else jnp.zeros_like(visitor.clicks)


@flax.struct.dataclass
class Impressions(SessionTrajectory):
    """A trajectory in the shop that writes the log; `interest` [T, B, 50] float32 is what the shop knew."""

    interest: jax.Array


@dataclass(frozen=True)
class LoggingEnv(SessionEnv):
    """The session simulator with the shop that writes the log.

    Attributes:
        shop: Which.
    """

    shop: ShopName = "seen"

    def record(
        self, observation: SessionObservation, decision: Decision, reward: jax.Array, info: SessionInfo
    ) -> Impressions:
        """Returns one step of a trajectory, and what the shop knew."""
        interest = interest_of(self.shop, observation.hidden)
        return Impressions(decision.action, info.feedback, reward, info.probabilities, interest)


class Writer(NamedTuple):
    """Who writes a log: a shop that knows something of its users, and users of a kind."""

    shop: ShopName
    users: FunnelModel | DriftModel


def play(
    world: World, writer: Writer, schedule: Schedule, users: np.ndarray, key: jax.Array, with_shown: bool
) -> dict[str, np.ndarray]:
    """Plays all sessions of the users, in batches, and returns the columns of the log, [E] each.

    Args:
        world: Items and users; click_bias and order_bias are taken as they are.
        writer: The shop, and the kind of users.
        schedule: When users visit.
        users: [n] int rows of the schedule.
        key: Of all random numbers.
        with_shown: Whether to compute the probabilities with which items were shown.
    """
    columns: dict[str, list[np.ndarray]] = {}
    size, everyone = min(_USERS_PER_BATCH, len(users)), jnp.arange(len(schedule.length))
    steps = np.arange(MAX_SESSION)
    # On the host, where setting rows of many numbers compiles nothing.
    trust, clicks = np.array(world.params.trust), np.zeros((len(everyone), DIMENSION), np.float32)
    for session in range(schedule.length.shape[1]):
        # The session of this number: another curiosity; trust, and what the shop remembers, last.
        visiting = users[schedule.length[users, session] > 0]
        lengths = jnp.asarray(schedule.length[:, session], jnp.int32)
        curiosity_key = jax.random.fold_in(key, LOGGED)
        curiosity = draw_curiosity(world.interests, curiosity_key, everyone, jnp.full_like(everyone, session))
        today = dataclasses.replace(world.params, length=lengths, curiosity=curiosity)
        for first in range(0, len(visiting), size):
            batch = visiting[first : first + size]
            padded = jnp.asarray(np.resize(batch, size), jnp.int32)
            batch_key = jax.random.fold_in(jax.random.fold_in(key, session), first)
            visits = Visits(dataclasses.replace(today, trust=jnp.array(trust)), jnp.array(clicks))
            visitors, played = _play_sessions(writer, visits, world.catalogue, padded, batch_key)
            trust[batch] = np.asarray(visitors.user.trust)[: len(batch)]
            clicks[batch] = np.asarray(visitors.clicks)[: len(batch)]
            # Columns, up to the end of each session.
            kept = (steps[:, None] < schedule.length[batch, session]).T
            start = schedule.start[batch, session]
            item, feedback, probabilities = (
                np.moveaxis(np.asarray(array), 0, 1)[: len(batch)]
                for array in (played.item, played.feedback, played.probabilities)
            )
            batch_columns = {
                "users": np.broadcast_to(batch[:, None], kept.shape),
                "items": item,
                "times": start[:, None] + steps * SECONDS_PER_IMPRESSION,
                "feedback": feedback,
                "sessions": np.broadcast_to(batch[:, None] * schedule.length.shape[1] + session, kept.shape),
                "probabilities": probabilities,
            }
            for column, values in batch_columns.items():
                columns.setdefault(column, []).append(values[kept])
            if with_shown:
                knew = np.moveaxis(np.asarray(played.interest), 0, 1)[: len(batch)]
                chances = _shown_probabilities(world.catalogue, knew, item, kept)
                columns.setdefault("shown_probability", []).append(chances)
    return {column: np.concatenate(values) for column, values in columns.items()}


@partial(jax.jit, static_argnums=0)
def _play_sessions(
    writer: Writer, visits: Visits, catalogue: Catalogue, users: jax.Array, key: jax.Array
) -> tuple[Visitor, Impressions]:
    """Plays one session with each user; returns them afterwards, and what was played."""
    env = LoggingEnv(VisitorModel(writer.users), MAX_SESSION, 1, shop=writer.shop)
    nothing = jnp.zeros((1,), jnp.int32)  # the truth ignores histories
    table = HistoryTable(nothing, nothing, jnp.zeros((2,), jnp.int32), jnp.zeros((2,), jnp.int32), nothing, nothing)
    env_params = SessionParams(table, jnp.zeros_like(visits.users.length), None, visits)
    policy = shop_policy(partial(interest_of, writer.shop))
    episodes = begin(env, env_params, policy, catalogue, users)
    episodes, played = play_on(env, env_params, policy, catalogue, episodes, key, True)
    return episodes.state.hidden, played


def _shown_probabilities(catalogue: Catalogue, knew: np.ndarray, item: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns the probabilities with which the kept impressions of B sessions were shown.

    Args:
        knew: [B, T, 50] what the shop knew.
        item: [B, T] items.
        kept: [B, T] bool.
    """
    # A shop learns by clicks, so that it mostly knew the same as a step before.
    news = np.any(np.diff(knew, axis=1, prepend=np.nan) != 0, -1) & kept
    known = np.cumsum(news).reshape(news.shape) - 1
    earlier = np.tri(MAX_SESSION, k=-1, dtype=bool)  # [step, step before]
    session, step = np.nonzero(kept)
    shown = np.where(earlier[step], item[session], -1)
    return shown_probabilities(catalogue, knew[news], known[kept], item[kept], shown)

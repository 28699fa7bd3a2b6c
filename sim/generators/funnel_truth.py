"""The truth behind a generated log: its users, as they were when sessions of it began."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sim.generators.drift import DriftModel
from sim.generators.funnel_users import FunnelModel, FunnelParams, FunnelUser
from sim.generators.funnel_world import GENERATOR_VERSION, PLAYED, draw_curiosity, draw_world
from sim.tables.events import EventLog, WorldName

_USERS_PER_BATCH = 1024
_TRUST = FunnelModel()

KINDS: dict[WorldName, FunnelModel | DriftModel] = {"trust": _TRUST, "drift": DriftModel()}
"""The users of a generated log, by `data.world`."""


def true_users(log: EventLog) -> FunnelModel | DriftModel:
    """Returns the users who wrote a generated log: `sim.generators.funnel_users`, or `sim.generators.drift`."""
    assert log.generator is not None, "only a generated log has a truth"
    return KINDS[log.generator.get("world", "trust")]


def truth_of_sessions(log: EventLog, rows: np.ndarray) -> FunnelParams:
    """Returns the truth behind a generated log, for sessions that begin at rows of it.

    Such a session is of the row's user as they were then: with their taste, the trust that their earlier sessions have
    left, and a curiosity drawn for it. Several that begin at one row differ in their curiosity; equal rows in equal
    order give equal sessions.

    Args:
        log: A log from `generate_log`; its items may have been renumbered since.
        rows: [S] int rows.
    """
    assert log.generator is not None, "only a generated log has a truth"
    settings, truth = log.generator, true_users(log)
    generator = np.random.default_rng([GENERATOR_VERSION, settings["seed"]])
    world = draw_world(generator, settings["users"], settings["items"])
    params, user, item = world.params, np.asarray(log.user_ids)[log.user[rows]], np.asarray(log.item_ids)
    # Which of the sessions that begin at the same row each is.
    order = np.argsort(rows, kind="stable")
    firsts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    number = np.empty(len(rows), np.int64)
    number[order] = np.arange(len(rows)) - np.repeat(firsts, np.diff(np.append(firsts, len(rows))))
    key = jax.random.fold_in(jax.random.key(settings["seed"]), PLAYED)
    return FunnelParams(
        item=params.item[item],
        click_appeal=params.click_appeal[item],
        order_appeal=params.order_appeal[item],
        taste=params.taste[user],
        curiosity=draw_curiosity(world.interests, key, jnp.asarray(rows), jnp.asarray(number)),
        trust=jnp.asarray(
            _trust_before(log, rows, world.params) if truth is _TRUST else np.zeros(len(user), np.float32)
        ),
        length=jnp.full((len(user),), np.iinfo(np.int32).max, jnp.int32),
        click_bias=jnp.float32(settings["click_bias"]),
        order_bias=jnp.float32(settings["order_bias"]),
    )


def _trust_before(log: EventLog, rows: np.ndarray, drawn: FunnelParams) -> np.ndarray:
    """Returns [S] float32 the trust of the users of rows [S] before these, from what they clicked until then.

    Args:
        log: The log.
        rows: [S] int rows.
        drawn: The truth as it was drawn, by original ids.
    """
    # All that each of these users was shown, in order of time, padded at the end.
    user, places = np.unique(log.user[rows], return_inverse=True)
    theirs = np.flatnonzero(np.isin(log.user, user))
    theirs = theirs[np.lexsort((log.shown_at[theirs], log.user[theirs]))]
    whose = np.searchsorted(user, log.user[theirs])
    place = np.arange(len(theirs)) - np.searchsorted(whose, whose)
    item = np.zeros((len(user), place.max() + 1), np.int32)
    feedback = np.zeros(item.shape, np.int32)
    item[whose, place], feedback[whose, place] = np.asarray(log.item_ids)[log.item[theirs]], log.feedback[theirs]
    taste = np.asarray(drawn.taste)[np.asarray(log.user_ids)[user]]
    # How it moved.
    trust = np.empty(item.shape, np.float32)
    for first in range(0, len(user), _USERS_PER_BATCH):
        batch = np.minimum(np.arange(first, first + _USERS_PER_BATCH), len(user) - 1)
        trust[batch] = _replayed_trust(drawn, jnp.asarray(taste[batch]), item[batch], feedback[batch])
    before = np.zeros(log.num_events, np.int64)
    before[theirs] = place
    return trust[places, before[rows]]


@jax.jit
def _replayed_trust(drawn: FunnelParams, taste: jax.Array, item: jax.Array, feedback: jax.Array) -> jax.Array:
    """Returns [B, T] the trust of users with tastes [B, 50] before each of their logged items [B, T]."""

    def of_user(taste: jax.Array, item: jax.Array, feedback: jax.Array) -> jax.Array:
        zero, length = jnp.zeros_like(taste), jnp.int32(np.iinfo(np.int32).max)
        first = FunnelUser(taste, zero, zero, zero, jnp.float32(0), jnp.int32(0), length)

        def step(user: FunnelUser, row: tuple[jax.Array, jax.Array]) -> tuple[FunnelUser, jax.Array]:
            return _TRUST.update(drawn, user, *row), user.trust

        return jax.lax.scan(step, first, (item, feedback))[1]

    return jax.vmap(of_user)(taste, item, feedback)


def best_log_loss(log: EventLog, rows: np.ndarray) -> float | None:
    """Returns the mean log-loss (nats) of the truth on rows of a generated log; None for a real log."""
    if log.probabilities is None:
        return None
    given = log.probabilities[rows, log.feedback[rows]]
    return float(-np.mean(np.log(np.maximum(given, 1e-12), dtype=np.float64)))

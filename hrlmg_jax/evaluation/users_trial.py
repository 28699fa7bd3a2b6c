"""Learned users on trial: fixed policies play with them once they are fitted, which needs no agent and no truth."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.baselines.fixed_lists import BEST_RATE, POPULARITY, fixed_rankings
from hrlmg_jax.evaluation.followers import RANDOM, FollowerParams, fixed_followers, follower_policy
from hrlmg_jax.evaluation.trust_signals import logged_answers, value_ratio
from hrlmg_jax.evaluation.unmoved_users import UnmovedUsers
from hrlmg_jax.user_model.user_model import UserModel
from sim.datasets.sessions import SessionData
from sim.envs.rollout import rollout
from sim.envs.session_env import SessionConfig, SessionParams, SessionTrajectory

TRIED = (RANDOM, POPULARITY, BEST_RATE, "last_click", "rate_and_clicks")
"""Lists pay what rates say; followers of clicks find out what the simulation tells itself."""
_STEPS = 300  # the thresholds are of sessions this long
_CLICK_REWARD, _ORDER_REWARD = 1.0, 5.0  # a fit is shared by runs with other rewards


def try_users(
    model: UserModel, params: Any, data: SessionData, history_length: int, sessions: int
) -> dict[str, dict[str, float | None]]:
    """Plays sessions that begin as those of held-out users did.

    Args:
        model: Which users.
        params: What they have learned.
        data: The log.
        history_length: N.
        sessions: Of each policy.

    Returns:
        By policy: see `trust_signals`; rewards are 1 for a click and 5 for an order.
    """
    # The same sessions for all, with users whom answers change and with others.
    steps = max(min(_STEPS, data.num_items // 2), 1)
    settings = SessionConfig(steps, history_length, _CLICK_REWARD, _ORDER_REWARD)
    env = UnmovedUsers(model, steps, history_length, _CLICK_REWARD, _ORDER_REWARD)
    rows = data.spread_first_rows("held_out", sessions)
    world = SessionParams(data.table, jnp.asarray(rows, jnp.int32), None, model.in_sessions(params, data, rows))
    starts, key = jnp.arange(sessions, dtype=jnp.int32), jax.random.key(0)
    # What each policy earns.
    followers = fixed_followers(data, fixed_rankings(settings, data), params.embedding)
    logged, found = logged_answers(settings, data), {}
    for name in TRIED:
        played, base = (_play(env, is_unmoved, world, followers[name], starts, key) for is_unmoved in (False, True))
        reward = np.asarray(played.reward).T
        ratio = value_ratio(reward, np.asarray(base.reward).T)
        found[name] = {"live_over_unmoved": ratio, **logged.about(np.asarray(played.feedback).T, reward)}
    return found


@partial(jax.jit, static_argnums=0)
def _play(
    env: UnmovedUsers,
    is_unmoved: jax.Array,
    world: SessionParams,
    follower: FollowerParams,
    starts: jax.Array,
    key: jax.Array,
) -> SessionTrajectory:
    """Plays with one kind of users; one program for both kinds and all policies, as compiling takes longest."""
    played: SessionTrajectory = rollout(
        dataclasses.replace(env, is_unmoved=is_unmoved), world, follower_policy(), follower, starts, key, True
    )
    return played

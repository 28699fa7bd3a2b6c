"""The offline test (Algorithm 4): logged test sessions, re-ranked item by item."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.reports.results import Metrics
from hrlmg_jax.problem import Problem, make_env
from sim.envs.policy import Policy
from sim.envs.session_env import LoggedFeedback, SessionConfig, SessionParams
from sim.evaluation.protocol import compiled_rollout, play_all
from sim.evaluation.ranking_metrics import average_precision, ndcg
from sim.tables.events import CLICK

CUTOFFS = (20, 40)
_PADDING = -1


@dataclass(frozen=True)
class LoggedSessions:
    """Sessions of the log, padded to the longest.

    Attributes:
        row: [S] their first rows in the log.
        length: [S] their numbers of items of the catalogue.
        items: [S, L] int32 items in the order shown, padded with -1.
        feedback: [S, L] int8 answers, padded with 0.
    """

    row: np.ndarray
    length: np.ndarray
    items: np.ndarray
    feedback: np.ndarray

    def subset(self, chosen: np.ndarray, longest: int) -> LoggedSessions:
        """Returns some of the sessions, padded to `longest`."""
        return LoggedSessions(
            self.row[chosen],
            self.length[chosen],
            _fitted(self.items[chosen], longest, _PADDING),
            _fitted(self.feedback[chosen], longest, 0),
        )


def _fitted(array: np.ndarray, width: int, value: int) -> np.ndarray:
    missing = max(0, width - array.shape[1])
    return np.pad(array, ((0, 0), (0, missing)), constant_values=value)[:, :width]


def logged_sessions(problem: Problem, number: int) -> LoggedSessions:
    """Returns test sessions with a click or an order, at most `number`, spread evenly over the log.

    In a session without either no order is better than another. Items that are not in the catalogue are left out:
    nobody could recommend them, and where skips are sampled from what was known, being new tells that an item was
    clicked.

    Raises:
        UserError: There are none.
    """
    # Rows of the catalogue's items, by session.
    data, log = problem.data, problem.data.log
    rows = np.flatnonzero(log.in_test_part() & (log.item < data.num_items))
    begin = np.flatnonzero(np.diff(log.session[rows], prepend=-1))
    length = np.diff(np.append(begin, len(rows)))
    answered = np.flatnonzero(np.bincount(np.repeat(np.arange(len(begin)), length), log.feedback[rows] >= CLICK))
    if not len(answered):
        raise UserError(
            f"no test session of {log.name} holds a click or an order of an item that training users were shown",
            where=log.source,
            do="Move the split (data.test_quantile), or provide a longer log.",
        )
    # As many of them as wanted, padded to the longest.
    chosen = answered[np.linspace(0, len(answered) - 1, min(number, len(answered))).round().astype(int)]
    begin, length = begin[chosen], length[chosen]
    position = np.arange(length.max())
    shown = position < length[:, None]
    rows = rows[np.where(shown, begin[:, None] + position, 0)]
    return LoggedSessions(
        log.session_starts()[log.session[rows[:, 0]]],
        length,
        np.where(shown, log.item[rows], _PADDING).astype(np.int32),
        np.where(shown, log.feedback[rows], 0).astype(np.int8),
    )


@dataclass(frozen=True)
class OfflineTest:
    """Sessions as one policy ranks them.

    Attributes:
        items: [S, L] int32 items, best first, padded with -1.
        feedback: [S, L] int8 their logged answers, padded with 0.
    """

    items: np.ndarray
    feedback: np.ndarray

    def metrics(self, gains: np.ndarray) -> Metrics:
        """Returns map (click or order is relevant), ndcg20 and ndcg40, [S] each.

        Args:
            gains: [3] gain of skip, click and order: their external rewards.
        """
        precision = {"map": average_precision(self.feedback >= CLICK)}
        return precision | {f"ndcg{cutoff}": ndcg(gains[self.feedback], cutoff) for cutoff in CUTOFFS}


def rank_by_score(sessions: LoggedSessions, score: np.ndarray) -> OfflineTest:
    """Ranks every session by fixed scores.

    Args:
        score: [S, L] score of each item, higher first; ties keep the logged order.
    """
    order = np.argsort(np.where(sessions.items >= 0, -score, np.inf), axis=1, kind="stable")
    return OfflineTest(*(np.take_along_axis(array, order, 1) for array in (sessions.items, sessions.feedback)))


def rank_by_list(ranking: np.ndarray, sessions: LoggedSessions) -> OfflineTest:
    """Ranks every session as a fixed list does.

    Args:
        ranking: [I] items of the catalogue, best first.
    """
    return rank_by_score(sessions, -np.argsort(ranking)[sessions.items].astype(float))


def rank_randomly(sessions: LoggedSessions) -> OfflineTest:
    """Ranks every session at random, always the same."""
    return rank_by_score(sessions, np.random.default_rng(0).random(sessions.items.shape))


def rerank(problem: Problem, policy: Policy, params: Any, sessions: LoggedSessions, at_a_time: int) -> OfflineTest:
    """Lets the policy rank every session (Algorithm 4).

    Again and again it takes its favourite among the session's items that are left; each is answered as in the log,
    which the histories then tell the policy.

    Args:
        policy: Decides.
        at_a_time: Sessions at a time, which bounds memory.
    """
    items = np.full(sessions.items.shape, _PADDING, np.int32)
    feedback = np.zeros(sessions.items.shape, np.int8)
    # Sessions of similar length together; a power of two, so that there are few programs to compile.
    width = 2 ** np.ceil(np.log2(np.maximum(sessions.length, 8))).astype(int)
    for longest in np.unique(width):
        # Play the sessions of this length with the log as users.
        chosen = np.flatnonzero(width == longest)
        part = sessions.subset(chosen, longest)
        env = make_env(problem.env, LoggedFeedback(), int(longest))
        candidates, answers = jnp.asarray(part.items), jnp.asarray(part.feedback)
        rows = jnp.asarray(part.row, jnp.int32)
        env_params = SessionParams(problem.data.table, rows, candidates, (candidates, answers))
        play = partial(compiled_rollout, env, policy, False)
        played = play_all(play, env_params, params, np.arange(len(chosen)), jax.random.key(0), at_a_time)
        # Keep what was ranked: after a session's length nothing was left to choose.
        ranked = np.arange(longest) < part.length[:, None]
        shown = slice(0, min(longest, sessions.items.shape[1]))
        items[chosen, shown] = np.where(ranked, played.item, _PADDING)[:, shown]
        feedback[chosen, shown] = np.where(ranked, played.feedback, 0)[:, shown]
    return OfflineTest(items, feedback)


def original_ids(ids: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Returns original ids of items (any shape); padding stays -1, and is the empty string among ids of text."""
    padding = ids.dtype.type() if ids.dtype.kind == "U" else ids.dtype.type(_PADDING)
    return np.where(items == _PADDING, padding, ids[items])


def gains(env: SessionConfig) -> np.ndarray:
    """Returns [3] the gain of skip, click and order: their external rewards."""
    return np.asarray([0.0, env.click_reward, env.order_reward])

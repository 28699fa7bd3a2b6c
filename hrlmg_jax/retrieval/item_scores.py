"""The best items by a score of every item in a session's state: what DNN and the oracles decide by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sim.envs.nearest_items import best_available, best_candidate, map_rows
from sim.envs.policy import Ranking, rank_best
from sim.envs.session_env import SessionObservation


class ItemScores(NamedTuple):
    """What scores of all items in B sessions are computed from.

    Attributes:
        score: `(state, items [n, ...]) -> [n]` of one session.
        states: What it is told of each of B sessions, a pytree [B, ...].
        items: [J, ...] what it is told of each item.
        numbers_per_item: Size of the largest intermediate array of a score, per item; sessions are taken some at a
            time, so that all of these do not exist at once.
    """

    score: Callable[[Any, jax.Array], jax.Array]
    states: Any
    items: jax.Array
    numbers_per_item: int = 1


def best_scored_item(scores: ItemScores, num_items: int, observation: SessionObservation) -> jax.Array:
    """Returns [B] int32 the item of the highest score among those not recommended yet; ties go to the first.

    Where the observation lists candidates (a logged session), one of them; else one of the whole catalogue.

    Args:
        num_items: I, the first of them can be recommended.
    """
    if observation.candidates is not None:
        of_candidates = scores.items[jnp.maximum(observation.candidates, 0)]
        values = jax.vmap(scores.score)(scores.states, of_candidates)
        return jax.vmap(best_candidate)(values, observation.candidates, observation.recommended)
    catalogue = scores.items[:num_items]

    def best(session: tuple[Any, jax.Array]) -> jax.Array:
        state, recommended = session
        return best_available(scores.score(state, catalogue), recommended)

    return map_rows(best, (scores.states, observation.recommended), num_items * scores.numbers_per_item)


def rank_scored_items(scores: ItemScores, observation: SessionObservation, k: int, available: jax.Array) -> Ranking:
    """Returns the k items of the highest scores; see `best_scored_item`, which takes the first of them.

    Args:
        k: How many.
        available: [I] or [B, I] bool, items that may be recommended, I <= J.
    """
    available = among_candidates(available, observation)
    num_items = available.shape[-1]
    catalogue = scores.items[:num_items]

    def rank(session: tuple[Any, jax.Array, jax.Array]) -> Ranking:
        state, recommended, available = session
        return rank_best(scores.score(state, catalogue), recommended, k, available)

    sessions = (scores.states, observation.recommended, available)
    ranking: Ranking = map_rows(rank, sessions, num_items * scores.numbers_per_item)
    return ranking


def among_candidates(available: jax.Array, observation: SessionObservation) -> jax.Array:
    """Returns [B, I] bool: those items of a mask ([I] or [B, I]) that are candidates, if the observation lists any."""
    number, num_items = observation.step.shape[0], available.shape[-1]
    available = jnp.broadcast_to(available, (number, num_items))
    if observation.candidates is None:
        return available
    return available & listed(observation.candidates, num_items)


def listed(candidates: jax.Array, num_items: int) -> jax.Array:
    """Returns [B, I] bool, which items are among candidates [B, L] (int32, padded with -1)."""
    number = candidates.shape[0]
    known = jnp.where(candidates < 0, num_items, candidates)  # past the end is dropped
    return jnp.zeros((number, num_items), bool).at[jnp.arange(number)[:, None], known].set(True, mode="drop")

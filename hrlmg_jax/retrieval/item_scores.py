"""The best item by a score of every item in a session's state: what DNN and the ceilings decide by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sim.envs.nearest_items import best_available, best_candidate, map_rows
from sim.envs.session_env import SessionObservation


def best_scored_item(
    score: Callable[[Any, jax.Array], jax.Array],
    states: Any,
    items: jax.Array,
    num_items: int,
    observation: SessionObservation,
    numbers_per_item: int = 1,
) -> jax.Array:
    """Returns [B] int32 the item of the highest score among those not recommended yet; ties go to the first.

    Where the observation lists candidates (a logged session), one of them; else one of the whole catalogue.

    Args:
        score: `(state, items [n, ...]) -> [n]` of one session.
        states: What it is told of each of B sessions, a pytree [B, ...].
        items: [J, ...] what it is told of each item.
        num_items: I, the first of them can be recommended.
        observation: Of B sessions.
        numbers_per_item: Size of the largest intermediate array of a score, per item; sessions are taken some at a
            time, so that all of these do not exist at once.
    """
    if observation.candidates is not None:
        of_candidates = items[jnp.maximum(observation.candidates, 0)]
        scores = jax.vmap(score)(states, of_candidates)
        return jax.vmap(best_candidate)(scores, observation.candidates, observation.recommended)
    catalogue = items[:num_items]

    def best(session: tuple[Any, jax.Array]) -> jax.Array:
        state, recommended = session
        return best_available(score(state, catalogue), recommended)

    return map_rows(best, (states, observation.recommended), num_items * numbers_per_item)

"""Policies without learned parameters: random, fixed lists, scripts. The baselines of every evaluation."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from sim.envs.available_items import draw_item, num_available, uniform_chance
from sim.envs.policy import Decision, Policy, Ranking, rank_best
from sim.tables.ratings import RatingData


def _no_carry(params: Any, batch_size: int) -> tuple[()]:
    return ()


def random_policy(num_items: int) -> Policy:
    """Recommends an item drawn uniformly from those still available, whatever `explore` is."""

    def act(
        params: Any, carry: tuple[()], observation: Any, key: jax.Array, explore: bool
    ) -> tuple[tuple[()], Decision]:
        drawn = draw_item(key, observation.step, observation.recommended, num_items)
        available = num_available(observation.step, observation.recommended, num_items)
        return carry, Decision(drawn, -jnp.log(available.astype(jnp.float32)))

    def probability(params: Any, carry: tuple[()], observation: Any, item: jax.Array) -> jax.Array:
        return uniform_chance(item, observation.recommended, num_items)

    return Policy(_no_carry, act, probability=probability)


@functools.cache
def fixed_list_policy(reach: int | None = None) -> Policy:
    """Recommends the items of a list in order, without repeats; its parameters are [n] int32 items.

    Equal arguments give the same policy object, so that compiled functions are reused.

    Args:
        reach: How many items of the list episodes can reach; only `rank` reads the rest. None: all.
    """

    def none_seen(ranking: jax.Array, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, ranking[:reach].shape[0]), bool)

    def act(
        ranking: jax.Array, seen: jax.Array, observation: Any, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        seen |= observation.last_item[:, None] == ranking[:reach]
        return seen, Decision(ranking[jnp.argmin(seen, axis=-1)], jnp.zeros(seen.shape[:1]))

    def rank(ranking: jax.Array, seen: jax.Array, observation: Any, k: int, available: jax.Array) -> Ranking:
        """The score is minus the place in the list; items that are not in it have none."""
        seen |= observation.last_item[:, None] == ranking[:reach]
        score = (
            jnp.full(available.shape[-1], -jnp.inf).at[ranking].set(-jnp.arange(ranking.shape[0], dtype=jnp.float32))
        )
        past = jnp.concatenate([jnp.where(seen, ranking[:reach], -1), observation.recommended], axis=-1)
        available = jnp.broadcast_to(available, (seen.shape[0], score.shape[0]))
        return jax.vmap(rank_best, (None, 0, None, 0))(score, past, k, available)

    return Policy(none_seen, act, rank, score="minus the place in the list, from 0")


def scripted_policy() -> Policy:
    """Recommends given items unconditionally; its parameters are [B, T] int32 items, one row per episode."""

    def act(
        script: jax.Array, carry: tuple[()], observation: Any, key: jax.Array, explore: bool
    ) -> tuple[tuple[()], Decision]:
        item = jnp.take_along_axis(script, observation.step[:, None], axis=1)[:, 0]
        return carry, Decision(item, jnp.zeros(item.shape))

    return Policy(_no_carry, act)


def rank_items(data: RatingData, users: np.ndarray, by: str, reward_of_code: np.ndarray) -> np.ndarray:
    """Ranks all items by the ratings of the given (training) users.

    Args:
        data: Ratings of all users.
        users: [n] users whose ratings count.
        by: "average" (mean rating, the paper's Popularity), "count" (number of ratings) or "reward" (mean empirical
            reward over all given users, not rated = 0: the best fixed list).
        reward_of_code: [V + 1] empirical reward of each rating code.

    Returns:
        [I] int32 items, best first; ties go to the more rated item, then to the lower index.

    Raises:
        UserError: Unknown `by`.
    """
    ratings = data.matrix(np.arange(len(data.rating_values)), users)
    codes = ratings.data.astype(np.int64)

    def total(value_of_code: np.ndarray) -> np.ndarray:
        # Rounding keeps ties that the order of summation would break.
        return np.round(np.bincount(ratings.indices, value_of_code[codes], minlength=data.num_items), 9)

    count = total(np.ones(len(data.rating_values)))
    if by == "count":
        score = count
    elif by == "average":
        score = np.divide(total(data.rating_values), count, out=np.full(len(count), -np.inf), where=count > 0)
    elif by == "reward":
        score = total(reward_of_code)
    else:
        raise UserError(f"popularity is {by!r}", do="Use average, count or reward.")
    return np.lexsort((-count, -score)).astype(np.int32)

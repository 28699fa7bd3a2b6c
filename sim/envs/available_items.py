"""Items not yet recommended in an episode, derived from the at most T recommended ones: no [B, I] mask is stored.

Observations of an environment that allows repeats carry no recommended items (T = 0).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def hide_recommended(scores: jax.Array, recommended: jax.Array) -> jax.Array:
    """Returns the scores [I] of all items, -inf for those recommended so far ([T] int32, -1 = none)."""
    chex.assert_rank([scores, recommended], 1)
    # An index of -1 would mean the last item; one past the end is dropped.
    taken = jnp.where(recommended < 0, scores.shape[0], recommended)
    return scores.at[taken].set(-jnp.inf, mode="drop")


def recommended_before(items: jax.Array, steps: jax.Array | None = None) -> jax.Array:
    """Returns the items recommended before each step of B episodes, as in their observations.

    Args:
        items: [T, B] int32 items of the episodes (or other non-negative numbers in their place).
        steps: [n] int32 steps; None: all T.

    Returns:
        [n, B, T] int32, padded with -1.
    """
    all_steps = jnp.arange(items.shape[0])
    earlier = (all_steps if steps is None else steps)[:, None] > all_steps
    return jnp.where(earlier[:, None], items.T, -1)


def num_available(step: jax.Array, recommended: jax.Array, num_items: int) -> jax.Array:
    """Returns [B] the number of items still available at steps [B], given the items [B, T] recommended before."""
    return num_items - step if recommended.shape[-1] else jnp.full_like(step, num_items)


def draw_item(key: jax.Array, step: jax.Array, recommended: jax.Array, num_items: int) -> jax.Array:
    """Draws an item for each of B episodes, uniformly from those that can still be recommended.

    Args:
        key: Random key.
        step: [B] int32 items recommended so far, fewer than `num_items`.
        recommended: [B, T] int32 the recommended items (distinct), padded with -1; T = 0: draw from all.
        num_items: I.

    Returns:
        [B] int32 items.
    """
    chex.assert_rank([step, recommended], [1, 2])
    chex.assert_equal_shape_prefix([step, recommended], 1)
    drawn = jax.random.randint(key, step.shape, 0, num_available(step, recommended, num_items))
    # The k-th available item: step over every recommended item that has at most k available ones below it.
    ascending = jnp.sort(jnp.where(recommended >= 0, recommended, 2 * num_items), axis=-1)
    below = ascending - jnp.arange(recommended.shape[-1])
    return drawn + jnp.sum(below <= drawn[:, None], -1, dtype=drawn.dtype)


def uniform_chance(item: jax.Array, recommended: jax.Array, num_items: int) -> jax.Array:
    """Returns [B] float32 the probability of items [B] in a uniform draw from those that can still be recommended.

    Args:
        item: [B] int32; those that are not of the catalogue (num_items or more), as logs have, are never drawn.
        recommended: [B, T] int32 items recommended so far, padded with -1; also they may not be of the catalogue.
        num_items: I.
    """
    left = num_items - jnp.sum((recommended >= 0) & (recommended < num_items), -1)
    drawable = (item < num_items) & ~jnp.any(recommended == item[:, None], -1)
    return jnp.where(drawable, 1 / jnp.maximum(left, 1), 0.0)

"""Items not yet recommended in an episode, derived from the at most T recommended ones: no [B, I] mask is stored."""

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


def draw_item(
    key: jax.Array, step: jax.Array, recommended: jax.Array, num_items: int, allow_repeats: bool = False
) -> jax.Array:
    """Draws an item for each of B episodes, uniformly from those not yet recommended (or from all).

    Args:
        key: Random key.
        step: [B] int32 items recommended so far, fewer than `num_items`.
        recommended: [B, T] int32 the recommended items (distinct), padded with -1.
        num_items: I.
        allow_repeats: Whether to draw from all.

    Returns:
        [B] int32 items.
    """
    chex.assert_rank([step, recommended], [1, 2])
    chex.assert_equal_shape_prefix([step, recommended], 1)
    if allow_repeats:
        return jax.random.randint(key, step.shape, 0, num_items)
    drawn = jax.random.randint(key, step.shape, 0, num_items - step)
    # The k-th available item: step over every recommended item that is not larger, in ascending order.
    ascending = jnp.sort(jnp.where(recommended >= 0, recommended, num_items), axis=-1)
    return jax.lax.scan(lambda drawn, past: (jnp.where(past <= drawn, drawn + 1, drawn), None), drawn, ascending.T)[0]

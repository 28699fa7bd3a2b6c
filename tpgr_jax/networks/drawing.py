"""Drawing large initial parameters part by part: the random bits of a whole array take several times its memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_LARGE = 2**22
"""Numbers beyond which an array is drawn in parts; smaller ones are drawn as ever."""
_AT_A_TIME = 2**18


def in_rows(initializer: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an initializer that draws large arrays of [N, ...] some rows at a time.

    Args:
        initializer: `(key, shape, dtype) -> array`, which treats all rows alike.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        if math.prod(shape) <= _LARGE:
            drawn: jax.Array = initializer(key, shape, dtype)
            return drawn
        rows = min(shape[0], max(1, _AT_A_TIME // math.prod(shape[1:])))

        def draw_part(part: jax.Array, array: jax.Array) -> jax.Array:
            values = initializer(jax.random.fold_in(key, part), (rows, *shape[1:]), dtype)
            return jax.lax.dynamic_update_slice_in_dim(array, values, part * rows, 0)  # the last part ends at the end

        return jax.lax.fori_loop(0, -(-shape[0] // rows), draw_part, jnp.zeros(shape, dtype))

    return draw

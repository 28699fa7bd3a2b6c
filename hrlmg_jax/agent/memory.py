"""A memory of the user (not in the paper): directions of the items before the session and lately."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sim.envs.histories import Histories, HistoryTable
from sim.envs.nearest_items import unit

REMEMBERED = ("browsed_before", "clicked_before", "ordered_before", "clicked_lately", "ordered_lately")
"""The K directions: of items before the session, and of those in the current histories."""


@dataclass(frozen=True)
class Memory:
    """Reads from the log what a user did before the session.

    Attributes:
        length: L, items of each kind before the session.
    """

    length: int

    def directions(
        self,
        table: HistoryTable,
        row: jax.Array | None,
        clicked: jax.Array,
        ordered: jax.Array,
        embedding: jax.Array,
    ) -> jax.Array:
        """Returns [B, K, E], a direction for each of `REMEMBERED`.

        Args:
            row: [B] int32 rows of it before which the sessions began.
            clicked: [B, N] int32 items clicked last.
            ordered: [B, N] int32 items ordered last.
            embedding: [J, E].
        """
        assert row is not None, "a memory is read from the log"
        before = jax.vmap(table.before, (0, None))(row, self.length)
        return mean_directions(before, clicked, ordered, embedding)


def mean_directions(before: Histories, clicked: jax.Array, ordered: jax.Array, embedding: jax.Array) -> jax.Array:
    """Returns [..., K, E] the directions of the mean embeddings of each kind of items.

    That of n items has length n / (n + 1): few items say little, and none nothing.

    Args:
        before: [..., L] items before the session, padded with -1.
        clicked: [..., N] items clicked last, padded likewise.
        ordered: [..., N] items ordered last.
        embedding: [J, E].
    """

    def direction(items: jax.Array) -> jax.Array:
        known = (items >= 0).astype(embedding.dtype)
        number = known.sum(-1, keepdims=True)
        total = jnp.einsum("...l,...le->...e", known, embedding[jnp.maximum(items, 0)])
        return unit(total) * number / (number + 1)

    kinds = (before.browsed, before.clicked, before.ordered, clicked, ordered)
    return jnp.stack([direction(items) for items in kinds], -2)

"""Ratings on the device: one lookup with two layouts, dense and CSR, that give identical results."""

from __future__ import annotations

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from sim.tables.ratings import RatingData

MAX_CSR_RATINGS = 2**31 - 1


@flax.struct.dataclass
class RatingLookup:
    """Rating codes of U users for I items; `lookup` is pure and may be vmapped over users and items.

    Attributes:
        dense: [U, I] codes, 0 = not rated; None in the CSR layout.
        indptr: [U + 1] int32; None in the dense layout.
        items: [R] item index, ascending within a user; None in the dense layout.
        codes: [R] rating codes; None in the dense layout.
        search_steps: Steps of binary search that the longest row needs (static).
    """

    dense: jax.Array | None
    indptr: jax.Array | None
    items: jax.Array | None
    codes: jax.Array | None
    search_steps: int = flax.struct.field(pytree_node=False)

    def lookup(self, user: jax.Array, item: jax.Array) -> jax.Array:
        """Returns the rating code (int32 scalar) of `user` for `item`, 0 where not rated.

        Args:
            user: int32 scalar in [0, U).
            item: int32 scalar in [0, I).
        """
        chex.assert_rank([user, item], 0)
        if self.dense is not None:
            return self.dense[user, item].astype(jnp.int32)
        assert self.indptr is not None
        assert self.items is not None
        assert self.codes is not None
        start, end = self.indptr[user], self.indptr[user + 1]
        low, high = start, end
        # Binary search. Invariant: items before `low` are smaller than `item`, items from `high` on are not.
        for _ in range(self.search_steps):
            middle = low + (high - low) // 2
            smaller = (low < high) & (self.items[middle].astype(jnp.int32) < item)
            low, high = jnp.where(smaller, middle + 1, low), jnp.where(smaller, high, middle)
        position = jnp.minimum(low, end - 1)
        is_rated = (low < end) & (self.items[position].astype(jnp.int32) == item)
        return jnp.where(is_rated, self.codes[position].astype(jnp.int32), 0)

    @property
    def nbytes(self) -> int:
        """Device memory of the tables in bytes."""
        return sum(table.nbytes for table in jax.tree.leaves(self))


def make_rating_lookup(data: RatingData, layout: str, dense_limit_mb: float) -> RatingLookup:
    """Copies the ratings to the device.

    Args:
        data: Ratings of all users.
        layout: "dense", "csr", or "auto": dense where the table takes at most `dense_limit_mb`.
        dense_limit_mb: Largest dense table in MB (10^6 bytes).

    Raises:
        UserError: The layout is unknown, or there are more ratings than 32-bit offsets can address.
    """
    num_users, num_items = data.shape
    dense_mb = num_users * num_items * data.codes.dtype.itemsize / 1e6
    if layout not in ("auto", "dense", "csr"):
        raise UserError(f"env.rating_layout is {layout!r}", do="Use auto, dense or csr.")
    if layout == "dense" or (layout == "auto" and dense_mb <= dense_limit_mb):
        table = np.zeros((num_users, num_items), data.codes.dtype)
        rows = np.repeat(np.arange(num_users), np.diff(data.indptr))
        table[rows, data.items] = data.codes
        return RatingLookup(jnp.asarray(table), None, None, None, 0)
    if data.num_ratings > MAX_CSR_RATINGS:
        raise UserError(f"{data.num_ratings:,} ratings exceed the 2^31 - 1 that the lookup can address")
    longest = int(np.max(np.diff(data.indptr)))
    return RatingLookup(
        None,
        jnp.asarray(data.indptr, jnp.int32),
        jnp.asarray(data.items),
        jnp.asarray(data.codes),
        longest.bit_length(),
    )

"""A replay memory on the device: the last transitions, sampled uniformly.

flashbax is not used because its buffers add a fixed number of rows at a time; here only some rows of a batch are added
(those where a window of a session has ended).
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Replay:
    """The last C rows of a stream.

    Attributes:
        rows: Arrays [C, ...], a pytree.
        position: int32 index of the next row to write.
        size: int32 number of rows stored.
    """

    rows: Any
    position: jax.Array
    size: jax.Array

    @property
    def capacity(self) -> int:
        """C."""
        return int(jax.tree.leaves(self.rows)[0].shape[0])

    @property
    def bytes_per_row(self) -> int:
        """Device memory of one row."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.rows)) // self.capacity


def make_replay(example: Any, capacity: int) -> Replay:
    """Returns an empty memory for rows like `example` (a pytree of arrays or shapes without a batch axis)."""
    rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), example)
    return Replay(rows, jnp.int32(0), jnp.int32(0))


def add_rows(replay: Replay, rows: Any, valid: jax.Array) -> Replay:
    """Adds the valid ones of B rows, in order; they overwrite the oldest.

    Args:
        replay: The memory; its capacity C is at least B.
        rows: Arrays [B, ...], a pytree.
        valid: [B] bool, which rows to add.
    """
    capacity = replay.capacity
    assert valid.shape[0] <= capacity, "more rows at a time than the memory holds"
    count = jnp.cumsum(valid, dtype=jnp.int32)
    slot = jnp.where(valid, (replay.position + count - 1) % capacity, capacity)
    stored = jax.tree.map(
        lambda memory, new: memory.at[slot].set(new.astype(memory.dtype), mode="drop"), replay.rows, rows
    )
    added = count[-1]
    return Replay(stored, (replay.position + added) % capacity, jnp.minimum(replay.size + added, capacity))


def sample_rows(replay: Replay, key: jax.Array, batch_size: int) -> Any:
    """Draws rows uniformly with replacement, [batch_size, ...]; zeros from an empty memory."""
    chosen = jax.random.randint(key, (batch_size,), 0, jnp.maximum(replay.size, 1))
    return jax.tree.map(lambda memory: memory[chosen], replay.rows)

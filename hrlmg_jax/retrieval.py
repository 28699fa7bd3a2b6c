"""From a proto-action to an item (Eq. 13, Algorithm 1): the most similar item that can still be recommended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.nearest import best_available
from sim.session_env import SessionObservation
from sim.settings import Count, OneOf

_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class RetrievalConfig:
    """How items are found (`conf/agent/hrl_mg.yaml`)."""

    backend: Annotated[str, OneOf("exact", "recall")]
    neighbours: Count


@flax.struct.dataclass
class ItemIndex:
    """What retrieval looks items up in.

    Attributes:
        embedding: [J, E] unit-norm embeddings of all J items that occur in the log.
        num_items: I, static: the first I of them can be recommended.
        neighbours: [J, R] int32 the most similar catalogue items of each item (`recall`), else None.
        popular: [P] int32 items that are candidates for everyone (`recall`), else None.
    """

    embedding: jax.Array
    num_items: int = flax.struct.field(pytree_node=False)
    neighbours: jax.Array | None = None
    popular: jax.Array | None = None


def nearest_item(query: jax.Array, observation: SessionObservation, index: ItemIndex) -> jax.Array:
    """Returns [B] int32 the item of highest cosine with each query among those not recommended yet.

    Where the observation lists candidates (a logged session), one of them; else one of the user's recalled items if the
    index has neighbours; else one of the whole catalogue.

    Args:
        query: [B, E] proto-actions; their length plays no part.
        observation: Of B sessions.
        index: The items.
    """
    candidates = observation.candidates
    if candidates is None and index.neighbours is not None:
        candidates = _recalled(observation, index)
    if candidates is None:
        scores = query @ index.embedding[: index.num_items].T
        return jax.vmap(best_available)(scores, observation.recommended)
    scores = jnp.einsum("be,bke->bk", query, index.embedding[jnp.maximum(candidates, 0)])
    taken = jnp.any(candidates[:, :, None] == observation.recommended[:, None, :], -1)
    best = jnp.argmax(jnp.where(taken | (candidates < 0), -jnp.inf, scores), -1)
    return jnp.take_along_axis(candidates, best[:, None], 1)[:, 0]


def nearest_embedding(query: jax.Array, index: ItemIndex) -> jax.Array:
    """Returns [B, E] the embedding of highest cosine with each query among all items that can be recommended."""
    catalogue = index.embedding[: index.num_items]
    return catalogue[jnp.argmax(query @ catalogue.T, -1)]


def _recalled(observation: SessionObservation, index: ItemIndex) -> jax.Array:
    """Returns [B, K] int32 items similar to the histories, and as many popular ones as keep the session going."""
    assert index.neighbours is not None
    assert index.popular is not None
    histories = observation.histories
    known = jnp.concatenate([histories.browsed, histories.clicked, histories.ordered], -1)
    similar = jnp.where(known[..., None] >= 0, index.neighbours[jnp.maximum(known, 0)], -1)
    everyone = jnp.broadcast_to(index.popular, (known.shape[0], len(index.popular)))
    return jnp.concatenate([similar.reshape(known.shape[0], -1), everyone], -1)


def make_item_index(
    config: RetrievalConfig, embedding: np.ndarray, num_items: int, popular: np.ndarray, longest_session: int
) -> ItemIndex:
    """Puts the items on the device, with the candidates of `recall` where it is asked for.

    Args:
        config: Which backend.
        embedding: [J, E] unit-norm embeddings.
        num_items: I <= J, how many of them can be recommended.
        popular: [I] int32 ranking of those.
        longest_session: T; so many and one popular items are candidates for everyone.
    """
    on_device = jnp.asarray(embedding, jnp.float32)
    if config.backend == "exact":
        return ItemIndex(on_device, num_items)
    neighbours = most_similar(embedding, num_items, min(config.neighbours, num_items))
    return ItemIndex(on_device, num_items, jnp.asarray(neighbours), jnp.asarray(popular[: longest_session + 1]))


def most_similar(embedding: np.ndarray, num_items: int, number: int) -> np.ndarray:
    """Returns [J, R] int32 the R catalogue items most similar to each item, itself included, in no special order."""
    catalogue = embedding[:num_items].T
    found = np.empty((len(embedding), number), np.int32)
    for first in range(0, len(embedding), _ROWS_AT_A_TIME):
        scores = embedding[first : first + _ROWS_AT_A_TIME] @ catalogue
        found[first : first + _ROWS_AT_A_TIME] = np.argpartition(-scores, number - 1, axis=1)[:, :number]
    return found

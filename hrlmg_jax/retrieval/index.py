"""From a proto-action to an item (Eq. 13, Algorithm 1): the most similar item that can still be recommended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from harness.settings import Count, Integer, ProperShare, SettingError
from hrlmg_jax.retrieval.hashing import (
    WORD,
    HashTable,
    find_candidates,
    items_nearby,
    make_hash_tables,
    scanned_by_default,
)
from hrlmg_jax.retrieval.item_scores import ItemScores, listed, rank_scored_items
from sim.envs.available_items import hide_recommended
from sim.envs.fast_argmax import fast_argmax
from sim.envs.nearest_items import NUMBERS_AT_A_TIME, best_candidate, map_rows
from sim.envs.policy import Ranking
from sim.envs.session_env import SessionObservation

_ROWS_AT_A_TIME = 1024
_FEWEST_AT_A_TIME = 1024


@dataclass(frozen=True)
class RetrievalConfig:
    """How items are found (`conf/agent/hrl_mg.yaml` explains each)."""

    backend: Literal["exact", "recall", "hash", "approx"]
    neighbours: Count
    recall_target: ProperShare = 0.95
    codes: Literal["learned", "hyperplanes"] = "learned"
    tables: Count = 2
    bits: Annotated[Integer, Field(ge=WORD, le=1024)] = 128
    scanned: Annotated[Integer, Field(ge=1, le=2**20)] | None = None
    shortlist: Count = 512

    def __post_init__(self) -> None:
        """Checks that a code is whole words; raises UserError naming the key."""
        if self.bits % WORD:
            raise SettingError(f".bits is {self.bits}", do=f"Give a multiple of {WORD}, the bits of a word.")


@flax.struct.dataclass
class ItemIndex:
    """What retrieval looks items up in.

    Attributes:
        embedding: [J, E] unit-norm embeddings of all J items that occur in the log.
        num_items: I, static: the first I of them can be recommended.
        neighbours: [J, R] int32 the most similar catalogue items of each item (`recall`), else None.
        popular: [P] int32 items that are candidates for everyone (`recall`), else None.
        tables: Codes of the catalogue (`hash`), else none.
        shortlist: Static: how many candidates from the tables are compared by their embeddings.
        recall_target: Static: expected share of the best that `approx` finds; None where it is not asked for.
    """

    embedding: jax.Array
    num_items: int = flax.struct.field(pytree_node=False)
    neighbours: jax.Array | None = None
    popular: jax.Array | None = None
    tables: tuple[HashTable, ...] = ()
    shortlist: int = flax.struct.field(pytree_node=False, default=0)
    recall_target: float | None = flax.struct.field(pytree_node=False, default=None)


def nearest_item(query: jax.Array, observation: SessionObservation, index: ItemIndex) -> jax.Array:
    """Returns [B] int32 the item of highest cosine with each query among those not recommended yet.

    Where the observation lists candidates (a logged session), one of them; else one of the user's recalled items if the
    index has neighbours; else one of the whole catalogue.

    Args:
        query: [B, E] proto-actions; their length plays no part.
    """
    candidates = observation.candidates
    if candidates is None and index.neighbours is not None:
        candidates = _recalled(observation, index)
    if candidates is None:
        return nearest_items(query, index, 1, observation.recommended)[:, 0]
    scores = jnp.einsum("be,bke->bk", query, index.embedding[jnp.maximum(candidates, 0)])
    return jax.vmap(best_candidate)(scores, candidates, observation.recommended)


def rank_nearest(
    query: jax.Array, observation: SessionObservation, index: ItemIndex, k: int, available: jax.Array
) -> Ranking:
    """Returns the k items of highest cosine with each query, which are the scores; see `nearest_item`.

    All items are compared, whatever the backend, because any of them may be disallowed. The first is what
    `nearest_item` returns, unless codes (`hash`) or an accelerator (`approx`) made it miss a nearer one.

    Args:
        query: [B, E] proto-actions.
        k: How many.
        available: [I] or [B, I] bool, items that may be recommended.
    """
    if observation.candidates is None and index.neighbours is not None:
        recalled = listed(_recalled(observation, index), index.num_items)
        available = available & recalled
    products = ItemScores(lambda query, vectors: vectors @ query, query, index.embedding)
    items, scores = rank_scored_items(products, observation, k, available)
    length = jnp.linalg.norm(query, axis=-1, keepdims=True)
    return Ranking(items, scores / jnp.maximum(length, 1e-12))


def nearest_embedding(query: jax.Array, index: ItemIndex) -> jax.Array:
    """Returns [B, E] the embedding of highest cosine with each query among all items that can be recommended."""
    return index.embedding[nearest_items(query, index, 1)[:, 0]]


def nearest_items(query: jax.Array, index: ItemIndex, number: int, recommended: jax.Array | None = None) -> jax.Array:
    """Returns [B, K] int32 the items of highest cosine with each query in the whole catalogue, best first.

    Nearly all of them with codes (`hash`, whose scores are exact) and on accelerators with `approx`.

    Args:
        query: [B, E] of any length.
        number: K, at most as many as there are, those in `recommended` not counted.
        recommended: [B, T] int32 items to leave out, all different, -1 = none.
    """
    if recommended is None:
        recommended = jnp.zeros((len(query), 0), jnp.int32)
    search = _search_tables if index.tables else _search_catalogue
    return search(query, index, number, recommended)


def _search_catalogue(query: jax.Array, index: ItemIndex, number: int, recommended: jax.Array) -> jax.Array:
    """As `nearest_items`, by products with all items; where these are many, with some at a time."""
    at_a_time = max(_FEWEST_AT_A_TIME, NUMBERS_AT_A_TIME // len(query))
    catalogue = index.embedding[: index.num_items]
    largest = _largest
    if index.recall_target is not None:
        largest = partial(jax.lax.approx_max_k, recall_target=index.recall_target)

    def best_of(items: jax.Array, first: jax.Array | int, seen: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        scores = jax.vmap(hide_recommended)(query @ items.T, recommended - first)
        value, position = largest(jnp.where(jnp.arange(len(items)) < seen, -jnp.inf, scores), number)
        return value, position + first

    if index.num_items <= at_a_time:
        return best_of(catalogue, 0, 0)[1]

    def step(best: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        # The last part begins earlier, to be as long as the others.
        first = jnp.minimum(start, index.num_items - at_a_time)
        items = jax.lax.dynamic_slice_in_dim(catalogue, first, at_a_time)
        both = jax.tree.map(lambda *lists: jnp.concatenate(lists, -1), best, best_of(items, first, start - first))
        value, position = jax.lax.top_k(both[0], number)
        return (value, jnp.take_along_axis(both[1], position, -1)), None

    nothing = jnp.full((len(query), number), -jnp.inf), jnp.zeros((len(query), number), jnp.int32)
    return jax.lax.scan(step, nothing, jnp.arange(0, index.num_items, at_a_time))[0][1]


def _largest(scores: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Returns [B, K] the largest of scores [B, n] and int32 their positions."""
    if number > 1:
        return jax.lax.top_k(scores, number)
    position = fast_argmax(scores)[:, None]
    return jnp.take_along_axis(scores, position, -1), position


def _search_tables(query: jax.Array, index: ItemIndex, number: int, recommended: jax.Array) -> jax.Array:
    """As `nearest_items`, by codes: a shortlist from each table, compared by embeddings.

    Should one have too little that was not recommended, as a query in an empty corner may, its items are taken from all
    those around its bucket, which are enough.
    """
    hidden, tables = recommended.shape[-1], index.tables
    each = max(math.ceil((index.shortlist + hidden) / len(tables)), hidden + number)

    def from_tables(query: jax.Array, recommended: jax.Array) -> tuple[jax.Array, jax.Array]:
        shortlists = [find_candidates(query, table, each) for table in tables]
        items, counts = (jnp.concatenate(parts) for parts in zip(*shortlists, strict=True))
        return _best_of_shortlist(query, items, counts, recommended, index, number)

    def from_nearby(query: jax.Array, recommended: jax.Array) -> jax.Array:
        items = items_nearby(query, tables[0], hidden + number)
        return _best_of_shortlist(query, items, jnp.ones(items.shape, bool), recommended, index, number)[0]

    codes = max(table.scanned * table.words.shape[1] for table in tables)
    best, enough = map_rows(lambda row: from_tables(*row), (query, recommended), codes)

    def complete() -> jax.Array:
        nearby = map_rows(lambda row: from_nearby(*row), (query, recommended), (hidden + number) * query.shape[1])
        return jnp.where(enough[:, None], best, nearby)

    return jax.lax.cond(jnp.all(enough), lambda: best, complete)


def _best_of_shortlist(
    query: jax.Array, items: jax.Array, counts: jax.Array, recommended: jax.Array, index: ItemIndex, number: int
) -> tuple[jax.Array, jax.Array]:
    """Returns [K] int32 the items of highest cosine with a query, and whether there are K.

    Args:
        query: [E].
        items: [S] int32 to choose from; an item may come once from each table.
        counts: [S] which of them count.
        recommended: [T] int32 items to leave out.
        number: K.
    """
    taken = jnp.any(items[:, None] == recommended, -1)
    scores = jnp.where(counts & ~taken, index.embedding[items] @ query, -jnp.inf)
    if number == 1:
        best = fast_argmax(scores)[None]
        return items[best], scores[best[0]] > -jnp.inf
    scores, position = jax.lax.top_k(scores, min(number * len(index.tables), len(items)))
    items = items[position]
    repeated = jnp.any(jnp.tril(items[:, None] == items, -1), -1)
    scores, position = jax.lax.top_k(jnp.where(repeated, -jnp.inf, scores), number)
    return items[position], scores[-1] > -jnp.inf


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
    """Puts the items on the device, with what the backend looks them up in.

    Args:
        config: Which backend, and its settings.
        embedding: [J, E] unit-norm embeddings.
        num_items: I <= J, how many of them can be recommended.
        popular: [I] int32 ranking of those.
        longest_session: T; so many and one popular items are candidates for everyone.
    """
    on_device = jnp.asarray(embedding, jnp.float32)
    if config.backend == "exact":
        return ItemIndex(on_device, num_items)
    if config.backend == "approx":
        return ItemIndex(on_device, num_items, recall_target=config.recall_target)
    if config.backend == "hash":
        scanned = config.scanned or scanned_by_default(num_items)
        learned = config.codes == "learned"
        tables = make_hash_tables(embedding[:num_items], config.tables, config.bits, scanned, learned)
        return ItemIndex(on_device, num_items, tables=tables, shortlist=config.shortlist)
    neighbours = most_similar(embedding, num_items, min(config.neighbours, num_items))
    return ItemIndex(on_device, num_items, jnp.asarray(neighbours), jnp.asarray(popular[: longest_session + 1]))


def most_similar(embedding: np.ndarray, num_items: int, number: int) -> np.ndarray:
    """Returns [J, R] int32 the R catalogue items most similar to each item, itself included, in no special order."""
    catalogue = embedding[:num_items].T
    similar = np.empty((len(embedding), number), np.int32)
    for first in range(0, len(embedding), _ROWS_AT_A_TIME):
        scores = embedding[first : first + _ROWS_AT_A_TIME] @ catalogue
        similar[first : first + _ROWS_AT_A_TIME] = np.argpartition(-scores, number - 1, axis=1)[:, :number]
    return similar

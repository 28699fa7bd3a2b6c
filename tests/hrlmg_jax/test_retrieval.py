"""From proto-action to item: both backends against brute force in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.retrieval import (
    ItemIndex,
    RetrievalConfig,
    make_item_index,
    most_similar,
    nearest_embedding,
    nearest_item,
)
from sim.errors import UserError
from sim.histories import Histories
from sim.session_env import SessionObservation
from sim.settings import read_settings

CATALOGUE, ITEMS, E, T, N = 30, 36, 5, 12, 3


def unit_rows(*shape: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


EMBEDDING = unit_rows(ITEMS, E)
POPULAR = np.random.default_rng(1).permutation(CATALOGUE).astype(np.int32)


def make_index(backend: str = "exact", neighbours: int = 5, longest_session: int = T) -> ItemIndex:
    return make_item_index(RetrievalConfig(backend, neighbours), EMBEDDING, CATALOGUE, POPULAR, longest_session)


def observe(
    recommended: np.ndarray, histories: np.ndarray | None = None, candidates: np.ndarray | None = None
) -> SessionObservation:
    """B sessions with items recommended so far [B, <= T] and histories [B, 3, N] (browsed, clicked, ordered)."""
    batch = len(recommended)
    padded = np.full((batch, T), -1, np.int32)
    padded[:, : recommended.shape[1]] = recommended
    known = np.full((batch, 3, N), -1, np.int32) if histories is None else histories.astype(np.int32)
    return SessionObservation(
        step=jnp.asarray((padded >= 0).sum(1), jnp.int32),
        recommended=jnp.asarray(padded),
        last_item=jnp.full((batch,), -1, jnp.int32),
        histories=Histories(*(jnp.asarray(known[:, kind]) for kind in range(3))),
        candidates=None if candidates is None else jnp.asarray(candidates, jnp.int32),
        hidden=(),
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.astype(np.float64) @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def best_of(query: np.ndarray, allowed: list[int]) -> int:
    """Eq. 13 over a set of items."""
    return max(allowed, key=lambda item: cosine(query, EMBEDDING[item]))


find = jax.jit(nearest_item)


def found_items(query: np.ndarray, observation: SessionObservation, index: ItemIndex) -> list[int]:
    items = find(jnp.asarray(query, jnp.float32), observation, index)
    assert items.dtype == jnp.int32
    return np.asarray(items).tolist()


def draws(batch: int, count: int, seed: int) -> np.ndarray:
    """`count` different catalogue items for each of a batch of sessions."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(CATALOGUE)[:count] for _ in range(batch)])


# --- Exact -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, T])
def test_exact_is_the_most_similar_catalogue_item_not_recommended_yet(count: int) -> None:
    query = np.random.default_rng(count).normal(size=(40, E)) * np.exp(
        3 * np.random.default_rng(9).normal(size=(40, 1))
    )
    recommended = draws(40, count, seed=2)
    found = found_items(query, observe(recommended), make_index())
    for q, done, item in zip(query, recommended, found, strict=True):
        assert item == best_of(q, [i for i in range(CATALOGUE) if i not in done])


def test_a_whole_session_takes_the_items_in_the_order_of_their_similarity() -> None:
    query = np.random.default_rng(3).normal(size=(4, E))
    done = np.zeros((4, 0), np.int32)
    for _ in range(T):
        items = found_items(query, observe(done), make_index())
        done = np.concatenate([done, np.array(items)[:, None]], 1)
    for q, items in zip(query, done, strict=True):
        assert items.tolist() == sorted(range(CATALOGUE), key=lambda item: -cosine(q, EMBEDDING[item]))[:T]


def test_items_outside_the_catalogue_are_never_recommended() -> None:
    query = EMBEDDING[CATALOGUE:]  # each is nearest to an item that cannot be recommended
    found = found_items(query, observe(np.zeros((len(query), 0), np.int32)), make_index())
    assert found == [best_of(q, list(range(CATALOGUE))) for q in query]
    np.testing.assert_array_equal(
        nearest_embedding(jnp.asarray(query), make_index()),
        EMBEDDING[[best_of(q, list(range(CATALOGUE))) for q in query]],
    )


def test_of_equal_items_each_can_be_had_and_none_twice() -> None:
    index = ItemIndex(jnp.asarray(EMBEDDING[[4, 4, 7, 4]]), 4)
    query = EMBEDDING[[4]]
    done: list[int] = []
    for _ in range(4):
        done += found_items(query, observe(np.array([done], np.int32).reshape(1, -1)), index)
    assert sorted(done[:3]) == [0, 1, 3]
    assert done[3] == 2


def test_a_zero_query_still_gives_an_item_that_is_left() -> None:
    recommended = draws(5, T, seed=4)
    found = found_items(np.zeros((5, E)), observe(recommended), make_index())
    assert all(0 <= item < CATALOGUE and item not in done for item, done in zip(found, recommended, strict=True))


def test_a_gap_before_the_first_recommendation_of_a_staggered_session_hides_no_item() -> None:
    recommended = np.full((1, T), -1, np.int32)
    recommended[0, 6:8] = [3, 29]
    query = EMBEDDING[[29]]
    assert found_items(query, observe(recommended), make_index()) == [
        best_of(query[0], [i for i in range(CATALOGUE) if i not in (3, 29)])
    ]


def test_nearest_embedding_is_the_embedding_of_the_most_similar_item_whatever_was_recommended() -> None:
    query = np.random.default_rng(5).normal(size=(20, E)).astype(np.float32)
    found = nearest_embedding(jnp.asarray(query), make_index())
    np.testing.assert_array_equal(found, EMBEDDING[[best_of(q, list(range(CATALOGUE))) for q in query]])


# --- Logged sessions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["exact", "recall"])
def test_a_logged_session_is_reordered_from_its_own_items_and_padding_is_never_taken(backend: str) -> None:
    """Candidates may lie outside the catalogue, and be of any number up to the padded length."""
    generator = np.random.default_rng(6)
    lengths = [1, 2, 5, T]
    sessions = [generator.permutation(ITEMS)[:length] for length in lengths]
    candidates = np.full((4, T), -1)
    for row, items in zip(candidates, sessions, strict=True):
        row[: len(items)] = items
    query = generator.normal(size=(4, E))
    done: list[list[int]] = [[] for _ in lengths]
    for step in range(T):
        recommended = np.full((4, T), -1)
        for row, items in zip(recommended, done, strict=True):
            row[: len(items)] = items
        found = found_items(query, observe(recommended, candidates=candidates), make_index(backend))
        for b, length in enumerate(lengths):
            if step < length:
                done[b].append(found[b])
    for q, items, order in zip(query, sessions, done, strict=True):
        assert order == sorted(items.tolist(), key=lambda item: -cosine(q, EMBEDDING[item]))


# --- Recall ----------------------------------------------------------------------------------------------------------


def random_histories(batch: int, seed: int) -> np.ndarray:
    """Histories of every length, with items outside the catalogue among them."""
    generator = np.random.default_rng(seed)
    histories = generator.integers(0, ITEMS, (batch, 3, N))
    padding = generator.integers(0, N + 1, (batch, 3, 1)) > np.arange(N)
    return np.where(padding, -1, histories)


@pytest.mark.parametrize("neighbours", [1, 4])
def test_recall_is_the_best_of_the_histories_neighbours_and_the_popular_items(neighbours: int) -> None:
    index = make_index("recall", neighbours, longest_session=3)
    histories, recommended = random_histories(40, 7), draws(40, 3, seed=8)
    query = np.random.default_rng(9).normal(size=(40, E))
    found = found_items(query, observe(recommended, histories), index)
    for q, known, done, item in zip(query, histories, recommended, found, strict=True):
        recalled = set(POPULAR[:4].tolist())
        for past in known[known >= 0]:
            order = sorted(range(CATALOGUE), key=lambda i, past=past: -cosine(EMBEDDING[past], EMBEDDING[i]))
            recalled |= set(order[:neighbours])
        assert item == best_of(q, sorted(recalled - set(done.tolist())))


def test_recall_of_all_neighbours_is_exact() -> None:
    histories = random_histories(40, 10)
    histories[:, 0, -1] = 2  # one known item recalls everything
    observation = observe(draws(40, T, seed=11), histories)
    query = np.random.default_rng(12).normal(size=(40, E))
    for neighbours in (CATALOGUE, CATALOGUE + 50):
        recalled = found_items(query, observation, make_index("recall", neighbours))
        assert recalled == found_items(query, observation, make_index("exact"))


@pytest.mark.parametrize("longest_session", [1, T])
def test_recall_finds_something_new_to_the_last_step_of_the_longest_session(longest_session: int) -> None:
    """Nobody's histories, and all that was recommended is popular: the worst case."""
    index = make_index("recall", 1, longest_session)
    for step in range(longest_session):
        recommended = np.stack([POPULAR[:step], POPULAR[1 : step + 1]])
        found = found_items(np.ones((2, E)), observe(recommended), index)
        assert all(0 <= item < CATALOGUE for item in found)
        assert found[0] not in recommended[0]
        assert found[1] not in recommended[1]


def test_recall_of_a_session_as_long_as_the_catalogue_recommends_every_item_once() -> None:
    few = 6
    index = make_item_index(RetrievalConfig("recall", 2), EMBEDDING[:few], few, np.arange(few, dtype=np.int32), few)
    done: list[int] = []
    for _ in range(few):
        done += found_items(-EMBEDDING[[0]], observe(np.array([done], np.int32).reshape(1, -1)), index)
    assert sorted(done) == list(range(few))


def test_most_similar_finds_the_nearest_catalogue_items_of_every_item() -> None:
    embedding = unit_rows(1300, 4, seed=13)  # more than are worked on at a time
    catalogue, number = 1200, 6
    found = most_similar(embedding, catalogue, number)
    assert (found.shape, found.dtype) == ((1300, number), np.int32)
    expected = np.argsort(-(embedding @ embedding[:catalogue].T), axis=1, kind="stable")[:, :number]
    np.testing.assert_array_equal(np.sort(found, 1), np.sort(expected, 1))
    assert all(item in row for item, row in enumerate(found[:catalogue]))  # an item is most similar to itself


def test_an_index_keeps_neighbours_only_for_recall() -> None:
    exact, recall = make_index("exact"), make_index("recall", 4)
    assert exact.neighbours is None
    assert exact.popular is None
    assert recall.neighbours is not None
    assert recall.neighbours.shape == (ITEMS, 4)
    assert np.asarray(recall.popular).tolist() == POPULAR[: T + 1].tolist()
    assert exact.num_items == recall.num_items == CATALOGUE


@pytest.mark.parametrize(
    ("key", "settings"),
    [("backend", {"backend": "faiss", "neighbours": 3}), ("neighbours", {"backend": "recall", "neighbours": 0})],
)
def test_a_bad_setting_is_named(key: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"agent.retrieval.{key}"):
        read_settings(RetrievalConfig, settings, "agent.retrieval")

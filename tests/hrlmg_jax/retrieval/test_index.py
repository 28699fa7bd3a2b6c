"""From proto-action to item: every backend against brute force in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.errors import UserError
from harness.reports.benchmark import composed_settings
from harness.settings import read_settings
from hrlmg_jax.retrieval import index as retrieval
from hrlmg_jax.retrieval.index import (
    ItemIndex,
    RetrievalConfig,
    make_item_index,
    most_similar,
    nearest_embedding,
    nearest_item,
    nearest_items,
)
from hrlmg_jax.settings import RunConfig
from sim.envs.histories import Histories
from sim.envs.session_env import SessionObservation

CATALOGUE, ITEMS, E, T, N = 30, 36, 5, 12, 3


def unit_rows(*shape: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


EMBEDDING = unit_rows(ITEMS, E)
POPULAR = np.random.default_rng(1).permutation(CATALOGUE).astype(np.int32)


def make_index(backend: str = "exact", neighbours: int = 5, longest_session: int = T, **settings: Any) -> ItemIndex:
    config = RetrievalConfig(backend, neighbours, **settings)
    return make_item_index(config, EMBEDDING, CATALOGUE, POPULAR, longest_session)


def index_of(embedding: np.ndarray, backend: str, **settings: Any) -> ItemIndex:
    """An index of items that can all be recommended."""
    return make_item_index(RetrievalConfig(backend, 1, **settings), embedding, len(embedding), np.zeros(0, np.int32), 0)


ALL_CODES = {"scanned": 1000, "shortlist": 1000}  # codes then decide nothing
FEW_CODES = {"scanned": 4, "shortlist": 4, "bits": 32}  # so few that items nearby have to help out


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


# --- All backends that search the whole catalogue --------------------------------------------------------------------

WHOLE = [("exact", {}), ("approx", {}), ("hash", ALL_CODES)]


@pytest.mark.parametrize(("backend", "settings"), WHOLE)
@pytest.mark.parametrize("count", [0, 1, 7, T])
def test_it_is_the_most_similar_catalogue_item_not_recommended_yet(
    count: int, backend: str, settings: dict[str, Any]
) -> None:
    query = np.random.default_rng(count).normal(size=(40, E)) * np.exp(
        3 * np.random.default_rng(9).normal(size=(40, 1))
    )
    recommended = draws(40, count, seed=2)
    found = found_items(query, observe(recommended), make_index(backend, **settings))
    for q, done, item in zip(query, recommended, found, strict=True):
        assert item == best_of(q, [i for i in range(CATALOGUE) if i not in done])


@pytest.mark.parametrize(("backend", "settings"), WHOLE)
def test_a_whole_session_takes_the_items_in_the_order_of_their_similarity(
    backend: str, settings: dict[str, Any]
) -> None:
    query = np.random.default_rng(3).normal(size=(4, E))
    done = np.zeros((4, 0), np.int32)
    for _ in range(T):
        items = found_items(query, observe(done), make_index(backend, **settings))
        done = np.concatenate([done, np.array(items)[:, None]], 1)
    for q, items in zip(query, done, strict=True):
        assert items.tolist() == sorted(range(CATALOGUE), key=lambda item: -cosine(q, EMBEDDING[item]))[:T]


@pytest.mark.parametrize(("backend", "settings"), WHOLE)
def test_items_outside_the_catalogue_are_never_recommended(backend: str, settings: dict[str, Any]) -> None:
    query = EMBEDDING[CATALOGUE:]  # each is nearest to an item that cannot be recommended
    index = make_index(backend, **settings)
    found = found_items(query, observe(np.zeros((len(query), 0), np.int32)), index)
    assert found == [best_of(q, list(range(CATALOGUE))) for q in query]
    np.testing.assert_array_equal(
        nearest_embedding(jnp.asarray(query), index),
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


@pytest.mark.parametrize(("backend", "settings"), [*WHOLE, ("hash", FEW_CODES)])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_zero_query_still_gives_an_item_that_is_left(value: float, backend: str, settings: dict[str, Any]) -> None:
    """And one that is not a number, as of a diverged actor, an item at all."""
    recommended = draws(5, T, seed=4)
    found = found_items(np.full((5, E), value), observe(recommended), make_index(backend, **settings))
    if np.isnan(value):
        assert all(0 <= item < CATALOGUE for item in found)
        return
    assert all(0 <= item < CATALOGUE and item not in done for item, done in zip(found, recommended, strict=True))


def test_a_gap_before_the_first_recommendation_of_a_staggered_session_hides_no_item() -> None:
    recommended = np.full((1, T), -1, np.int32)
    recommended[0, 6:8] = [3, 29]
    query = EMBEDDING[[29]]
    assert found_items(query, observe(recommended), make_index()) == [
        best_of(query[0], [i for i in range(CATALOGUE) if i not in (3, 29)])
    ]


@pytest.mark.parametrize(("backend", "settings"), [*WHOLE, ("recall", {})])
def test_nearest_embedding_is_the_embedding_of_the_most_similar_item_whatever_was_recommended(
    backend: str, settings: dict[str, Any]
) -> None:
    query = np.random.default_rng(5).normal(size=(20, E)).astype(np.float32)
    found = nearest_embedding(jnp.asarray(query), make_index(backend, **settings))
    np.testing.assert_array_equal(found, EMBEDDING[[best_of(q, list(range(CATALOGUE))) for q in query]])


@pytest.mark.parametrize(("backend", "settings"), WHOLE)
@pytest.mark.parametrize("count", [0, T])
def test_a_list_has_the_most_similar_items_in_order(count: int, backend: str, settings: dict[str, Any]) -> None:
    query = np.random.default_rng(14).normal(size=(10, E)).astype(np.float32)
    recommended = draws(10, count, seed=15)
    given = jnp.asarray(recommended, jnp.int32) if count else None
    found = np.asarray(nearest_items(jnp.asarray(query), make_index(backend, **settings), 7, given))
    for q, done, items in zip(query, recommended, found, strict=True):
        left = [item for item in range(CATALOGUE) if item not in done]
        assert items.tolist() == sorted(left, key=lambda item, q=q: -cosine(q, EMBEDDING[item]))[:7]


@pytest.mark.parametrize("backend", ["exact", "approx"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("items", [300, 384, 511])
def test_a_large_catalogue_is_searched_in_parts(
    items: int, number: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 128 items, the last of which overlap where these do not divide the catalogue."""
    monkeypatch.setattr(retrieval, "NUMBERS_AT_A_TIME", 0)
    monkeypatch.setattr(retrieval, "_FEWEST_AT_A_TIME", 128)
    embedding = unit_rows(items, E, seed=16)
    query = np.concatenate([unit_rows(40, E, seed=17), embedding[-3:], embedding[:3]])
    generator = np.random.default_rng(18)
    recommended = np.stack([generator.permutation(items)[:20] for _ in query]).astype(np.int32)
    recommended[:, 0] = np.argmax(query @ embedding.T, 1)  # the nearest is among them
    recommended[:, 1:] = np.where(recommended[:, 1:] == recommended[:, :1], -1, recommended[:, 1:])
    index = index_of(embedding, backend)
    found = np.asarray(nearest_items(jnp.asarray(query), index, number, jnp.asarray(recommended)))
    scores = query.astype(np.float64) @ embedding.T
    for row, done in zip(scores, recommended, strict=True):
        row[done[done >= 0]] = -np.inf
    np.testing.assert_array_equal(found, np.argsort(-scores, 1)[:, :number])
    alone = nearest_items(jnp.asarray(query), index, number)
    np.testing.assert_array_equal(alone, np.argsort(-(query @ embedding.T), 1)[:, :number])


# --- Codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["learned", "hyperplanes"])
def test_codes_find_nearly_all_that_exact_search_finds(codes: str) -> None:
    """Items in clusters, of which a query's codes are compared with a tenth, and a hundredth by embedding."""
    generator = np.random.default_rng(19)
    embedding = np.repeat(unit_rows(60, 20, seed=20), 50, 0) + 0.15 * generator.normal(size=(3000, 20))
    embedding = (embedding / np.linalg.norm(embedding, axis=1, keepdims=True)).astype(np.float32)
    query = embedding[:400:4] + 0.1 * generator.normal(size=(100, 20)).astype(np.float32)
    index = index_of(embedding, "hash", codes=codes, scanned=300, shortlist=30)
    found = np.asarray(nearest_items(jnp.asarray(query), index, 1))[:, 0]
    assert np.mean(found == np.argmax(query @ embedding.T, 1)) > (0.9 if codes == "learned" else 0.7)


@pytest.mark.parametrize("settings", [FEW_CODES, {"scanned": 200, "shortlist": 8}])
@pytest.mark.parametrize("tables", [1, 3])
def test_a_session_as_long_as_the_catalogue_recommends_every_item_once(tables: int, settings: dict[str, Any]) -> None:
    """However little the tables give: towards the end nearly all that they find has been recommended."""
    items = 60
    embedding = unit_rows(items, E, seed=21)
    embedding[40:] = embedding[40]  # a third of them alike, in one bucket
    query = jnp.asarray(unit_rows(3, E, seed=22))
    index = index_of(embedding, "hash", tables=tables, **settings)
    step = jax.jit(lambda index, done: nearest_items(query, index, 1, done)[:, 0])
    done = np.full((3, items), -1, np.int32)
    for place in range(items):
        done[:, place] = step(index, jnp.asarray(done))
    assert all(sorted(row.tolist()) == list(range(items)) for row in done)


@pytest.mark.parametrize(("tables", "scanned"), [(1, 60), (2, 200), (4, 200)])
def test_a_list_from_tables_names_no_item_twice_and_none_to_leave_out(tables: int, scanned: int) -> None:
    """With 60, all that is fetched is on the shortlist, what lies beyond the end of a bucket included."""
    embedding = unit_rows(500, E, seed=23)
    index = index_of(embedding, "hash", tables=tables, scanned=scanned, shortlist=40)
    query = jnp.asarray(unit_rows(40, E, seed=24))
    first = np.asarray(nearest_items(query, index, 25))
    second = np.asarray(nearest_items(query, index, 25, jnp.asarray(first)))
    for one, two in zip(first.tolist(), second.tolist(), strict=True):
        assert len({*one, *two}) == 50
    scores = np.asarray(query) @ embedding.T
    np.testing.assert_array_less(-1e-6, -np.diff(np.take_along_axis(scores, first, 1), axis=1))


def test_an_index_is_an_argument_of_compiled_functions() -> None:
    """One program serves indices of other items."""
    compiled = jax.jit(lambda query, index: nearest_items(query, index, 1)[:, 0])
    query = unit_rows(9, E, seed=25)
    for seed in (26, 27):
        embedding = unit_rows(200, E, seed=seed)
        found = compiled(jnp.asarray(query), index_of(embedding, "hash", **ALL_CODES))
        np.testing.assert_array_equal(found, np.argmax(query @ embedding.T, 1))
    assert compiled._cache_size() == 1


def test_codes_are_of_the_catalogue_alone() -> None:
    index = make_index("hash", tables=2, scanned=10)
    assert len(index.tables) == 2
    assert all(sorted(np.asarray(table.items).tolist()) == list(range(CATALOGUE)) for table in index.tables)
    assert index.embedding.shape == (ITEMS, E)
    assert not make_index("exact").tables


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backend", "faiss"),
        ("neighbours", 0),
        ("recall_target", 1.0),
        ("codes", "random"),
        ("tables", 0),
        ("bits", 16),
        ("bits", 100),
        ("bits", 2048),
        ("scanned", 0),
        ("scanned", 2**20 + 1),
        ("shortlist", 0),
    ],
)
def test_a_bad_setting_is_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"agent.retrieval.{key}"):
        read_settings(RetrievalConfig, {"backend": "hash", "neighbours": 3, key: value}, "agent.retrieval")


def test_runs_from_before_there_were_codes_still_have_their_settings() -> None:
    old = read_settings(RetrievalConfig, {"backend": "recall", "neighbours": 20}, "agent.retrieval")
    assert old == composed_settings(RunConfig, "train_hrl_mg", "agent.retrieval.backend=recall").agent.retrieval


@pytest.mark.parametrize("backend", ["exact", "hash", "approx", "recall"])
@pytest.mark.parametrize("agent", ["hrl_mg", "ddpg_paper"])
def test_a_backend_is_chosen_briefly(agent: str, backend: str) -> None:
    brief = composed_settings(RunConfig, "train_hrl_mg", f"agent={agent}", f"retrieval={backend}")
    assert brief.agent.retrieval.backend == backend
    assert brief == composed_settings(RunConfig, "train_hrl_mg", f"agent={agent}", f"agent.retrieval.backend={backend}")


# --- Logged sessions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["exact", "recall", "hash", "approx"])
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

"""Speed of the nearest items, and how many of them each backend finds."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.reports.benchmark import (
    Line,
    alternating_seconds,
)
from hrlmg_jax.benchmark.parts import agent_settings
from hrlmg_jax.retrieval.index import ItemIndex, make_item_index, nearest_items
from sim.envs.nearest_items import unit

_EMBEDDING_SIZE = 50  # of the items to look up
_SESSION = (300, 150)  # recommendations, and how many have been made
_NEAR = "near an item"
_find = jax.jit(nearest_items, static_argnums=2)


@dataclass(frozen=True)
class Vectors:
    """Items [I, E] to look up, and queries [B, E] by kind; unit norm."""

    items: np.ndarray
    queries: dict[str, np.ndarray]


def draw_vectors(num_items: int, num_queries: int, clustered: bool = True) -> Vectors:
    """Draws items, and queries that are near one of them (as a trained actor's) or unrelated.

    Clustered, items lie around as many centres as the root of their number, unrelated queries between two centres; axis
    k has a share of 1 / k in the variance (`sim.generators.funnel`). Otherwise all directions are alike, the worst
    that can be.
    """
    generator = np.random.default_rng(0)
    scale = np.arange(1, _EMBEDDING_SIZE + 1) ** -0.5 if clustered else np.ones(_EMBEDDING_SIZE)

    def scaled(vectors: np.ndarray) -> np.ndarray:
        return np.asarray(unit(jnp.asarray(vectors, jnp.float32)))

    def noise(number: int) -> np.ndarray:
        return scaled(generator.standard_normal((number, _EMBEDDING_SIZE), np.float32) * scale)

    if clustered:
        centres = noise(round(math.sqrt(num_items)))
        items = scaled(centres[generator.integers(len(centres), size=num_items)] + 0.5 * noise(num_items))
        two = centres[generator.integers(len(centres), size=(num_queries, 2))]
        unrelated = scaled(two.sum(1) + 0.3 * noise(num_queries))
    else:
        items, unrelated = noise(num_items), noise(num_queries)
    aimed_at = items[generator.integers(num_items, size=num_queries)]
    cosine = generator.uniform(0.7, 0.9, (num_queries, 1))
    sideways = generator.normal(size=aimed_at.shape)
    sideways = scaled(sideways - np.sum(sideways * aimed_at, -1, keepdims=True) * aimed_at)
    near = scaled(cosine * aimed_at + np.sqrt(1 - cosine**2) * sideways)
    return Vectors(items, {_NEAR: near, "between clusters" if clustered else "anywhere": unrelated})


def recall(found: Any, truth: Any) -> float:
    """Returns the share of the true items [B, K] that are among those found [B, K]."""
    return float(np.mean(np.any(np.asarray(truth)[:, :, None] == np.asarray(found)[:, None, :], -1)))


def bench_retrieval(smoke: bool) -> list[Line]:
    """The nearest items of 512 queries at once by each backend, in catalogues of growing size."""
    num_queries, repeats = (16, 1) if smoke else (512, 5)
    sizes = (1_000,) if smoke else (10**4, 10**5, 10**6)
    lines = []
    for num_items in sizes:
        vectors = draw_vectors(num_items, num_queries)
        exact = _item_index(vectors.items, "exact")
        hashed = {f"hash, {codes}": _item_index(vectors.items, "hash", codes) for codes in ("hyperplanes", "learned")}
        others = {"approx": _item_index(vectors.items, "approx"), **hashed}
        judged = num_items == 10**6
        measured = [
            *_building(vectors, "learned"),
            *_recalls(vectors, exact, others, judged),
            *_speeds(vectors, {"exact": exact, **others}, judged, repeats),
        ]
        lines += _titled(f"{num_items:,} items", measured)
    lines += _in_a_session(vectors, exact, hashed["hash, learned"], judged, repeats)
    vectors = draw_vectors(sizes[-1], num_queries, clustered=False)
    others = {"hash, learned": _item_index(vectors.items, "hash")}
    measured = _recalls(vectors, _item_index(vectors.items, "exact"), others, False)
    return lines + _titled(f"{sizes[-1]:,} items without structure", measured)


def _titled(title: str, lines: list[Line]) -> list[Line]:
    return [dataclasses.replace(line, name=f"{title}: {line.name}") for line in lines]


def _item_index(items: np.ndarray, backend: str, codes: str = "learned") -> ItemIndex:
    config = agent_settings(f"agent.retrieval.backend={backend}", f"agent.retrieval.codes={codes}").retrieval
    return jax.block_until_ready(make_item_index(config, items, len(items), np.zeros(0, np.int32), 0))


def _building(vectors: Vectors, codes: str) -> list[Line]:
    """Returns what an index of codes takes."""
    started = time.perf_counter()
    tables = _item_index(vectors.items, "hash", codes).tables
    seconds = time.perf_counter() - started
    taken = sum(leaf.nbytes for leaf in jax.tree.leaves(tables)) / len(vectors.items)
    scanned = sum(table.scanned for table in tables)
    return [
        Line("hash: building", seconds, "s", note=f"{len(tables)} tables, {scanned:,} codes scanned by a query"),
        Line("hash: codes and tables", taken, "bytes per item", note=f"beside {4 * _EMBEDDING_SIZE} of the embedding"),
    ]


def _recalls(vectors: Vectors, exact: ItemIndex, indices: dict[str, ItemIndex], judged: bool) -> list[Line]:
    """Returns how many of the truly nearest items each backend finds."""
    lines = []
    for kind, query in vectors.queries.items():
        truth = _find(query, exact, 10)
        for name, index in indices.items():
            target = 0.9 if judged and name == "hash, learned" else None
            first, ten = (recall(_find(query, index, number), truth[:, :number]) for number in (1, 10))
            lines.append(Line(f"{name}: recall@1, queries {kind}", first, "", target, at_most=False))
            lines.append(Line(f"{name}: recall@10, queries {kind}", ten, ""))
    return lines


def _speeds(
    vectors: Vectors, indices: dict[str, ItemIndex], judged: bool, repeats: int, recommended: jax.Array | None = None
) -> list[Line]:
    """Returns the time of each backend, timed in turns, and its ratio to exact search."""
    query = vectors.queries[_NEAR]
    runs = {name: partial(_find, query, index, 1, recommended) for name, index in indices.items()}
    seconds = alternating_seconds(runs, repeats)
    lines = [Line(f"{name}: 1,000 queries", value / len(query) * 1e6, "ms") for name, value in seconds.items()]
    for name, value in seconds.items():
        if name != "exact":
            target = 5 if judged and name == "hash, learned" else None
            lines.append(Line(f"exact / {name}", seconds["exact"] / value, "x", target, at_most=False))
    return lines


def _in_a_session(vectors: Vectors, exact: ItemIndex, hashed: ItemIndex, judged: bool, repeats: int) -> list[Line]:
    """Returns speed, and the similarity given up, in the middle of sessions that had all the nearest items already."""
    query = vectors.queries[_NEAR]
    length, step = _SESSION
    played = jnp.pad(_find(query, exact, step), ((0, 0), (0, length - step)), constant_values=-1)
    best, found = (vectors.items[_find(query, index, 1, played)[:, 0]] for index in (exact, hashed))
    share = float(np.mean(np.sum(query * found, -1)) / np.mean(np.sum(query * best, -1)))
    lines = _speeds(vectors, {"exact": exact, "hash, learned": hashed}, judged, repeats, played)
    lines.append(Line("hash, learned: cosine of what is found / of the best", share, ""))
    return _titled(f"{len(vectors.items):,} items, step {step} of sessions of {length}", lines)

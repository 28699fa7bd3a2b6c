"""Grouping samples by node into tiles: nothing is lost, nothing is mixed, and gradients are those of a gather."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpgr_jax.networks import grouped_matmul as node_batching
from tpgr_jax.networks.grouped_matmul import num_tiles, pack, plan_tiles, tile_products, tile_rows, unpack

FEATURES, OUTPUTS = 3, 2
SHAPES = [(1, 1), (1, 5), (7, 3), (12, 40), (37, 5), (64, 1), (130, 7), (300, 2)]
KINDS = ["uniform", "one node", "last node", "one per node", "mean and skew", "geometric", "full tiles and one"]


def make_nodes(kind: str, samples: int, nodes: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if kind == "uniform":
        drawn = generator.integers(0, nodes, samples)
    elif kind == "one node":
        drawn = np.full(samples, generator.integers(0, nodes))
    elif kind == "last node":
        drawn = np.full(samples, nodes - 1)
    elif kind == "one per node":
        drawn = np.arange(samples) % nodes
    elif kind == "mean and skew":  # one sample at every node, all others at one of them: the largest number of tiles
        drawn = np.where(np.arange(samples) < nodes, np.arange(samples) % nodes, generator.integers(0, nodes))
    elif kind == "geometric":
        drawn = np.minimum(generator.geometric(0.4, samples) - 1, nodes - 1)
    else:  # one more than whole tiles at each node but the last
        drawn = np.minimum(np.arange(samples) // (tile_rows(samples, nodes) + 1), nodes - 1)
    return generator.permutation(drawn).astype(np.int32)


def tiled(x: jax.Array, weights: jax.Array, node: jax.Array) -> jax.Array:
    plan = plan_tiles(node, weights.shape[0])
    return unpack(jnp.einsum("npf,nfg->npg", pack(x, plan), weights[plan.tile_node]), plan)


def gathered(x: jax.Array, weights: jax.Array, node: jax.Array) -> jax.Array:
    return jnp.einsum("sf,sfg->sg", x, weights[node])


@partial(jax.jit, static_argnums=3)
def evaluate(x: jax.Array, weights: jax.Array, node: jax.Array, num_nodes: int) -> dict[str, Any]:
    """Everything that is compared, in one compilation per shape."""

    def scalar(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda x, weights: jnp.sum(jnp.sin(function(x, weights, node)) * jnp.arange(1, OUTPUTS + 1))

    plan = plan_tiles(node, num_nodes)
    tiles = pack(x, plan)
    return {
        "plan": plan,
        "tiles": tiles,
        "back": unpack(tiles, plan),
        "tiled": jax.value_and_grad(scalar(tiled), (0, 1))(x, weights),
        "gathered": jax.value_and_grad(scalar(gathered), (0, 1))(x, weights),
    }


def check(node: np.ndarray, num_nodes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    samples = len(node)
    x = generator.uniform(0.5, 1.5, (samples, FEATURES)).astype(np.float32)  # no zeros: padding is recognisable
    weights = generator.normal(size=(num_nodes, FEATURES, OUTPUTS)).astype(np.float32)
    result = jax.device_get(evaluate(x, weights, node, num_nodes))
    plan, tiles = result["plan"], result["tiles"]
    rows = tile_rows(samples, num_nodes)

    assert tiles.shape == (num_tiles(samples, num_nodes, rows), rows, FEATURES)
    # Each sample has one row, in a tile of its own node, and each row at most one sample.
    assert len(np.unique(plan.row)) == samples
    np.testing.assert_array_equal(plan.source[plan.row], np.arange(samples))
    np.testing.assert_array_equal(np.sort(plan.source[plan.source < samples]), np.arange(samples))
    np.testing.assert_array_equal(plan.tile_node[plan.row // rows], node)
    # Rows hold their samples, all others are zero; nothing is lost on the way back.
    flat = tiles.reshape(-1, FEATURES)
    np.testing.assert_array_equal(flat[plan.row], x)
    padding = np.ones(len(flat), bool)
    padding[plan.row] = False
    np.testing.assert_array_equal(flat[padding], 0)
    np.testing.assert_array_equal(plan.source[padding], samples)
    np.testing.assert_array_equal(result["back"], x)

    (value, gradients), (expected_value, expected) = result["tiled"], result["gathered"]
    np.testing.assert_allclose(value, expected_value, rtol=1e-4, atol=1e-4)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("samples", "nodes"), SHAPES)
def test_every_layout_keeps_samples_and_gradients(samples: int, nodes: int, kind: str) -> None:
    check(make_nodes(kind, samples, nodes, seed=3), nodes, seed=4)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_distribution_keeps_samples_and_gradients(data: st.DataObject) -> None:
    samples, nodes = data.draw(st.sampled_from([shape for shape in SHAPES if shape[0] <= 37]))
    node = data.draw(st.lists(st.integers(0, nodes - 1), min_size=samples, max_size=samples))
    check(np.array(node, np.int32), nodes, data.draw(st.integers(0, 100)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_tile_bound_suffices_for_any_group_sizes(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 3_000), min_size=1, max_size=60).filter(any))
    rows = tile_rows(sum(sizes), len(sizes))
    assert sum(-(-size // rows) for size in sizes) <= num_tiles(sum(sizes), len(sizes), rows)


@pytest.mark.parametrize(("samples", "nodes"), [(1, 1), (1, 4), (5, 2), (8, 3), (9, 4), (12, 3), (16, 2), (6, 9)])
def test_tile_bound_is_the_worst_case(samples: int, nodes: int) -> None:
    def sizes(left: int, groups: int) -> list[tuple[int, ...]]:
        if groups == 1:
            return [(left,)]
        return [(first, *rest) for first in range(left + 1) for rest in sizes(left - first, groups - 1)]

    for rows in (1, 2, 4, 8):
        worst = max(sum(-(-size // rows) for size in groups) for groups in sizes(samples, nodes))
        assert num_tiles(samples, nodes, rows) == worst


@settings(max_examples=200, deadline=None)
@given(samples=st.integers(1, 2_000_000), nodes=st.integers(1, 20_000))
def test_tiles_have_a_power_of_two_rows_near_the_mean_and_at_most_128(samples: int, nodes: int) -> None:
    rows = tile_rows(samples, nodes)
    assert 1 <= rows <= 128
    assert rows & (rows - 1) == 0
    assert rows <= max(1, samples / nodes)
    assert rows == 128 or 2 * rows > samples // nodes
    # Padding is bounded: at most one unfinished tile per node on top of the samples.
    assert num_tiles(samples, nodes, rows) * rows < samples + min(samples, nodes) * rows


def test_pack_and_unpack_are_each_others_transpose() -> None:
    generator = np.random.default_rng(0)
    node = make_nodes("geometric", 37, 5, seed=1)

    @jax.jit
    def products(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        plan = plan_tiles(node, 5)
        packed, pull_pack = jax.vjp(lambda x: pack(x, plan), x)
        unpacked, pull_unpack = jax.vjp(lambda y: unpack(y, plan), y)
        return packed, unpacked, pull_pack(y)[0], pull_unpack(x)[0]

    rows = tile_rows(37, 5)
    x = generator.normal(size=(37, FEATURES)).astype(np.float32)
    y = generator.normal(size=(num_tiles(37, 5, rows), rows, FEATURES)).astype(np.float32)
    packed, unpacked, pulled_pack, pulled_unpack = products(x, y)
    np.testing.assert_allclose(np.sum(packed * y), np.sum(x * pulled_pack), rtol=1e-4)
    np.testing.assert_allclose(np.sum(unpacked * x), np.sum(y * pulled_unpack), rtol=1e-4)


@pytest.mark.parametrize("kind", ["uniform", "mean and skew"])
def test_samples_that_share_a_row_are_as_rows_of_their_own(kind: str) -> None:
    rows, each, nodes = 13, 3, 5
    generator = np.random.default_rng(2)
    node = make_nodes(kind, rows * each, nodes, seed=1)
    x = generator.normal(size=(rows, FEATURES)).astype(np.float32)

    @jax.jit
    def products(x: jax.Array) -> tuple[jax.Array, ...]:
        plan = plan_tiles(node, nodes)
        shared, pull = jax.vjp(lambda x: pack(x, plan, each), x)
        y = jnp.sin(jnp.arange(shared.size, dtype=jnp.float32)).reshape(shared.shape)
        repeated, pull_repeated = jax.vjp(lambda x: pack(jnp.repeat(x, each, 0), plan), x)
        return shared, repeated, pull(y)[0], pull_repeated(y)[0]

    shared, repeated, gradient, expected = products(x)
    np.testing.assert_array_equal(shared, repeated)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels_at_a_time", [0, 1, 4, 100])
def test_products_in_parts_are_those_of_the_whole(kernels_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where not even one kernel fits, and where the last part is not full."""
    generator = np.random.default_rng(0)
    tiles, kernel = (generator.normal(size=shape).astype(np.float32) for shape in ((11, 4, FEATURES), (6, FEATURES, 5)))
    tile_node = generator.integers(0, 6, 11).astype(np.int32)
    monkeypatch.setattr(node_batching, "_GATHERED_BYTES", kernels_at_a_time * kernel[0].nbytes)

    def value(product: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
        def weighted(tiles: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = product(tiles, kernel)
            return jnp.sum(jnp.sin(found)), found

        return weighted

    def whole(tiles: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("npf,nfg->npg", tiles, kernel[tile_node])

    def in_parts(tiles: jax.Array, kernel: jax.Array) -> jax.Array:
        return tile_products(tiles, kernel, tile_node)

    results = [
        jax.jit(jax.value_and_grad(value(product), (0, 1), has_aux=True))(tiles, kernel)
        for product in (in_parts, whole)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), *results)

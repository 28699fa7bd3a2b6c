"""Codes, tables and the lookup, each against an independent version in NumPy."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrlmg_jax.retrieval.hashing import (
    HashTable,
    find_candidates,
    hamming_distance,
    items_nearby,
    look_up,
    make_hash_tables,
    pack_bits,
    probed_buckets,
    probing_order,
    scanned_by_default,
    smallest,
)

E = 6


def unit_rows(number: int, seed: int = 0, size: int = E) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(number, size))
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def one_table(vectors: np.ndarray, scanned: int, bits: int = 32, learned: bool = True) -> HashTable:
    (table,) = make_hash_tables(vectors, 1, bits, scanned, learned)
    return table


def bucket_items(table: HashTable, bucket: int) -> list[int]:
    first, end = np.asarray(table.starts)[bucket : bucket + 2]
    return np.asarray(table.items)[first:end].tolist()


def margin_of(query: np.ndarray, table: HashTable) -> np.ndarray:
    mean, planes = (np.asarray(part, np.float64) for part in (table.mean, table.planes))
    return (query / np.linalg.norm(query) - mean) @ planes


def code_of(query: np.ndarray, table: HashTable) -> str:
    """A code as a text of zeros and ones, bit 0 first."""
    return "".join("1" if side > 0 else "0" for side in margin_of(query, table))


def code_in(words: np.ndarray) -> str:
    return "".join(f"{int(word):032b}"[::-1] for word in words)


# --- Codes -----------------------------------------------------------------------------------------------------------


def test_bits_fill_words_from_the_lowest() -> None:
    bits = np.zeros(64, bool)
    bits[[0, 5, 31, 33]] = True
    assert np.asarray(pack_bits(jnp.asarray(bits))).tolist() == [1 + 2**5 + 2**31, 2]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_hamming_distance_is_the_number_of_bits_that_differ(words: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((7, 32 * words)) < 0.3
    packed = jax.vmap(pack_bits)(jnp.asarray(bits))
    expected = (bits[1:] != bits[0]).sum(1)
    np.testing.assert_array_equal(hamming_distance(packed[1:], packed[0]), expected)
    unpacked = np.unpackbits(np.asarray(packed[1:] ^ packed[0]).view(np.uint8), axis=1)
    np.testing.assert_array_equal(unpacked.sum(1), expected)


def test_hamming_distance_of_opposite_codes_is_all_their_bits() -> None:
    code = jnp.asarray([0, 2**32 - 1], jnp.uint32)
    assert int(hamming_distance(~code, code)) == 64
    assert hamming_distance(code, code).dtype == jnp.int32


# --- Tables ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    number=st.integers(1, 400),
    size=st.integers(1, 9),
    tables=st.integers(1, 3),
    learned=st.booleans(),
    copies=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_item_is_in_exactly_one_bucket(
    number: int, size: int, tables: int, learned: bool, copies: bool, seed: int
) -> None:
    vectors = unit_rows(number, seed, size)
    if copies:  # all items alike share one bucket
        vectors[:] = vectors[0]
    made = make_hash_tables(vectors, tables, 64, max(1, number // 2), learned)
    assert len(made) == (1 if number // 2 >= number or number == 1 else tables)
    for table in made:
        starts, buckets = np.asarray(table.starts), 2 ** table.flips.shape[1]
        assert (starts[0], starts[-1], len(starts)) == (0, number, buckets + 1)
        assert (np.diff(starts) >= 0).all()
        assert sorted(np.asarray(table.items).tolist()) == list(range(number))
        bits = table.flips.shape[1]
        for bucket in range(buckets):
            for word in np.asarray(table.words)[starts[bucket] : starts[bucket + 1], 0]:
                assert int(word) % 2**bits == bucket


@pytest.mark.parametrize("learned", [False, True])
def test_codes_tell_on_which_side_of_each_hyperplane_an_item_lies(learned: bool) -> None:
    vectors = unit_rows(300)
    tables = make_hash_tables(vectors, 2, 96, 100, learned)
    np.testing.assert_allclose(tables[0].mean, vectors.mean(0), atol=1e-6)
    for table in tables:
        for item, words in zip(np.asarray(table.items), np.asarray(table.words), strict=False):
            sides = (vectors[item].astype(np.float64) - np.asarray(table.mean)) @ np.asarray(table.planes, np.float64)
            sure = np.abs(sides) > 1e-5
            assert (np.array(list(code_in(words))) == np.where(sides > 0, "1", "0"))[sure].all()


def test_hyperplanes_are_orthogonal_in_groups_and_differ_between_tables() -> None:
    first, second = (np.asarray(table.planes) for table in make_hash_tables(unit_rows(300), 2, 32, 100, False))
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), 1, atol=1e-6)
    for group in range(0, 30, E):
        part = first[:, group : group + E]
        np.testing.assert_allclose(part.T @ part, np.eye(E), atol=1e-5)
    assert np.abs(first - second).max() > 0.1


def test_learned_tables_cut_where_items_differ_most() -> None:
    """Items differ along three axes of ten: only these choose a bucket, in three equal halves."""
    generator = np.random.default_rng(0)
    vectors = (generator.normal(size=(256, 10)) * ([1.0] * 3 + [0.001] * 7)).astype(np.float32)
    table = one_table(vectors, 100)
    bits = table.flips.shape[1]
    assert bits == 3
    assert np.abs(np.asarray(table.planes)[3:, :bits]).max() < 0.01
    assert np.abs(np.asarray(table.planes)[3:, bits:]).max() > 0.1
    assert np.abs(np.asarray(one_table(vectors, 100, learned=False).planes)[3:, :bits]).max() > 0.1


def test_the_same_items_get_the_same_tables() -> None:
    one, other = (make_hash_tables(unit_rows(200), 2, 32, 100, True) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_buckets_hold_32_items_on_average_in_catalogues_of_any_size() -> None:
    for number, bits in ((1, 1), (40, 1), (128, 2), (4096, 7)):
        assert one_table(unit_rows(number), 1).flips.shape[1] == bits


def test_by_default_the_work_grows_with_the_root_of_the_catalogue() -> None:
    assert scanned_by_default(10**6) == 32_000
    assert scanned_by_default(100) > 100  # all of a small one


# --- Probing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_probing_order_is_that_of_expected_distances_over_all_buckets(bits: int) -> None:
    order = probing_order(bits, 2**bits)
    assert sorted(map(tuple, order.tolist())) == sorted(itertools.product([False, True], repeat=bits))
    draws = np.abs(np.random.default_rng(0).normal(size=(200_000, bits)))
    distance = order @ np.sort(draws, axis=1).mean(0)
    assert distance[0] == 0
    out_of_order = np.maximum.accumulate(distance) - distance
    assert out_of_order.max() < 0.02 * distance[-1]  # the formula is not far from what draws give
    np.testing.assert_array_equal(probing_order(bits, 3), order[:3])


@pytest.mark.parametrize("seed", range(5))
def test_a_query_probes_near_buckets_first(seed: int) -> None:
    """Against the distances to all buckets, found one by one."""
    bits = 8
    margin = np.random.default_rng(seed).normal(size=bits).astype(np.float32)
    probed = np.asarray(probed_buckets(jnp.asarray(margin), jnp.asarray(probing_order(bits, 2**bits))))
    assert sorted(probed.tolist()) == list(range(2**bits))
    behind = {
        bucket: [bit for bit in range(bits) if (bucket >> bit) % 2 != (margin[bit] > 0)] for bucket in range(2**bits)
    }
    distance = np.array([np.abs(margin[behind[bucket]]).sum() for bucket in probed.tolist()])
    assert behind[int(probed[0])] == []
    assert behind[int(probed[1])] == [int(np.argmin(np.abs(margin)))]
    # A bucket comes after those that lie behind fewer, or behind nearer hyperplanes.
    place = {bucket: number for number, bucket in enumerate(probed.tolist())}
    by_distance = sorted(range(bits), key=lambda bit: abs(float(margin[bit])))
    for bucket, beyond in behind.items():
        for bit in beyond:
            assert place[bucket ^ 2**bit] < place[bucket]
            rank = by_distance.index(bit)
            if rank and by_distance[rank - 1] not in beyond:
                assert place[bucket ^ 2**bit ^ 2 ** by_distance[rank - 1]] < place[bucket]
    # The first quarter is on average not much further away than the nearest quarter.
    assert distance[: 2 ** (bits - 2)].mean() < 1.15 * np.sort(distance)[: 2 ** (bits - 2)].mean()


def test_probed_buckets_use_only_the_bits_of_the_table() -> None:
    margin = jnp.asarray([0.5, -0.1, 0.3, -9.0, 9.0])
    assert np.asarray(probed_buckets(margin, jnp.asarray(probing_order(3, 3)))).tolist() == [0b101, 0b111, 0b001]


@pytest.mark.parametrize("blocks", [1, 4, 9, 40])
def test_look_up_takes_one_bucket_after_the_other(blocks: int) -> None:
    """Buckets of 0 to 40 items; the last case asks for more than there are."""
    table = one_table(unit_rows(300), 200)
    margin = margin_of(np.ones(E), table)
    probed = np.asarray(probed_buckets(jnp.asarray(margin), table.flips))
    starts = np.asarray(table.starts)
    expected = [
        (first, starts[bucket + 1])
        for bucket in probed.tolist()
        for first in range(starts[bucket], starts[bucket + 1], 16)
    ]
    expected = [*expected, *[(300, 300)] * blocks][:blocks]
    first, end = look_up(jnp.asarray(margin), table, blocks)
    assert list(zip(first.tolist(), end.tolist(), strict=True)) == expected


def test_empty_buckets_take_no_room() -> None:
    vectors = unit_rows(300)
    vectors[:] = vectors[np.arange(300) % 3]  # three kinds of items, so that others of the eight buckets are empty
    table = one_table(vectors, 299)
    assert (np.diff(np.asarray(table.starts)) == 0).sum() >= 5
    first, end = (np.asarray(part) for part in look_up(jnp.asarray(margin_of(np.ones(E), table)), table, 40))
    whole = [place for begin, stop in zip(first, end, strict=True) for place in range(begin, min(begin + 16, stop))]
    assert sorted(whole) == list(range(300))


# --- Candidates ------------------------------------------------------------------------------------------------------


def distances(query: np.ndarray, table: HashTable) -> dict[int, int]:
    """Item -> bits that differ, by comparing texts."""
    own = code_of(query, table)
    codes = {
        int(item): code_in(words) for item, words in zip(np.asarray(table.items), np.asarray(table.words), strict=False)
    }
    return {item: sum(one != two for one, two in zip(own, code, strict=True)) for item, code in codes.items()}


@pytest.mark.parametrize(("scanned", "number"), [(60, 16), (150, 5), (150, 100), (320, 16), (399, 1)])
def test_candidates_have_the_nearest_codes_of_those_looked_at(scanned: int, number: int) -> None:
    """Blocks of 16 items from the buckets in turn, dealt out to groups, of which each gives its four nearest."""
    table = one_table(unit_rows(400), scanned, bits=64)
    groups = -(-number // 64) * 16
    slots = -(-scanned // groups) * groups
    for query in unit_rows(4, seed=7) * 2.5:
        looked_at: list[int | None] = []
        for bucket in np.asarray(probed_buckets(jnp.asarray(margin_of(query, table)), table.flips)).tolist():
            inside = bucket_items(table, bucket)
            looked_at += inside + [None] * (-len(inside) % 16)
        looked_at = (looked_at + [None] * slots)[:slots]
        distance = distances(query, table)
        expected = set()
        for group in range(groups):
            members = [item for item in looked_at[group::groups] if item is not None]
            expected |= set(sorted(members, key=distance.__getitem__)[:4])
        items, counts = find_candidates(jnp.asarray(query), table, number)
        found = np.asarray(items)[np.asarray(counts)].tolist()
        assert len(found) == len(set(found))
        assert set(found) == expected


def test_as_many_codes_as_items_are_all_compared() -> None:
    tables = make_hash_tables(unit_rows(90), 3, 32, 90, True)
    assert len(tables) == 1
    assert tables[0].scanned == 90
    items, counts = find_candidates(jnp.ones(E), tables[0], 90)
    assert bool(counts.all())
    assert sorted(np.asarray(items).tolist()) == list(range(90))
    few, _ = find_candidates(jnp.ones(E), tables[0], 2)
    order = sorted(distances(np.ones(E), tables[0]).values())
    found = sorted(distances(np.ones(E), tables[0])[item] for item in np.asarray(few).tolist())
    assert len(found) == 64  # 16 groups of 4
    assert found[0] == order[0]


def test_a_query_in_an_empty_corner_gets_fewer_candidates_but_no_wrong_ones() -> None:
    vectors = unit_rows(300)
    vectors[:, 0] = np.abs(vectors[:, 0]) + 2
    table = dataclasses.replace(one_table(vectors, 100), flips=jnp.asarray(probing_order(3, 1)))
    for bucket in range(8):
        signs = np.array([1.0 if bucket >> bit & 1 else -1.0 for bit in range(3)])
        # A query with this bucket: a step from the mean along the table's normals.
        query = np.asarray(table.mean, np.float64) + 50 * np.asarray(table.planes, np.float64)[:, :3] @ signs
        own = int(np.asarray(probed_buckets(jnp.asarray(margin_of(query, table)), table.flips))[0])
        items, counts = find_candidates(jnp.asarray(query, jnp.float32), table, 64)
        found = np.asarray(items)[np.asarray(counts)].tolist()
        assert len(set(found)) == len(found)
        assert set(found) <= set(bucket_items(table, own))
        assert ((np.asarray(items) >= 0) & (np.asarray(items) < 300)).all()


@pytest.mark.parametrize("number", [1, 7, 300, 500])
def test_items_nearby_are_as_many_different_ones_as_asked_for(number: int) -> None:
    table = one_table(unit_rows(300), 50)
    for query in unit_rows(6, seed=3):
        items = np.asarray(items_nearby(jnp.asarray(query), table, number)).tolist()
        assert len(set(items)) == len(items) == min(number, 300)
    own = int(probed_buckets(jnp.asarray(margin_of(query, table)), table.flips)[0])
    inside = bucket_items(table, own)
    if number < len(inside):
        assert items == inside[:number]


# --- The smallest ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 700), st.integers(1, 200), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_smallest_takes_the_four_smallest_of_every_group(length: int, number: int, most: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, most, length).astype(np.int32)
    found = np.asarray(smallest(jnp.asarray(values), number)).tolist()
    assert len(set(found)) == len(found) >= min(number, length)
    assert set(found) <= set(range(length))
    groups = -(-number // 64) * 16
    for group in range(min(groups, length)):
        members = sorted(range(group, length, groups), key=lambda place: (values[place], place))
        assert set(members[:4]) <= set(found)
    assert values[found].min() == values.min()


def test_smallest_of_as_many_as_there_are_is_all_of_them() -> None:
    assert sorted(np.asarray(smallest(jnp.zeros(100, jnp.int32), 100)).tolist()) == list(range(100))


def test_the_largest_numbers_fit() -> None:
    """The longest list of the farthest codes that settings allow, all but one at the greatest distance."""
    values = np.full(2**20, 1025, np.int32)
    values[123_456] = 1024
    found = np.asarray(jax.jit(smallest, static_argnums=1)(jnp.asarray(values), 1))
    assert 123_456 in found
    assert len(found) == 64

"""Binary codes of items: a few candidates for a query by multi-probe table lookup and Hamming distance.

An item's code is the side on which it lies of each of some hyperplanes through the items' mean. Its first b bits name
the item's bucket in a table. A query looks into its own bucket and into those behind the hyperplanes that it lies
nearest to (multi-probe: Lv et al., VLDB 2007), counts in how many bits the codes found there differ from its own, and
keeps the items that differ least. Several tables, each with hyperplanes of its own, miss different items.

Hyperplanes come in orthogonal groups (Ji et al., NIPS 2012), which divide space more evenly than independent ones. With
`learned` codes those that choose the bucket lie in the space of the items' b leading principal directions, where items
differ most; to learn the rotation within that space as well (ITQ) was tried and found no more.
"""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from sim.envs.nearest_items import unit

WORD = 32  # bits
_ITEMS_PER_BUCKET = 32  # on average, about; fewer make the table finer and the lookup longer
_MOST_TABLE_BITS = 20
_BLOCK = 16  # items of a bucket that are fetched together
_PER_GROUP = 4  # of each group of distances so many are kept, the smallest
_SAMPLE = 100_000  # items that the principal directions are computed from
_ITEMS_AT_A_TIME = 100_000
_SCANNED_PER_ROOT = 32


@flax.struct.dataclass
class HashTable:
    """The codes of I items, sorted by bucket.

    Attributes:
        mean: [E] float32 of the items.
        planes: [E, 32 W] float32 normals of the hyperplanes; the first b are the table's.
        words: [I + 16, W] uint32 codes in the order of the buckets (and padding); bit j is bit j % 32 of word j // 32.
        items: [I] int32 which item each code belongs to.
        starts: [2^b + 1] int32 where each bucket begins.
        flips: [P, b] bool from `probing_order`.
        scanned: Static: how many codes a query is compared with; as many as there are items: all, without a lookup.
    """

    mean: jax.Array
    planes: jax.Array
    words: jax.Array
    items: jax.Array
    starts: jax.Array
    flips: jax.Array
    scanned: int = flax.struct.field(pytree_node=False)

    @property
    def num_items(self) -> int:
        """I."""
        return self.items.shape[0]


def scanned_by_default(num_items: int) -> int:
    """Returns how many codes to compare with in a catalogue of I items: in proportion to its square root."""
    return math.ceil(_SCANNED_PER_ROOT * math.sqrt(num_items))


def make_hash_tables(vectors: np.ndarray, tables: int, bits: int, scanned: int, learned: bool) -> tuple[HashTable, ...]:
    """Computes codes of items and sorts them into tables. The same items always get the same codes.

    Args:
        vectors: [I, E] unit-norm embeddings.
        tables: How many, each with codes of its own.
        bits: Of a code, a multiple of 32.
        scanned: Codes that a query is to be compared with, in all tables together. As many as items or more: one table
            is made, of which all are.
        learned: Whether the hyperplanes of the tables follow the items' principal directions.
    """
    if scanned >= len(vectors):
        tables, scanned = 1, len(vectors)
    generator = np.random.default_rng(0)
    mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
    sample = vectors[generator.permutation(len(vectors))[:_SAMPLE]] - mean
    directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1] if learned else None
    table_bits = round(math.log2(len(vectors) / _ITEMS_PER_BUCKET)) if len(vectors) > _ITEMS_PER_BUCKET else 0
    table_bits = min(max(1, table_bits), _MOST_TABLE_BITS)
    return tuple(
        _make_table(vectors, mean, draw_planes(generator, directions, mean.size, bits, table_bits), table_bits, part)
        for part in [math.ceil(scanned / tables)] * tables
    )


def draw_planes(
    generator: np.random.Generator, directions: np.ndarray | None, size: int, bits: int, table_bits: int
) -> np.ndarray:
    """Returns [E, bits] float32 random normals of hyperplanes.

    Args:
        directions: [E, E] orthonormal columns, in the leading `table_bits` of which the first `table_bits` normals are
            to lie; None for anywhere.
        size: E.
        bits: How many.
        table_bits: b.
    """
    planes = _orthogonal_groups(generator, size, bits)
    if directions is not None:
        leading = directions[:, :table_bits]
        planes[:, :table_bits] = leading @ _orthogonal_groups(generator, leading.shape[1], table_bits)
    return planes


def _orthogonal_groups(generator: np.random.Generator, size: int, number: int) -> np.ndarray:
    """Returns [size, number] float32 random unit vectors; each `size` of them are orthogonal to each other."""
    groups = generator.normal(size=(math.ceil(number / size), size, size))
    return np.concatenate(np.linalg.qr(groups)[0], axis=1)[:, :number].astype(np.float32)


def _make_table(vectors: np.ndarray, mean: np.ndarray, planes: np.ndarray, table_bits: int, scanned: int) -> HashTable:
    words = np.empty((len(vectors), planes.shape[1] // WORD), np.uint32)
    for first in range(0, len(vectors), _ITEMS_AT_A_TIME):
        above = (vectors[first : first + _ITEMS_AT_A_TIME] - mean) @ planes > 0
        words[first : first + _ITEMS_AT_A_TIME] = np.packbits(above, axis=1, bitorder="little").view("<u4")
    bucket = words[:, 0] & np.uint32(2**table_bits - 1)
    items = np.argsort(bucket, kind="stable")
    starts = np.searchsorted(bucket[items], np.arange(2**table_bits + 1))
    probes = math.ceil(scanned * 2**table_bits / len(vectors))  # buckets of average size that hold `scanned` items
    return HashTable(
        mean=jnp.asarray(mean),
        planes=jnp.asarray(planes),
        words=jnp.asarray(np.pad(words[items], ((0, _BLOCK), (0, 0)))),
        items=jnp.asarray(items, jnp.int32),
        starts=jnp.asarray(starts, jnp.int32),
        flips=jnp.asarray(probing_order(table_bits, probes)),
        scanned=scanned,
    )


def probing_order(bits: int, probes: int) -> np.ndarray:
    """Returns [P, b] bool the sets of bits to flip, those first that lead to the nearest buckets.

    How far a bucket is from a query is the sum of the query's distances to the hyperplanes between them. Column j is
    the bit of the j-th smallest distance, for which its expectation stands in (distances being half-normal), so that
    one order serves all queries (Lv et al., section 4.5); with each query's own order no more was found.
    The first set is empty: the query's own bucket.

    Args:
        bits: b.
        probes: P; at most 2^b are returned.
    """
    rank = (np.arange(1, bits + 1) - 0.375) / (bits + 0.25)  # as for half-normal plots
    expected = scipy.special.ndtri((1 + rank) / 2)
    sets = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1 == 1
    return sets[np.argsort(sets @ expected, kind="stable")[:probes]]


def find_candidates(query: jax.Array, table: HashTable, number: int) -> tuple[jax.Array, jax.Array]:
    """Returns the items whose codes differ least from a query's, among those that are looked at.

    Args:
        query: [E] of any length.
        number: S, how many to return at least; all that are looked at if these are fewer.

    Returns:
        [S or more] int32 items, and bool which of them count: these all differ, the others fill up the shape.
    """
    margin = _margin(query, table)
    code = pack_bits(margin > 0)
    if table.scanned == table.num_items:
        chosen = smallest(hamming_distance(table.words[: table.num_items], code), number)
        return table.items[chosen], jnp.ones(chosen.shape, bool)
    # A multiple of both, so that blocks are whole and groups equal.
    groups = _number_of_groups(number)
    first, end = look_up(margin, table, math.ceil(table.scanned / groups) * groups // _BLOCK)
    blocks = jax.vmap(lambda first: jax.lax.dynamic_slice_in_dim(table.words, first, _BLOCK))(first)
    position = first[:, None] + jnp.arange(_BLOCK)
    counts = position < end[:, None]
    distance = jnp.where(counts, hamming_distance(blocks, code), table.planes.shape[1] + 1)
    chosen = smallest(distance.reshape(-1), number)
    item = table.items[jnp.minimum(position.reshape(-1)[chosen], table.num_items - 1)]
    return item, counts.reshape(-1)[chosen]


def items_nearby(query: jax.Array, table: HashTable, number: int) -> jax.Array:
    """Returns [min(S, I)] int32 different items: those of a query's [E] bucket and of the next ones by number."""
    bucket = probed_buckets(_margin(query, table), table.flips[:1])[0]
    return jax.lax.dynamic_slice_in_dim(table.items, table.starts[bucket], min(number, table.num_items))


def _margin(query: jax.Array, table: HashTable) -> jax.Array:
    """Returns [32 W] signed distances of a query [E], scaled to length 1, to the hyperplanes."""
    return (unit(query) - table.mean) @ table.planes


def look_up(margin: jax.Array, table: HashTable, number: int) -> tuple[jax.Array, jax.Array]:
    """Returns [N] int32 where the blocks of items to look at begin, and where their buckets end.

    One bucket after the other in the order of probing, each from its beginning, until there are N blocks; a bucket's
    last block may reach over its end. If the buckets give fewer, blocks that begin at their own end make up for them.

    Args:
        margin: [32 W] signed distances of the query to the hyperplanes.
        number: N.
    """
    bucket = probed_buckets(margin, table.flips)
    start, end = table.starts[bucket], table.starts[bucket + 1]
    blocks = (end - start + _BLOCK - 1) // _BLOCK
    done = jnp.cumsum(blocks)
    # Which bucket a block is of: as many as have all their blocks before it.
    probe = jnp.cumsum(jnp.zeros((number,), jnp.int32).at[done].add(1, mode="drop"))
    origin = jnp.append(start - (done - blocks) * _BLOCK, 0)
    first = jnp.where(probe < len(bucket), origin[probe] + jnp.arange(number) * _BLOCK, table.num_items)
    return first, jnp.append(end, table.num_items)[probe]


def probed_buckets(margin: jax.Array, flips: jax.Array) -> jax.Array:
    """Returns [P] int32 the buckets that a query looks into, in order.

    Args:
        margin: [b or more] signed distances to the hyperplanes, the table's b first.
        flips: [P, b] from `probing_order`.
    """
    margin = margin[: flips.shape[1]]
    bucket = jnp.sum(jnp.where(margin > 0, 2 ** jnp.arange(len(margin)), 0))
    bit = 2 ** jnp.argsort(jnp.abs(margin))
    return bucket ^ jnp.sum(jnp.where(flips, bit, 0), -1)


def pack_bits(bits: jax.Array) -> jax.Array:
    """Returns [W] uint32 words of [32 W] bool; bit j is bit j % 32 of word j // 32."""
    position = jnp.arange(WORD, dtype=jnp.uint32)
    return jnp.sum(bits.reshape(-1, WORD).astype(jnp.uint32) << position, -1, dtype=jnp.uint32)


def hamming_distance(words: jax.Array, code: jax.Array) -> jax.Array:
    """Returns [...] int32 in how many bits codes [..., W] uint32 differ from another [W]."""
    return jnp.sum(jax.lax.population_count(words ^ code).astype(jnp.int32), -1)


def smallest(values: jax.Array, number: int) -> jax.Array:
    """Returns int32 positions of nearly the smallest of some values: at least `number` different ones, or all.

    Sorting takes long. Instead, values are dealt out to groups, and the few smallest of each group are taken (after
    Chern et al., 2022, who take one). Missed are values that share their group with that many smaller ones.

    Args:
        values: [n] int32, not negative, the largest times n below 2^31.
        number: How many.
    """
    groups = _number_of_groups(number)
    rows = math.ceil(len(values) / groups)
    if rows <= _PER_GROUP:
        return jnp.arange(len(values))
    none = jnp.iinfo(jnp.int32).max
    # Value and row in one number, so that a minimum tells both and all of a group differ.
    even = jnp.pad(values, (0, rows * groups - len(values)), constant_values=none // rows - 1)
    numbered = even.reshape(rows, groups) * rows + jnp.arange(rows)[:, None]

    def next_smallest(last: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        least = jnp.min(jnp.where(numbered > last, numbered, none), axis=0)
        return least, least

    _, ascending = jax.lax.scan(next_smallest, jnp.full((groups,), -1), None, length=_PER_GROUP)
    return (ascending % rows * groups + jnp.arange(groups)).reshape(-1)


def _number_of_groups(number: int) -> int:
    """Returns into how many groups values are dealt to find some of the smallest, a multiple of the block."""
    return math.ceil(number / _PER_GROUP / _BLOCK) * _BLOCK

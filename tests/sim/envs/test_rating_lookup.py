"""The rating lookup: both layouts against a dictionary, the automatic choice, memory and errors."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sim.envs.rating_lookup
from hand_made import hand_made_ratings
from harness.errors import UserError
from sim.envs.rating_lookup import make_rating_lookup
from sim.tables.ratings import RatingData

NUM_USERS, NUM_ITEMS = 6, 7


def make_table(cells, codes, shape, item_dtype, code_dtype):
    """Rating data with the given (user, item) cells, in ascending order of cell."""
    num_users, num_items = shape
    cells = np.sort(np.asarray(cells))
    lengths = np.bincount(cells // num_items, minlength=num_users)
    return RatingData(
        name="table",
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        items=(cells % num_items).astype(item_dtype),
        codes=np.asarray(codes).astype(code_dtype),
        rating_values=np.concatenate([[np.nan], np.arange(1.0, max(codes) + 1)]),
        timestamps=None,
        rating_min=1.0,
        rating_max=float(max(codes)),
        checksum="",
        source="",
        synthetic=True,
    )


def brute_force(data):
    table = np.zeros(data.shape, np.int32)
    for user in range(data.num_users):
        for row in range(data.indptr[user], data.indptr[user + 1]):
            table[user, int(data.items[row])] = int(data.codes[row])
    return table


@functools.partial(jax.jit, static_argnums=(1, 2))
def all_codes(lookup, num_users, num_items):
    users, items = jnp.arange(num_users, dtype=jnp.int32), jnp.arange(num_items, dtype=jnp.int32)
    return jax.vmap(jax.vmap(lookup.lookup, (None, 0)), (0, None))(users, items)


def check_both_layouts(data):
    expected = brute_force(data)
    for layout in ("dense", "csr"):
        found = np.asarray(all_codes(make_rating_lookup(data, layout, 0.0), *data.shape))
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected, err_msg=layout)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.data())
def test_both_layouts_equal_the_dictionary(data):
    num_ratings = data.draw(st.sampled_from([6, NUM_USERS * NUM_ITEMS]))  # few shapes, few compilations
    cells = data.draw(st.permutations(range(NUM_USERS * NUM_ITEMS)))[:num_ratings]
    code_dtype, largest = data.draw(st.sampled_from([(np.uint8, 255), (np.uint16, 65_535)]))
    codes = data.draw(st.lists(st.integers(1, largest), min_size=num_ratings, max_size=num_ratings))
    item_dtype = data.draw(st.sampled_from([np.uint16, np.int32]))
    check_both_layouts(make_table(cells, codes, (NUM_USERS, NUM_ITEMS), item_dtype, code_dtype))


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 7, 8, 9, 16, 33])
def test_rows_of_every_length_are_searched_to_their_ends(longest):
    # User 0 rates only the last item, user 1 every second item from the first, user 2 only the first item.
    num_items = 2 * longest
    cells = [num_items - 1, *(num_items + 2 * np.arange(longest)), 2 * num_items]
    codes = np.arange(len(cells)) % 255 + 1
    check_both_layouts(make_table(cells, codes, (3, num_items), np.uint16, np.uint8))


def test_more_items_than_16_bits_hold():
    num_items = 2**16 + 1
    items = np.concatenate([np.arange(num_items), [0, num_items - 1], [num_items - 2]])
    data = hand_made_ratings(
        np.repeat([0, 1, 2], [num_items, 2, 1]), items, 1.0 + np.arange(len(items)) % 5, None, None
    )
    assert data.items.dtype == np.int32
    check_both_layouts(data)


def test_more_codes_than_8_bits_hold():
    data = hand_made_ratings(
        np.repeat([0, 1], [300, 2]), np.concatenate([np.arange(300), [0, 299]]), np.arange(302.0), None, None
    )
    assert data.codes.dtype == np.uint16
    check_both_layouts(data)
    assert int(make_rating_lookup(data, "csr", 0).lookup(jnp.int32(1), jnp.int32(299))) == 302


def random_data(num_users, num_items, num_ratings, item_dtype=np.uint16, code_dtype=np.uint8):
    generator = np.random.default_rng(0)
    cells = generator.choice(num_users * num_items, num_ratings, replace=False)
    codes = generator.integers(1, 6, num_ratings)
    return make_table(cells, codes, (num_users, num_items), item_dtype, code_dtype)


@pytest.mark.parametrize(("code_dtype", "size_mb"), [(np.uint8, 0.02), (np.uint16, 0.04)])
def test_auto_chooses_dense_up_to_the_limit_and_csr_above(code_dtype, size_mb):
    data = random_data(100, 200, 500, code_dtype=code_dtype)
    at_limit = make_rating_lookup(data, "auto", size_mb)
    assert at_limit.dense is not None
    assert at_limit.items is None
    assert at_limit.nbytes == size_mb * 1e6
    above = make_rating_lookup(data, "auto", size_mb * 0.999)
    assert above.dense is None
    assert above.items is not None


def test_a_named_layout_ignores_the_limit():
    data = random_data(10, 20, 30)
    assert make_rating_lookup(data, "dense", 0).dense is not None
    assert make_rating_lookup(data, "csr", 1e9).dense is None


def test_csr_takes_three_bytes_per_rating_and_four_per_user():
    data = random_data(50, 400, 3_000)
    assert make_rating_lookup(data, "csr", 0).nbytes == 3 * 3_000 + 4 * (50 + 1)
    wide = random_data(50, 400, 3_000, np.int32, np.uint16)
    assert make_rating_lookup(wide, "csr", 0).nbytes == 6 * 3_000 + 4 * (50 + 1)


@pytest.mark.parametrize("layout", ["sparse", "", "DENSE"])
def test_unknown_layout(layout):
    with pytest.raises(UserError, match="rating_layout is"):
        make_rating_lookup(random_data(3, 4, 5), layout, 1)


def test_more_ratings_than_csr_can_address(monkeypatch):
    data = random_data(5, 8, 20)
    monkeypatch.setattr(sim.envs.rating_lookup, "MAX_CSR_RATINGS", 20)
    assert make_rating_lookup(data, "csr", 0).dense is None
    monkeypatch.setattr(sim.envs.rating_lookup, "MAX_CSR_RATINGS", 19)
    with pytest.raises(UserError, match="20 ratings exceed"):
        make_rating_lookup(data, "csr", 0)
    assert make_rating_lookup(data, "dense", 0).dense is not None

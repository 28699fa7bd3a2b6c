"""The order of rows by several keys, and blocks of whole sessions."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sim.tables import event_order
from sim.tables.event_order import blocks_of_sessions, stable_order

KEYS = st.one_of(st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63), 2**40, 2**61]))


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(rows=st.lists(st.tuples(KEYS, KEYS)))
def test_the_order_is_that_of_a_stable_sort(rows):
    first, second = np.array(rows, np.int64).reshape(-1, 2).T
    np.testing.assert_array_equal(stable_order(first, second), np.lexsort((second, first)))
    short = first.astype(np.int8)
    np.testing.assert_array_equal(stable_order(short), np.argsort(short, kind="stable"))


@pytest.mark.parametrize(("size", "expected"), [(1, [3, 4, 8]), (2, [3, 8]), (3, [3, 8]), (4, [4, 8]), (9, [8])])
def test_blocks_are_of_whole_sessions(monkeypatch, size, expected):
    monkeypatch.setattr(event_order, "ROWS_AT_A_TIME", size)
    begins = np.array([True, False, False, True, True, False, False, False])
    blocks = list(blocks_of_sessions(begins))
    assert [block.stop for block in blocks] == expected
    assert [block.start for block in blocks] == [0, *expected[:-1]]

"""Ids and their index, against NumPy."""

import numpy as np
import pytest

from sim.tables import numbering
from sim.tables.numbering import numbered

COLUMNS = {
    "ranks": [np.array([2, 0, 1, 2], np.int32)],
    "close together": [np.array([7, 5, 7], np.int32), np.array([], np.int32), np.array([-3, 5], np.int32)],
    "far apart": [np.array([2**40, 5, 7]), np.array([5, 2**31 - 1, -(2**31)], np.int32)],
    "the ends of int64": [np.array([2**63 - 1, -(2**63), 0])],
    "short integers": [np.array([-128, 127], np.int8)],
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("length", [2, 100])
def test_it_is_as_of_numpy(name, length, monkeypatch):
    monkeypatch.setattr(numbering, "_SLICE", length)
    expected = np.unique(np.concatenate(COLUMNS[name]), return_inverse=True)
    ids, index = numbered(list(COLUMNS[name]))
    np.testing.assert_array_equal(ids, expected[0], strict=True)
    np.testing.assert_array_equal(index, expected[1].astype(np.int32), strict=True)


def test_a_column_of_ranks_is_its_own_index():
    column = np.array([1, 0, 1], np.int32)
    assert numbered([column])[1] is column

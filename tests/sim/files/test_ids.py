"""Ids that arrive chunk by chunk are what they would be as one column."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest

from harness.errors import UserError
from sim.files import ids
from sim.files.ids import IdColumn, NotationError, id_array


def joined(parts: list[list], batch: int = 1 << 22) -> tuple[list, list]:
    """Returns the distinct ids, and the id of every row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "_BATCH", batch)
        column = IdColumn("user", "log.csv")
        for part in parts:
            column.add(pl.Series(part))
        index, distinct = column.finish()
    assert index.dtype == np.int32
    array = id_array(distinct)
    return array.tolist(), array[index].tolist()


TEXTS = st.sampled_from(["7", "8", "-1", "12345678901", "b", "a", "é", "", "007", "7a"])


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(parts=st.lists(st.lists(TEXTS, min_size=1), min_size=1), batch=st.sampled_from([1, 4, 100]))
def test_it_does_not_matter_how_the_column_is_cut(parts, batch):
    every = [text for part in parts for text in part]
    plain = all(text not in ("b", "a", "é", "", "007", "7a") for text in every)
    expected = [int(text) for text in every] if plain else every
    assert joined(parts, batch) == joined([every], batch) == (sorted(set(expected)), expected)


@pytest.mark.parametrize("batch", [1, 100])
def test_integers_that_some_chunks_write_as_floats_are_the_same_ids(batch):
    parts = [[7, 8], ["8.0", "9.0"], ["7", "10"], ["7.0", "11"]]
    assert joined(parts, batch) == ([7, 8, 9, 10, 11], [7, 8, 8, 9, 7, 10, 7, 11])
    assert joined([[7], ["8.0", "b"], [9]], batch) == (["7", "8.0", "9", "b"], ["7", "8.0", "b", "9"])
    for twin in ("7.0", "7.", "+7", "+7.0"):
        assert joined([[7, 8], [twin, "10"]], batch) == ([7, 8, 10], [7, 8, 7, 10])
        with pytest.raises(UserError, match="both occur"):
            joined([[7], ["a"], [twin]], batch)
    assert joined([["7."], ["8."]], batch)[0] == [7, 8]
    assert joined([["-0"], [0]], batch)[0] == [0]
    # A plus sign that all have, such as telephone numbers, belongs to them.
    assert joined([["+7"], ["+8"]], batch)[0] == ["+7", "+8"]
    assert joined([["+7"], ["8"]], batch)[0] == ["+7", "8"]


@pytest.mark.parametrize("batch", [1, 100])
def test_scientific_notation_among_numbers_is_refused(batch):
    for numbers in ([7], ["7.5"], ["", "NA", "7"], ["2e3"], ["007"]):
        with pytest.raises(NotationError, match="user '1E18' is in scientific notation"):
            joined([numbers, ["1E18"]] if "2e3" not in numbers else [["1E18"], numbers], batch)
    assert joined([["3e8"], ["3f8", "17"]], batch)[0] == ["17", "3e8", "3f8"]

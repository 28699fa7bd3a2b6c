"""Values that stand for a missing one, and ids that look alike."""

import polars as pl
import pytest

from sim.tables.placeholders import folded, stand_for_nothing


@pytest.mark.parametrize("value", ["", "NA", "<NA>", "#N/A", "NaT", "\\N", -1, " none ", "(not set)", "Guest"])
def test_names_of_nothing(value):
    assert stand_for_nothing(pl.Series([str(value)])).all()


@pytest.mark.parametrize("value", [0, 1, "0", "nancy", "u1", "1-1"])
def test_names_of_something(value):
    assert not stand_for_nothing(pl.Series([str(value)])).all()


@pytest.mark.parametrize(("one", "other"), [("é1", "e\u03011"), ("\ufeff7", "07"), ("A\u00a0", "a"), ("\uff17", "7")])
def test_ids_that_look_alike(one, other):
    assert folded(one) == folded(other)
    assert folded(one) != folded(other + "x")

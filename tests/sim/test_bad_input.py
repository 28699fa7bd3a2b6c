"""A part of the campaign of damaged files and impossible settings; `tests/bad_input.py` runs all of it."""

import bad_input
import pytest


@pytest.mark.parametrize("layout", bad_input.LAYOUTS)
def test_damaged_files_are_refused_or_read_as_they_are(layout):
    outcomes = bad_input.campaign(layout, 100)
    assert outcomes.total() >= 100
    assert outcomes["refused"] > outcomes["read"] > 0


@pytest.mark.parametrize("name", ["train, tpgr", "train_hrl_mg, events"])
def test_impossible_settings_are_refused_by_name(name):
    outcomes = bad_input.try_settings(bad_input.CONFIGURATIONS[name](), every=13)
    assert outcomes["value: refused"] > 30


def test_the_campaign_notices_a_table_that_is_silently_wrong(monkeypatch):
    layout = bad_input.LAYOUTS["netflix"]
    forgetful = layout._replace(read=lambda sources: layout.read(sources)[1:])
    with pytest.raises(AssertionError):
        bad_input.outcome(forgetful, {"mv.txt": b"1:\n2,3,2004-01-01\n3,4,2004-01-01\n"}, "plain", None)


def test_the_campaign_notices_a_lenient_reader():
    layout = bad_input.LAYOUTS["movielens_dat"]
    lenient = layout._replace(read=lambda sources: [])
    with pytest.raises(AssertionError, match="malformed"):
        bad_input.outcome(lenient, {"ratings.dat": b"1::2::x::4\n"}, "plain", None)

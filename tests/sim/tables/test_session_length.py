"""Long sessions are cut or left out, and named."""

import dataclasses

import numpy as np
import pytest

from harness.errors import UserError
from sim.tables.events import EventLog, build_event_log, with_test_sessions
from sim.tables.session_length import limit_sessions


def log(*lengths: int) -> EventLog:
    """A session of each length, of a user each; the last is for testing."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    items = np.concatenate([np.arange(length) for length in lengths])
    built = build_event_log(
        name="some",
        users=users,
        items=items,
        times=1000 * users + items,
        feedback=items % 3,
        sessions=None,
        session_gap=60.0,
        checksum="",
        source="some.csv",
        shown_probability=1 / (1 + items),
    )
    return with_test_sessions(built, np.arange(len(lengths)) == len(lengths) - 1)


def test_split_into_the_fewest_parts_of_equal_length():
    whole = log(4, 11, 5, 7)
    cut = limit_sessions(whole, 5, "split")
    assert np.bincount(cut.session).tolist() == [4, 4, 4, 3, 5, 4, 3]
    assert cut.is_test.tolist() == [False] * 5 + [True] * 2
    (note,) = cut.notes
    assert "2 sessions of more than 5 items were cut into parts of at most 5: user 1 (11), user 3 (7)" in note
    # Nothing else changes: a history knows the earlier parts.
    for field in dataclasses.fields(EventLog):
        if field.name not in ("session", "is_test", "notes"):
            np.testing.assert_array_equal(getattr(cut, field.name), getattr(whole, field.name))


def test_drop():
    kept = limit_sessions(log(4, 11, 5), 10, "drop")
    assert np.bincount(kept.session).tolist() == [4, 5]
    assert kept.user_ids.tolist() == [0, 2]
    assert kept.shown_probability.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert "1 session of more than 10 items was left out: user 1 (11)" in kept.notes[0]
    with pytest.raises(UserError, match="no events are left"):
        limit_sessions(log(4, 11, 5), 3, "drop")


def test_a_log_of_short_sessions_is_returned_as_it_is():
    short = log(4, 5)
    assert limit_sessions(short, 5, "split") is short
    many = limit_sessions(log(*range(7, 1, -1)), 2, "split")
    assert "user 0 (7), user 1 (6), user 2 (5) and 2 more" in many.notes[0]

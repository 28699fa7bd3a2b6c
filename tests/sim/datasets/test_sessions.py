"""Rows of a log's parts."""

from __future__ import annotations

import numpy as np
import pytest

from sim.datasets.sessions import SessionData
from sim.tables.events import build_event_log


@pytest.fixture(scope="module")
def data() -> SessionData:
    """A log of 20 users with one to four sessions of three events each, of whom every second one is held out."""
    users = np.repeat(np.arange(20), 3 * (1 + np.arange(20) % 4))
    rows = np.arange(len(users))
    log = build_event_log(
        name="log",
        users=users,
        items=rows % 7,
        times=10 * rows,
        feedback=rows % 3,
        sessions=rows // 3,
        session_gap=0.0,
        checksum="",
        source="here",
    )
    return SessionData(log, 7, np.arange(20) % 2 == 0)


def test_a_part_with_few_users_is_taken_whole(data):
    np.testing.assert_array_equal(data.rows_of_some_users("held_out", 10, 0), data.rows("held_out"))
    assert len(data.rows("held_out")) == 3 * 5 * (1 + 3)  # ten users, in turn with one and with three sessions


def test_of_a_part_with_many_users_some_are_drawn_with_all_of_their_rows(data):
    rows = data.rows("train")
    drawn = [data.rows_of_some_users("train", 4, seed) for seed in (0, 1)]
    for some in drawn:
        users = np.unique(data.log.user[some])
        assert len(users) == 4
        assert not data.held_out[users].any()
        np.testing.assert_array_equal(some, rows[np.isin(data.log.user[rows], users)])
    np.testing.assert_array_equal(data.rows_of_some_users("train", 4, 0), drawn[0])
    assert not np.array_equal(*drawn)

"""What was understood of a table, counted by hand."""

import dataclasses

import numpy as np
import pytest

from sim.tables import summary
from sim.tables.events import build_event_log, with_test_sessions
from sim.tables.ratings import RatingData, build_rating_data
from sim.tables.summary import log_summary, rating_summary, summary_rows, time_span

DAY = 86_400


def ratings(with_times: bool = True) -> RatingData:
    """User 0 rates three items at once and one a day later, user 1 one."""
    return build_rating_data(
        name="some",
        users=np.array([0, 0, 0, 0, 1]),
        items=np.array([5, 6, 7, 8, 5]),
        ratings=np.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        timestamps=np.array([DAY, DAY + 5, DAY + 9, 3 * DAY, DAY]) if with_times else None,
        rating_min=1.0,
        rating_max=5.0,
        checksum="",
        source="some.csv",
        synthetic=False,
    )


def test_ratings():
    found = rating_summary(ratings(), 3.0)
    assert [found[key] for key in ("users", "items", "ratings")] == [2, 4, 5]
    assert (found["share_relevant"], found["share_positive"]) == (0.4, 0.6)
    assert (found["median_ratings_per_user"], found["median_session"]) == (2.5, 1.0)
    assert found["timestamps"] == [DAY, 3 * DAY]
    positive = np.arange(6) > 3  # the reward of a symmetric scale
    assert rating_summary(ratings(), 3.0, positive)["share_positive"] == 0.4
    said = dict(summary_rows(found))
    assert said["relevant"] == "40.0% (above data.relevant_above=3)"
    assert said["a user's ratings"] == "median 2.5, and 1 within a session (no pause of half an hour)"
    assert said["time span"] == "1970-01-02 to 1970-01-04"
    assert said["repeats"] == "none"
    twice = rating_summary(dataclasses.replace(ratings(), num_repeats=1200), 3.0)
    assert dict(summary_rows(twice))["repeats"].startswith("1,200 rows repeat a user and item")


def test_ratings_without_times():
    said = dict(summary_rows(rating_summary(ratings(with_times=False), 3.0)))
    assert said["a user's ratings"] == "median 2.5"
    assert said["time span"] == "no timestamps"


def test_a_log(monkeypatch):
    built = build_event_log(
        name="some",
        users=np.array([0, 0, 0, 0, 1, 1]),
        items=np.array([5, 6, 5, 7, 5, 6]),
        times=np.array([0, 5, DAY, DAY + 1, 7, 2 * DAY]),
        feedback=np.array([0, 0, 1, 2, 0, 1]),
        sessions=None,
        session_gap=60.0,
        checksum="",
        source="some.csv",
    )
    log = with_test_sessions(built, np.array([False, True, False, False]))
    found = log_summary(log)
    assert [found[key] for key in ("users", "items", "events", "sessions", "share_test")] == [2, 3, 6, 4, 0.25]
    assert found["shares"] == {"skip": 0.5, "click": pytest.approx(1 / 3), "order": pytest.approx(1 / 6)}
    assert (found["median_session"], found["repeats"]) == (1.5, pytest.approx(1 / 6))
    assert dict(summary_rows(found))["answers"] == "skip 50.0%, click 33.3%, order 16.7%"
    # Of a large log, repeats are counted for some of the users; user 0 has one among four.
    monkeypatch.setattr(summary, "_MOST_ROWS", 3)
    assert log_summary(log)["repeats"] == 0.25
    assert log_summary(dataclasses.replace(log, item=np.arange(6)))["repeats"] == 0.0


def test_times_beyond_the_calendar():
    assert time_span([0, 10**15]) == "0 to 1,000,000,000,000,000 (not seconds since 1970)"

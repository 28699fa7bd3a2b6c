"""What is unlikely about a table is named, and ordinary tables say nothing."""

import dataclasses

import numpy as np
import pytest

from sim.tables.events import EventLog, build_event_log
from sim.tables.plausibility import log_warnings, rating_warnings
from sim.tables.ratings import RatingData, build_rating_data

NOW = 1_700_000_000


def ratings(values, users=None, items=None, times=None) -> RatingData:
    """Ratings of a user for an item each, twenty users."""
    number = len(values)
    return build_rating_data(
        name="some",
        users=np.arange(number) // 20 if users is None else np.asarray(users),
        items=np.arange(number) if items is None else np.asarray(items),
        ratings=np.asarray(values, float),
        timestamps=np.full(number, NOW) if times is None else np.asarray(times),
        rating_min=None,
        rating_max=None,
        checksum="sha256:0",
        source="some.csv",
        synthetic=False,
    )


def log(users=None, items=None, times=None, feedback=None, number=2000) -> EventLog:
    """Sessions of four events, a day apart."""
    rows = np.arange(number)
    return build_event_log(
        name="some",
        users=rows // 40 if users is None else np.asarray(users),
        items=rows % 30 if items is None else np.asarray(items),
        times=NOW + rows // 4 * 86_400 % (40 * 86_400) + rows if times is None else np.asarray(times),
        feedback=rows % 3 if feedback is None else np.asarray(feedback),
        sessions=None,
        session_gap=1800.0,
        checksum="sha256:0",
        source="some.csv",
    )


STARS = np.tile([1, 2, 3, 4, 5], 200)


def test_ordinary_tables_say_nothing():
    assert rating_warnings(ratings(STARS), 3.0) == []
    assert rating_warnings(ratings(STARS / 2), 1.5) == []
    words = np.array([f"u{n // 20:03}" for n in range(1000)])
    assert rating_warnings(ratings(STARS, users=words), 3.0) == []
    assert rating_warnings(ratings(np.tile([1, 2, 3, 5, 1], 200)), 1.5) == []  # weights of events
    dense = np.clip(np.round(np.random.default_rng(0).normal(0, 5, 1000), 2), -10, 10)
    assert rating_warnings(ratings(dense), 0.0) == []
    assert log_warnings(log()) == []
    assert log_warnings(dataclasses.replace(log(), notes=["two sessions were cut"])) == ["two sessions were cut"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.where(np.arange(1000) < 30, 99, STARS), "the rating 99 (3.0% of all) stands apart"),
        (np.where(np.arange(1000) < 30, -1, STARS * 2), "data.missing_ratings=[-1]"),
        (np.where(np.arange(1000) < 500, 0, STARS * 2), "the rating 0 (50.0% of all)"),
        (STARS / 5, "0.0% of the ratings are above data.relevant_above=3"),
        (STARS + 5.0, "100.0% of the ratings are above"),
        (STARS + 5.0, "100.0% of the ratings have a positive reward (the scale is 6 to 10)"),
    ],
)
def test_ratings_that_mean_something_else(values, said):
    assert any(said in warning for warning in rating_warnings(ratings(values), 3.0))


def test_a_rating_that_stands_apart_is_named_with_its_line():
    values = np.where(np.arange(1000) == 600, -3, STARS / 2)
    table = dataclasses.replace(ratings(values), value_places=[f"line {n}" for n in (602, 2, 3, 4, 5, 6)])
    said = rating_warnings(table, 3.0)
    assert said[0].startswith("the rating -3 (0.1% of all, first on line 602) stands apart from the others")
    assert "data.relevant_above" in said[1]


@pytest.mark.parametrize("name", ["NA", "nan", "NULL", "\\N", "-1", "Unknown"])
def test_names_of_nobody(name):
    words = np.array([f"u{n // 20:03}" for n in range(980)] + [name] * 20)
    assert any(f"there is a user {name!r}" in warning for warning in rating_warnings(ratings(STARS, users=words), 3.0))
    leave_out = """'data.missing_values=["-1"]' leaves its rows out"""
    assert log_warnings(log(users=np.where(np.arange(2000) < 40, -1, np.arange(2000) // 40))) == [
        f"there is a user -1, which often means that the user is unknown: {leave_out}"
    ]


@pytest.mark.parametrize(("first", "second"), [("a1", "A1"), ("a1", " a1"), ("007", "7"), ("07", "7.0"), ("+7", "07")])
def test_ids_that_differ_by_little(first, second):
    words = np.array([f"i{n}" for n in range(998)] + [first, second])
    [warning] = rating_warnings(ratings(STARS, items=words), 3.0)
    assert "1 item ids differ from others only by blanks, case or leading zeros" in warning
    assert repr(first) in warning


def test_one_setting_leaves_out_all_placeholders():
    words = np.array([f"u{n // 20:03}" for n in range(960)] + ["NA"] * 20 + ["null"] * 20)
    table = dataclasses.replace(ratings(STARS, users=words), missing_values=[""])
    said = [warning for warning in rating_warnings(table, 3.0) if "there is a user" in warning]
    assert len(said) == 2
    assert all("""'data.missing_values=["",NA,"null"]' leaves its rows out""" in warning for warning in said)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ([600, *[20] * 9], True),
        ([900, *[20] * 4], True),
        ([100, *[10] * 30], True),
        ([100] * 10, False),
        ([240, 80, 60, 40, 20, 10, 5], False),  # the activity of people, halved at each step
        ([500, 480, *[20] * 9], False),
        ([700, 300], False),
    ],
)
def test_of_few_users_one_who_owns_much_more_than_the_second_is_named(numbers, named):
    users = np.repeat(np.arange(len(numbers)), numbers)
    warnings = rating_warnings(ratings(np.resize(STARS, len(users)), users=users), 3.0)
    assert any("user 0 owns" in warning for warning in warnings) == named


def test_one_user_who_owns_much():
    users = np.where(np.arange(2000) < 600, 7_000, np.arange(2000) // 10)
    assert any("user 7000 owns" in warning for warning in log_warnings(log(users=users)))
    raters = np.where(np.arange(2000) < 600, 7_000, np.arange(2000) // 10)
    assert any(
        "user 7000 owns 30.0% of the ratings" in warning
        for warning in rating_warnings(ratings(np.tile(STARS, 2), users=raters), 3.0)
    )


@pytest.mark.parametrize(
    ("times", "said"),
    [(np.full(2000, NOW // 1000), "times begin in 1970-01-20, before 1990"), (np.full(2000, NOW * 3), "in the future")],
)
def test_times_of_another_unit(times, said):
    assert any(said in warning for warning in log_warnings(log(times=times + np.arange(2000))))
    assert any(said in warning for warning in rating_warnings(ratings(STARS, times=times[:1000]), 3.0))


def test_sessions_of_days():
    rows = np.arange(2000)
    common = {"name": "a", "items": rows % 30, "times": NOW + rows * 600, "feedback": rows % 3, "session_gap": 1.0}
    common |= {"users": rows // 200, "checksum": "sha256:0", "source": "a"}
    warnings = log_warnings(build_event_log(sessions=np.zeros(2000, int), **common))
    assert any("100.0% of the events are in sessions of more than a day" in warning for warning in warnings)
    assert not build_event_log(sessions=rows // 10, **common).notes


def test_logs_without_skips_or_sessions():
    assert any("are clicks or orders" in warning for warning in log_warnings(log(feedback=np.ones(2000, int))))
    few = np.where(np.arange(2000) % 40, 0, 1)
    assert any("2.5% of the events are clicks or orders" in warning for warning in log_warnings(log(feedback=few)))
    scattered = NOW + np.arange(2000) * 86_400 % (86_400 * 200)
    assert any("half of the sessions have a single event" in warning for warning in log_warnings(log(times=scattered)))

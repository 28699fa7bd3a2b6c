"""The table of a log: sessions, merged repetitions and selections, by hand and against a plain implementation."""

import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from harness.errors import UserError
from harness.reports.tables import kind_of
from sim.tables import event_order
from sim.tables.events import CLICK, HASHED, ORDER, SKIP, EventLog, build_event_log, select_events, with_test_sessions

GAP = 100.0


def build(rows: list[tuple], with_sessions: bool = False, **options) -> EventLog:
    """Builds a log from rows (user, item, time, feedback[, session])."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return build_event_log(
        name="log",
        users=columns[0],
        items=columns[1],
        times=columns[2],
        feedback=columns[3],
        sessions=columns[4] if with_sessions else None,
        session_gap=GAP,
        checksum="sha256:0",
        source="log.csv",
        **options,
    )


def as_rows(log: EventLog) -> list[tuple]:
    """Returns (user id, session, time, item id, feedback) of every row."""
    users, items = log.user_ids[log.user].tolist(), log.item_ids[log.item].tolist()
    return list(zip(users, log.session.tolist(), log.time.tolist(), items, log.feedback.tolist(), strict=True))


def test_a_log_by_hand():
    rows = [
        (7, "b", 1000, CLICK),
        (5, "a", 50, SKIP),
        (7, "a", 900, SKIP),
        (7, "b", 1100, ORDER),  # 100 seconds after the event before: the same session, where b was clicked
        (7, "b", 1201, SKIP),  # 101 seconds after it: another
    ]
    log = build(rows)
    assert as_rows(log) == [
        (5, 0, 50, "a", SKIP),
        (7, 1, 900, "a", SKIP),
        (7, 1, 1000, "b", ORDER),
        (7, 2, 1201, "b", SKIP),
    ]
    assert (log.num_events, log.num_users, log.num_items, log.num_sessions) == (4, 2, 2, 3)
    assert log.session_starts().tolist() == [0, 1, 3, 4]
    assert [log.user.dtype, log.session.dtype, log.item.dtype, log.feedback.dtype] == ["i4", "i4", "i4", "i1"]


def test_recorded_sessions_are_ordered_by_their_beginnings_even_if_users_share_their_numbers():
    rows = [(1, "a", 40, CLICK, 1), (1, "b", 10, SKIP, 2), (1, "c", 60, SKIP, 2), (2, "a", 5, CLICK, 1)]
    expected = [(1, 0, 10, "b", SKIP), (1, 0, 60, "c", SKIP), (1, 1, 40, "a", CLICK), (2, 2, 5, "a", CLICK)]
    assert as_rows(build(rows, with_sessions=True)) == expected


def test_selected_events_are_numbered_anew():
    rows = [(1, "a", 0, CLICK), (2, "b", 0, SKIP), (2, "c", 500, ORDER), (3, "b", 0, CLICK)]
    probabilities = np.arange(12).reshape(4, 3)
    log = select_events(build(rows, probabilities=probabilities), np.array([True, False, True, False]))
    assert as_rows(log) == [(1, 0, 0, "a", CLICK), (2, 1, 500, "c", ORDER)]
    assert (log.user_ids.tolist(), log.item_ids.tolist()) == ([1, 2], ["a", "c"])
    assert (log.user.tolist(), log.item.tolist()) == ([0, 1], [0, 1])
    assert log.probabilities.tolist() == [[0, 1, 2], [6, 7, 8]]
    with pytest.raises(UserError, match=r"log\.csv: no events are left"):
        select_events(log, np.zeros(2, bool))


def test_what_is_not_real_is_said():
    assert kind_of({"synthetic": False, "synthetic_skips": False, "order_proxy": ""}) == kind_of({}) == ""
    assert kind_of({"synthetic": False, "order_proxy": "a or b"}) == " (ORDERS ARE A PROXY: a or b)"
    assert kind_of({"synthetic": True, "synthetic_skips": False}) == " (SYNTHETIC)"
    assert kind_of({"synthetic": True, "synthetic_skips": True}) == " (SYNTHETIC, SAMPLED SKIPS)"


def test_impossible_columns_are_refused():
    with pytest.raises(UserError, match="holds no events"):
        build_event_log(
            name="log",
            **dict.fromkeys(["users", "items", "times", "feedback"], np.array([])),
            sessions=None,
            session_gap=GAP,
            checksum="",
            source="log.csv",
        )
    with pytest.raises(UserError, match="columns differ in length"):
        build_event_log(
            name="log",
            **dict.fromkeys(["users", "items", "times", "feedback"], np.array([1, 2])),
            sessions=np.array([1]),
            session_gap=GAP,
            checksum="",
            source="log.csv",
        )


events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 600), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(rows=events, with_sessions=st.booleans())
def test_a_log_equals_the_plain_construction(rows, with_sessions):
    sessions: list[list[tuple]] = []
    for user in sorted({row[0] for row in rows}):
        own = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        if with_sessions:
            groups = [[row for row in own if row[4] == number] for number in range(3)]
            sessions += sorted(filter(None, groups), key=lambda group: (group[0][2], group[0][4]))
            continue
        for index, row in enumerate(own):
            if index == 0 or row[2] - own[index - 1][2] > GAP:
                sessions.append([])
            sessions[-1].append(row)
    expected = []
    for number, session in enumerate(sessions):
        first = {}
        for row in session:
            first.setdefault(row[1], row)
        for item, row in first.items():
            strongest = max(other[3] for other in session if other[1] == item)
            expected.append((row[0], number, row[2], item, strongest))
    assert as_rows(build(rows, with_sessions)) == expected


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(rows=events, with_sessions=st.booleans(), second=st.integers(0, 600))
def test_a_log_does_not_depend_on_how_many_users_are_sorted_at_a_time(rows, with_sessions, second):
    whole = build(rows, with_sessions, first_test_second=lambda _: second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_order, "ROWS_AT_A_TIME", 3)
        parts = build(rows, with_sessions, first_test_second=lambda _: second)
    for name in (*HASHED, "cut_sessions"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_the_probability_of_what_was_shown_follows_its_row():
    random = np.random.default_rng(0)
    users, items = random.integers(0, 5, 60), random.integers(0, 30, 60)
    log = build_event_log(
        name="log",
        users=users,
        items=items,
        times=random.integers(0, 10_000, 60),
        feedback=random.integers(0, 3, 60),
        sessions=None,
        session_gap=500.0,
        checksum="none",
        source="hand-made",
        shown_probability=(items + 1) / 64,
    )
    part = select_events(log, log.item % 3 > 0)
    split = with_test_sessions(part, random.random(part.num_sessions) < 0.5)
    for one in (log, part, split):
        assert one.shown_probability is not None
        assert one.shown_probability.dtype == np.float32
        np.testing.assert_array_equal(one.shown_probability, (one.item_ids[one.item] + 1) / 64)


def test_rows_without_a_session_are_cut_where_the_user_pauses():
    times = np.array([0, 10, 5_000, 20, 30, 40])
    log = build_event_log(
        name="some",
        users=np.array([1, 1, 1, 1, 2, 2]),
        items=np.arange(6),
        times=times,
        feedback=np.ones(6, int),
        sessions=np.array([-1, 7, -1, -1, -1, 7]),
        session_gap=1800.0,
        checksum="sha256:0",
        source="some.csv",
    )
    of_time = dict(zip(zip(log.user.tolist(), log.time.tolist(), strict=True), log.session.tolist(), strict=True))
    assert len(set(of_time.values())) == 5
    assert of_time[0, 0] == of_time[0, 20] != of_time[0, 5_000]  # user 1
    assert of_time[0, 10] not in (of_time[0, 0], of_time[0, 5_000])
    assert of_time[1, 30] != of_time[1, 40]


def test_a_session_that_goes_on_after_the_split_is_cut_there():
    rows = [
        (1, "a", 80, CLICK, 1),
        (1, "b", 90, SKIP, 1),
        (1, "b", 130, ORDER, 1),  # of an item that was shown before
        (1, "c", 120, SKIP, 1),
        (1, "d", 110, CLICK, 2),  # another session, between the two parts
        (2, "a", 20, SKIP, 1),
        (3, "a", 100, CLICK, 1),
    ]
    log = build(rows, with_sessions=True, first_test_second=lambda starts: int(starts.max()) - 10)  # 100
    assert log.cut_sessions == 1
    assert as_rows(log) == [
        (1, 0, 80, "a", CLICK),
        (1, 0, 90, "b", SKIP),
        (2, 1, 20, "a", SKIP),
        (1, 2, 110, "d", CLICK),
        (1, 3, 120, "c", SKIP),
        (1, 3, 130, "b", ORDER),
        (3, 4, 100, "a", CLICK),
    ]
    assert log.is_test.tolist() == [False, False, True, True, True]
    assert log.ordered_at[log.feedback == ORDER].tolist() == [4]
    whole = build(rows, with_sessions=True)
    assert (whole.cut_sessions, whole.num_sessions, whole.is_test.any()) == (0, 4, False)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(rows=events, with_sessions=st.booleans(), second=st.integers(0, 600))
def test_no_training_row_holds_an_answer_of_the_test_part(rows, with_sessions, second):
    earlier = [row for row in rows if row[2] < second]
    log = build(rows, with_sessions, first_test_second=lambda _: second)
    training = [row for row, test in zip(as_rows(log), log.in_test_part(), strict=True) if not test]
    assert training == (as_rows(build(earlier, with_sessions)) if earlier else [])


@pytest.mark.parametrize("with_sessions", [False, True])
def test_building_takes_little_more_memory_than_the_log(monkeypatch, with_sessions):
    monkeypatch.setattr(event_order, "ROWS_AT_A_TIME", 5_000)
    random, number = np.random.default_rng(0), 200_000
    user, item = (np.append(np.arange(size), random.integers(0, size, number - size)) for size in (5_000, 3_000))
    columns = {
        "users": user.astype(np.int32),
        "items": item.astype(np.int32),
        "times": random.integers(0, 10**6, number),
    }
    columns["feedback"] = random.integers(0, 3, number).astype(np.int8)
    columns["sessions"] = random.integers(0, 30, number).astype(np.int32) if with_sessions else None
    tracemalloc.start()
    try:
        log = build_event_log(name="log", **columns, session_gap=GAP, checksum="", source="log.csv")
        peak = tracemalloc.get_traced_memory()[1] / number
    finally:
        tracemalloc.stop()
    assert log.num_events > 0.9 * number
    assert peak < 52, "bytes a row, of which the log has 33"

"""The histories before every row of a log against lists in plain Python: nothing in them is of a later time."""

import functools
import os
from pathlib import Path

import hydra
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_log
from harness.settings import read_settings
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.envs.histories import Histories, HistoryTable, add_feedback, make_history_table
from sim.files.event_readers import read_events
from sim.tables.events import CLICK, ORDER, SKIP, EventLog, build_event_log, with_test_sessions
from sim.tables.skip_sampling import add_sampled_skips

PAD = -1


def empty_histories(length: int) -> Histories:
    nothing = jnp.full((length,), -1, jnp.int32)
    return Histories(nothing, nothing, nothing)


def log_of(rows: list[tuple[int, int, int]]) -> EventLog:
    """A log of rows (user, item, feedback) whose users are in ascending order; all of one user are one session."""
    return hand_made_log(*zip(*rows, strict=True))


def oracle(seen: list[tuple[int, int]], length: int) -> dict[str, list[int]]:
    """The last items of (item, feedback) that one user saw, oldest first, padded in front."""

    def last(least: int) -> list[int]:
        items = [item for item, feedback in seen if feedback >= least][-length:]
        return [PAD] * (length - len(items)) + items

    return {"browsed": last(SKIP), "clicked": last(CLICK), "ordered": last(ORDER)}


def seen_before(rows: list[tuple[int, int, int]], row: int) -> list[tuple[int, int]]:
    """What the user of a row saw before it."""
    return [(item, feedback) for user, item, feedback in rows[:row] if user == rows[row][0]]


@functools.partial(jax.jit, static_argnums=2)
def look_up(table, rows, length):
    return jax.vmap(lambda row: table.before(row, length))(rows)


def as_lists(histories: Histories) -> list[dict[str, list[int]]]:
    """Batched histories as one dictionary of lists per row."""
    columns = {name: np.asarray(getattr(histories, name)) for name in ("browsed", "clicked", "ordered")}
    assert {column.dtype for column in columns.values()} == {np.dtype(np.int32)}
    return [
        {name: column[index].tolist() for name, column in columns.items()} for index in range(len(columns["browsed"]))
    ]


def test_histories_by_hand():
    rows = [
        (4, 10, CLICK),
        (4, 11, SKIP),
        (4, 12, ORDER),
        (4, 13, CLICK),
        (7, 20, SKIP),  # another user: nothing of the first
        (7, 21, ORDER),
    ]
    before = look_up(make_history_table(log_of(rows)), jnp.arange(6), 2)
    np.testing.assert_array_equal(before.browsed, [[-1, -1], [-1, 10], [10, 11], [11, 12], [-1, -1], [-1, 20]])
    np.testing.assert_array_equal(before.clicked, [[-1, -1], [-1, 10], [-1, 10], [10, 12], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(before.ordered, [[-1, -1], [-1, -1], [-1, -1], [-1, 12], [-1, -1], [-1, -1]])


@pytest.mark.parametrize("feedback", [SKIP, CLICK, ORDER])
def test_a_log_of_one_kind_of_feedback(feedback):
    rows = [(user, 5 * user + number, feedback) for user in range(2) for number in range(3)]
    table = make_history_table(log_of(rows))
    found = as_lists(look_up(table, jnp.arange(6), 2))
    assert found == [oracle(seen_before(rows, row), 2) for row in range(6)]


def test_an_order_counts_as_a_click_and_a_click_as_browsed():
    histories = add_feedback(empty_histories(2), jnp.int32(3), jnp.int32(ORDER))
    assert [history.tolist() for history in jax.tree.leaves(histories)] == [[-1, 3]] * 3
    histories = add_feedback(histories, jnp.int32(4), jnp.int32(CLICK))
    assert [h.tolist() for h in (histories.browsed, histories.clicked, histories.ordered)] == [[3, 4], [3, 4], [-1, 3]]
    histories = add_feedback(histories, jnp.int32(5), jnp.int32(SKIP))
    assert [h.tolist() for h in (histories.browsed, histories.clicked, histories.ordered)] == [[4, 5], [3, 4], [-1, 3]]


def test_the_table_costs_about_sixteen_bytes_per_row():
    rows = [(number // 100, number % 50, SKIP) for number in range(10_000)]
    assert make_history_table(log_of(rows)).nbytes == pytest.approx(160_000, rel=0.01)


NUM_ROWS = 24
logs = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 9), st.sampled_from([SKIP, SKIP, CLICK, ORDER])),
    min_size=NUM_ROWS,
    max_size=NUM_ROWS,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(rows=logs, length=st.sampled_from([1, 3, 10]))
def test_the_histories_before_every_row_equal_the_oracle(rows, length):
    before = as_lists(look_up(padded(make_history_table(log_of(rows))), jnp.arange(NUM_ROWS), length))
    assert before == [oracle(seen_before(rows, row), length) for row in range(NUM_ROWS)]


def padded(table: HistoryTable, size: int = NUM_ROWS) -> HistoryTable:
    """The table with its arrays at one length, so that one compilation serves all logs."""

    def fill(values):
        # 99 is no item of any log: it must never be found.
        return jnp.concatenate([values, jnp.full((2 * size + 1 - len(values),), 99, jnp.int32)])

    return jax.tree.map(fill, table)


@functools.partial(jax.jit, static_argnums=2)
def add_all(items, feedback, length):
    def step(histories, row):
        return add_feedback(histories, *row), histories

    return jax.lax.scan(step, empty_histories(length), (items, feedback))[1]


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(rows=logs, length=st.sampled_from([1, 3, 10]))
def test_answers_added_one_at_a_time_give_the_histories_of_the_log_with_those_rows(rows, length):
    rows = [(0, item, feedback) for _, item, feedback in rows]  # one user
    log = log_of(rows)
    added = as_lists(add_all(jnp.asarray(log.item), jnp.asarray(log.feedback, jnp.int32), length))
    assert added == as_lists(look_up(padded(make_history_table(log)), jnp.arange(NUM_ROWS), length))


# Time: whatever is repeated, overlaps or was sampled, a history knows what happened earlier and nothing else

GAP = 60.0
Happened = list[tuple[int, int, int, int, int]]
"""Events of a log in the order of time and then of the source: user, item, time, feedback, session."""


def build(rows: Happened, with_sessions: bool) -> EventLog:
    users, items, times, feedback, sessions = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"users": users, "items": items, "times": times, "feedback": feedback}
    columns["sessions"] = sessions if with_sessions else None
    return build_event_log(name="log", **columns, session_gap=GAP, checksum="none", source="hand-made")


def split_late(log: EventLog, share: float) -> tuple[EventLog, np.ndarray]:
    """The log with the latest of its sessions for testing, and the number that each session has in it."""
    begins = log.time[log.session_starts()[:-1]]
    late = begins > np.quantile(begins, share)
    return with_test_sessions(log, late), np.argsort(np.argsort(late, kind="stable"))


def sessions_of(rows: Happened, with_sessions: bool) -> list[int]:
    """The session of each event in a log that is not split yet."""
    names: list[tuple] = []
    last: dict[int, tuple[int, int]] = {}  # time and session of each user's last event
    for number, (user, _, time, _, session) in enumerate(rows):
        before, same = last.get(user, (-1_000, 0))
        last[user] = (time, same if time - before <= GAP else number)
        names.append((user, session if with_sessions else last[user][1]))
    begins = {name: row[2] for name, row in reversed([*zip(names, rows, strict=True)])}
    in_order = sorted(begins, key=lambda name: (name[0], begins[name], name[1]))
    return [in_order.index(name) for name in names]


def earlier_answers(log: EventLog, rows: Happened, sessions: list[int]) -> list[dict[str, list[int]]]:
    """What was browsed, clicked and ordered before each row of a log, by going through what happened.

    Of a training row, what happened in test sessions is left out.

    Args:
        sessions: Of each event, as the log numbers them.
    """
    found = []
    for user, item, session in zip(log.user, log.item, log.session, strict=True):
        seen: dict[str, list[int]] = {"browsed": [], "clicked": [], "ordered": []}
        known: dict[tuple[int, int], int] = {}
        for (event_user, event_item, _, feedback, _), of_session in zip(rows, sessions, strict=True):
            number = int(np.searchsorted(log.item_ids, event_item))
            if (of_session, number) == (session, item):
                break
            if event_user != log.user_ids[user] or log.is_test[of_session] > log.is_test[session]:
                continue
            before = known.get((of_session, number), -1)
            for kind, name in enumerate(seen):
                if before < kind <= feedback:
                    seen[name].append(number)
            known[of_session, number] = max(before, feedback)
        found.append(seen)
    return found


happened = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 5),
        st.integers(0, 300),
        st.sampled_from([SKIP, CLICK, CLICK, ORDER]),
        st.integers(0, 2),
    ),
    min_size=4,
    max_size=NUM_ROWS,
).map(lambda rows: sorted(rows, key=lambda row: row[2]))


def all_histories(log: EventLog, size: int, length: int) -> list[dict[str, list[int]]]:
    """The histories before every row of a log of at most `size` rows, which is what is compiled."""
    rows = jnp.minimum(jnp.arange(size), log.num_events - 1)
    return as_lists(look_up(padded(make_history_table(log), size), rows, length))[: log.num_events]


def in_lists(seen: dict[str, list[int]], length: int) -> dict[str, list[int]]:
    """Lists cut and padded as histories are."""
    return {name: [PAD] * (length - len(items)) + items[-length:] for name, items in seen.items()}


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(rows=happened, with_sessions=st.booleans(), share=st.sampled_from([0.3, 0.6, 1.0]))
def test_no_history_holds_what_happened_later(rows, with_sessions, share):
    log, number = split_late(build(rows, with_sessions), share)
    sessions = [int(number[session]) for session in sessions_of(rows, with_sessions)]
    expected = [in_lists(seen, 6) for seen in earlier_answers(log, rows, sessions)]
    assert all_histories(log, NUM_ROWS, 6) == expected


def test_an_order_after_a_view_is_known_from_its_own_time_on():
    # A page is looked at, others are, then it is bought; meanwhile in another tab (session 1) the user goes on.
    rows = [
        (7, 10, 0, CLICK, 0),
        (7, 11, 60, CLICK, 0),
        (7, 20, 90, CLICK, 1),
        (7, 12, 120, SKIP, 0),
        (7, 21, 600, SKIP, 1),  # the same second as the order, and before it in the log
        (7, 10, 600, ORDER, 0),
        (7, 22, 600, SKIP, 1),
    ]
    log = build(rows, with_sessions=True)
    assert log.item_ids[log.item].tolist() == [10, 11, 12, 20, 21, 22]
    assert log.feedback.tolist() == [ORDER, CLICK, SKIP, CLICK, SKIP, SKIP]
    before = look_up(make_history_table(log), jnp.arange(6), 4)
    ids = np.append(log.item_ids, -1)
    np.testing.assert_array_equal(
        ids[np.asarray(before.browsed)],
        [
            *([-1, -1, -1, -1], [-1, -1, -1, 10], [-1, 10, 11, 20]),
            *([-1, -1, 10, 11], [10, 11, 20, 12], [11, 20, 12, 21]),
        ],
    )
    np.testing.assert_array_equal(ids[np.asarray(before.ordered)][:, -1], [-1, -1, -1, -1, -1, 10])
    np.testing.assert_array_equal(ids[np.asarray(before.clicked)][:, -1], [-1, 10, 20, 11, 20, 20])


def test_a_training_session_that_goes_on_beside_a_test_session_knows_nothing_of_it():
    rows = [(0, 1, 0, CLICK, 0), (0, 2, 50, CLICK, 1), (0, 3, 60, SKIP, 0), (0, 4, 70, SKIP, 1)]
    log = with_test_sessions(build(rows, with_sessions=True), np.array([False, True]))
    assert log.item_ids[log.item].tolist() == [1, 3, 2, 4]
    before = look_up(make_history_table(log), jnp.arange(4), 3)
    np.testing.assert_array_equal(before.browsed, [[-1, -1, -1], [-1, -1, 0], [-1, -1, 0], [0, 1, 2]])
    np.testing.assert_array_equal(before.clicked, [[-1, -1, -1], [-1, -1, 0], [-1, -1, 0], [-1, 0, 1]])


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(rows=happened, with_sessions=st.booleans(), share=st.sampled_from([0.3, 1.0]))
def test_sampled_skips_leave_the_answers_in_their_order(rows, with_sessions, share):
    rows = [(user, item, time, max(feedback, CLICK), session) for user, item, time, feedback, session in rows]
    log, _ = split_late(build(rows, with_sessions), share)
    full = add_sampled_skips(log, per_event=2.0, popularity_power=0.5, seed=0)
    before, after = (all_histories(one, 3 * NUM_ROWS, 6) for one in (log, full))
    recorded = (after[row] for row in np.flatnonzero(full.feedback != SKIP))
    for row, found in zip(before, recorded, strict=True):
        assert (row["clicked"], row["ordered"]) == (found["clicked"], found["ordered"])
    # A skip knows answers that were given before it, and stands in time where it stands in the log.
    for row in np.flatnonzero(full.feedback == SKIP):
        own = (full.user == full.user[row]) & (full.is_test[full.session] <= full.is_test[full.session[row]])
        given = {int(item) for item in full.item[own & (full.clicked_at >= 0) & (full.clicked_at < full.shown_at[row])]}
        assert {item for item in after[row]["clicked"] if item != PAD} <= given
        assert (full.time[own & (full.shown_at < full.shown_at[row])] <= full.time[row]).all()
        assert (full.time[own & (full.shown_at > full.shown_at[row])] >= full.time[row]).all()


REAL = os.environ.get("TPGR_JAX_DATA")


@pytest.mark.skipif(
    REAL is None or not Path(REAL, "jdata-sample").is_dir(),
    reason="set TPGR_JAX_DATA to a folder with jdata-sample/JData_Action_*.csv.gz",
)
def test_no_history_of_real_jdata_holds_what_happened_later(tmp_path):
    with hydra.initialize_config_module("conf", version_base="1.3"):
        composed = hydra.compose("data_statistics", ["data=jdata", f"data.cache={tmp_path}", "data.skips_per_event=0"])
    setting = read_settings(LogConfig, composed.data, "data")
    log = load_log(setting)
    columns = read_events("events_table", setting.stored_sources(), setting.event_layout(), setting.limits, [])
    row_of = {
        (user, time, item): row
        for row, (user, time, item) in enumerate(
            zip(log.user_ids[log.user].tolist(), log.time.tolist(), log.item_ids[log.item].tolist(), strict=True)
        )
    }
    found = as_lists(look_up(make_history_table(log), jnp.arange(log.num_events), 10))
    # Go through what happened: an event that is the first of its item in a session is a row.
    seen, known, last, checked, moved = {}, {}, (None, 0), 0, 0
    order = np.lexsort((columns.times, columns.users))
    users, items = columns.user_ids[columns.users[order]].tolist(), columns.item_ids[columns.items[order]].tolist()
    times, answers = columns.times[order].tolist(), columns.feedback[order].tolist()
    for user, item, time, answer in zip(users, items, times, answers, strict=True):
        if user != last[0]:
            seen = {"browsed": [], "clicked": [], "ordered": []}
        if user != last[0] or time - last[1] > setting.session_gap:
            known = {}
        last = (user, time)
        number = int(np.searchsorted(log.item_ids, item))
        if number not in known:
            assert found[row_of[user, time, item]] == in_lists(seen, 10)
            checked += 1
        moved += known.get(number, ORDER) < answer == ORDER
        for kind, name in enumerate(seen):
            if known.get(number, -1) < kind <= answer:
                seen[name].append(number)
        known[number] = max(known.get(number, -1), answer)
    assert checked == log.num_events > 10_000
    assert moved > 100  # orders that came after the session's first look at the item

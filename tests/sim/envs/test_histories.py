"""The histories before and after every row of a log against lists in plain Python."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sim.envs.histories import Histories, add_feedback, make_history_table
from sim.tables.events import CLICK, ORDER, SKIP, EventLog

PAD = -1


def empty_histories(length: int) -> Histories:
    nothing = jnp.full((length,), -1, jnp.int32)
    return Histories(nothing, nothing, nothing)


def log_of(rows: list[tuple[int, int, int]]) -> EventLog:
    """A log of rows (user, item, feedback) whose users are in ascending order; all of one user are one session."""
    user, item, feedback = (np.array(column) for column in zip(*rows, strict=True))
    users, number = np.unique(user, return_inverse=True)
    return EventLog(
        name="hand-made",
        user=number.astype(np.int32),
        session=number.astype(np.int32),
        time=np.arange(len(rows)),
        item=item.astype(np.int32),
        feedback=feedback.astype(np.int8),
        user_ids=users,
        item_ids=np.arange(item.max() + 1),
        checksum="none",
        source="hand-made",
        synthetic=True,
        synthetic_skips=False,
    )


def oracle(seen: list[tuple[int, int]], length: int) -> dict[str, list[int]]:
    """The last items of (item, feedback) that one user saw, oldest first, padded in front."""

    def last(least: int) -> list[int]:
        items = [item for item, feedback in seen if feedback >= least][-length:]
        return [PAD] * (length - len(items)) + items

    return {"browsed": last(SKIP), "clicked": last(CLICK), "ordered": last(ORDER)}


def seen_before(rows: list[tuple[int, int, int]], row: int) -> list[tuple[int, int]]:
    """What the user of a row saw before it."""
    return [(item, feedback) for user, item, feedback in rows[:row] if user == rows[row][0]]


@functools.partial(jax.jit, static_argnums=(2, 3))
def look_up(table, rows, length, which):
    return jax.vmap(lambda row: getattr(table, which)(row, length))(rows)


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
    table = make_history_table(log_of(rows))
    numbers = jnp.arange(6)
    before = look_up(table, numbers, 2, "before")
    np.testing.assert_array_equal(before.browsed, [[-1, -1], [-1, 10], [10, 11], [11, 12], [-1, -1], [-1, 20]])
    np.testing.assert_array_equal(before.clicked, [[-1, -1], [-1, 10], [-1, 10], [10, 12], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(before.ordered, [[-1, -1], [-1, -1], [-1, -1], [-1, 12], [-1, -1], [-1, -1]])
    after = look_up(table, numbers, 2, "after")
    np.testing.assert_array_equal(after.browsed, [[-1, 10], [10, 11], [11, 12], [12, 13], [-1, 20], [20, 21]])
    np.testing.assert_array_equal(after.clicked, [[-1, 10], [-1, 10], [10, 12], [12, 13], [-1, -1], [-1, 21]])
    np.testing.assert_array_equal(after.ordered, [[-1, -1], [-1, -1], [-1, 12], [-1, 12], [-1, -1], [-1, 21]])


@pytest.mark.parametrize("feedback", [SKIP, CLICK, ORDER])
def test_a_log_of_one_kind_of_feedback(feedback):
    rows = [(user, 5 * user + number, feedback) for user in range(2) for number in range(3)]
    table = make_history_table(log_of(rows))
    found = as_lists(look_up(table, jnp.arange(6), 2, "before"))
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
def test_before_and_after_every_row_equal_the_oracle(rows, length):
    table = padded(make_history_table(log_of(rows)))
    numbers = jnp.arange(NUM_ROWS)
    before = as_lists(look_up(table, numbers, length, "before"))
    after = as_lists(look_up(table, numbers, length, "after"))
    for row in range(NUM_ROWS):
        seen = seen_before(rows, row)
        assert before[row] == oracle(seen, length)
        assert after[row] == oracle([*seen, rows[row][1:]], length)


def padded(table):
    """The table with its lists of clicks and orders at one length, so that one compilation serves all logs."""

    def fill(items):
        # 99 is no item of any log: it must never be found.
        return jnp.concatenate([items, jnp.full((NUM_ROWS + 1 - len(items),), 99, jnp.int32)])

    return table.replace(clicked=fill(table.clicked), ordered=fill(table.ordered))


@functools.partial(jax.jit, static_argnums=2)
def add_all(items, feedback, length):
    def step(histories, row):
        histories = add_feedback(histories, *row)
        return histories, histories

    return jax.lax.scan(step, empty_histories(length), (items, feedback))[1]


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(rows=logs, length=st.sampled_from([1, 3, 10]))
def test_answers_added_one_at_a_time_give_the_histories_of_the_log_with_those_rows(rows, length):
    rows = [(0, item, feedback) for _, item, feedback in rows]  # one user
    log = log_of(rows)
    table = padded(make_history_table(log))
    added = as_lists(add_all(jnp.asarray(log.item), jnp.asarray(log.feedback, jnp.int32), length))
    assert added == as_lists(look_up(table, jnp.arange(NUM_ROWS), length, "after"))
    assert added == [oracle([row[1:] for row in rows[: end + 1]], length) for end in range(NUM_ROWS)]

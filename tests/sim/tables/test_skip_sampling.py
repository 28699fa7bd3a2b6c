"""Sampled skips: no item of the session, the right number, popularity and places, and nothing of the future."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sim.evaluation.ranking_metrics import average_precision
from sim.tables import skip_sampling
from sim.tables.events import CLICK, SKIP, EventLog, build_event_log, with_test_sessions
from sim.tables.skip_sampling import add_sampled_skips

ARRAYS = ("user", "session", "time", "item", "feedback")


def make_log(users, items, times) -> EventLog:
    return build_event_log(
        name="log",
        users=np.asarray(users),
        items=np.asarray(items),
        times=np.asarray(times),
        feedback=np.full(len(users), CLICK),
        sessions=None,
        session_gap=50.0,
        checksum="sha256:0",
        source="log.csv",
    )


def split(log: EventLog, share: float = 0.7) -> EventLog:
    """The log with its latest sessions for testing."""
    begins = log.time[log.session_starts()[:-1]]
    return with_test_sessions(log, begins > np.quantile(begins, share))


def large_log(num_events: int = 30_000, num_items: int = 500) -> EventLog:
    random = np.random.default_rng(3)
    items = (random.random(num_events) ** 2 * num_items).astype(int)
    return make_log(random.integers(0, 3_000, num_events), items, random.integers(0, 10_000, num_events))


def assert_sound(log: EventLog, full: EventLog, exclude: str = "session") -> None:
    """Checks everything that must hold of a log with sampled skips."""
    recorded = full.feedback != SKIP
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(full, name)[recorded], getattr(log, name))
        assert getattr(full, name).dtype == getattr(log, name).dtype
    np.testing.assert_array_equal(full.is_test, log.is_test)
    # Items of the training part, none twice in a session, and with exclude=past none that the user had before.
    known = np.unique(log.item[~log.in_test_part()])
    assert np.isin(full.item[~recorded], known).all()
    pairs = list(zip(full.session.tolist(), full.item.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    if exclude == "past":
        begins = full.shown_at[full.session_starts()[:-1]]
        for row in np.flatnonzero(~recorded):
            same = recorded & (full.user == full.user[row]) & (full.item == full.item[row])
            assert not (full.shown_at[same] < begins[full.session[row]]).any()
    # In the order of places, which is that of time; every user's places are different.
    assert (np.diff(full.session) >= 0).all()
    owner = log.user[log.session_starts()[:-1]]
    np.testing.assert_array_equal(owner[full.session], full.user)
    order = np.lexsort((full.shown_at, full.user))
    same_user = np.diff(full.user[order]) == 0
    assert (np.diff(full.shown_at[order])[same_user] > 0).all()
    assert (np.diff(full.time[order])[same_user] >= 0).all()
    assert (np.diff(full.shown_at)[np.diff(full.session) == 0] > 0).all()
    np.testing.assert_array_equal(full.clicked_at, np.where(recorded, full.shown_at, -1))
    assert full.synthetic_skips


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 400)), min_size=1, max_size=40)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    rows=rows,
    per_event=st.sampled_from([0.0, 0.4, 1.0, 9.0]),
    power=st.sampled_from([0.0, 0.5, 1.0]),
    exclude=st.sampled_from(["session", "past"]),
    share=st.sampled_from([0.5, 1.0]),
)
def test_skips_of_any_log_are_sound(rows, per_event, power, exclude, share):
    log = split(make_log(*zip(*rows, strict=True)), share)
    full = add_sampled_skips(log, per_event=per_event, popularity_power=power, seed=1, exclude=exclude)
    assert_sound(log, full, exclude)


@pytest.mark.parametrize("per_event", [9.0, 1.5, 0.3])
def test_the_number_of_skips_is_as_asked_for(per_event):
    log = large_log()
    full = add_sampled_skips(log, per_event=per_event, popularity_power=0.5, seed=0)
    assert_sound(log, full)
    asked = per_event * log.num_events
    assert abs(full.num_events - log.num_events - asked) <= 4 * np.sqrt(asked * (per_event % 1)) + 1


def test_the_seed_and_nothing_else_decides(monkeypatch):
    log = large_log(3_000)
    first, second, other = (
        add_sampled_skips(log, per_event=9.0, popularity_power=0.5, seed=seed) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.item, second.item)
    assert not np.array_equal(first.item, other.item)
    monkeypatch.setattr(skip_sampling, "_CHUNK_SKIPS", 500)
    in_parts = add_sampled_skips(log, per_event=9.0, popularity_power=0.5, seed=4)
    assert_sound(log, in_parts)
    assert in_parts.num_events == first.num_events


def test_popular_items_are_skipped_more_often():
    # 500 users with one event of an item of their own; items 0 and 1 are touched by 90 and 10 further users.
    items = np.concatenate([np.arange(2, 502), np.zeros(90, int), np.ones(10, int)])
    log = make_log(np.arange(600), items, np.zeros(600))
    for power, ratio in ((0.0, 1.0), (0.5, 3.0), (1.0, 9.0)):
        draws = [add_sampled_skips(log, per_event=1.0, popularity_power=power, seed=seed) for seed in range(120)]
        # Only users who can get either item.
        drawn = np.concatenate([full.item[(full.feedback == SKIP) & (full.user < 500)] for full in draws])
        counts = np.bincount(drawn, minlength=2)[:2]
        error = ratio * np.sqrt((1 / counts).sum())
        assert abs(counts[0] / counts[1] - ratio) < 4 * error


def test_places_in_a_session_tell_nothing_of_answers():
    log = large_log(6_000)
    full = add_sampled_skips(log, per_event=4.0, popularity_power=0.5, seed=0)
    starts = full.session_starts()
    length = np.diff(starts)
    # Every place of a session is as likely as any other to be a recorded event's: also the first and the last.
    recorded = full.feedback != SKIP
    share = np.add.reduceat(recorded, starts[:-1]) / length
    for rows in (starts[:-1], starts[1:] - 1, starts[:-1] + length // 2):
        error = 4 * np.sqrt(np.mean(share * (1 - share)) / len(share))
        assert abs(recorded[rows].mean() - share.mean()) < error
    # So a session read backwards ranks as random orders do.
    wide = np.arange(length.max()) < length[:, None]
    clicked = np.zeros(wide.shape, bool)
    clicked[wide] = recorded
    backwards = np.take_along_axis(clicked, np.argsort(np.where(wide, -np.arange(length.max()), 1), axis=1), 1)
    keys = np.where(wide, np.random.default_rng(0).random(wide.shape), 2)
    shuffled = np.take_along_axis(clicked, np.argsort(keys, axis=1), 1)
    reference = average_precision(shuffled)
    for order in (clicked, backwards):
        error = 4 * np.std(reference) * np.sqrt(2 / len(reference))
        assert abs(average_precision(order).mean() - reference.mean()) < error


def test_a_skip_has_the_time_of_the_event_before_or_after_it():
    # One session of ten items at ten times, and 1,000 items that only the other user touched.
    log = make_log([0] * 10 + [1] * 1_000, range(1_010), [*range(0, 100, 10), *range(5_000, 6_000)])
    full = add_sampled_skips(log, per_event=90.0, popularity_power=0.5, seed=0)
    own = full.user == 0
    feedback, time = full.feedback[own], full.time[own]
    assert (feedback == SKIP).sum() == 900
    assert full.item[own][feedback == CLICK].tolist() == list(range(10))
    before = 10 * (np.cumsum(feedback == CLICK) - 1)[feedback == SKIP]
    earlier = time[feedback == SKIP] == before
    inside = (before >= 0) & (before < 90)
    assert (earlier | (time[feedback == SKIP] == before + 10)).all()
    assert abs(earlier[inside].mean() - 0.5) < 2 / np.sqrt(inside.sum())


def test_the_test_part_changes_nothing_of_the_training_part():
    random = np.random.default_rng(5)
    users, times = random.integers(0, 200, 3_000), random.integers(0, 10_000, 3_000)
    early, late = random.integers(0, 60, 3_000), random.integers(30, 90, 3_000)
    in_test_part = times >= 7_000
    times[in_test_part] += 1_000  # no session goes on

    def training_rows(items_of_test: np.ndarray, exclude: str) -> list[tuple]:
        log = make_log(users, np.where(in_test_part, items_of_test, early), times)
        log = with_test_sessions(log, log.time[log.session_starts()[:-1]] > 7_000)
        full = add_sampled_skips(log, per_event=3.0, popularity_power=0.5, seed=2, exclude=exclude)
        kept = ~full.in_test_part()
        columns = (full.user, full.session, full.time, full.item_ids[full.item], full.feedback)
        return list(zip(*(column[kept].tolist() for column in columns), strict=True))

    for exclude in ("session", "past"):
        assert training_rows(late, exclude) == training_rows(np.full(3_000, 77), exclude)


def test_an_item_that_the_user_touched_can_be_skipped_in_another_session():
    # Two items in all: what the user clicks in one session is what is left to skip in the other.
    log = make_log([0, 0], [1, 2], [0, 1_000])
    for exclude, expected in (("session", [[1, 2], [1, 2]]), ("past", [[1, 2], [2]])):
        full = add_sampled_skips(log, per_event=1.0, popularity_power=0.5, seed=0, exclude=exclude)
        items = full.item_ids[full.item]
        assert [sorted(items[full.session == session].tolist()) for session in range(2)] == expected


def test_sessions_that_leave_too_few_items_get_what_is_left():
    log = make_log([0] * 9 + [1], range(10), [0] * 10)
    full = add_sampled_skips(log, per_event=9.0, popularity_power=0.5, seed=0)
    assert full.item[(full.user == 0) & (full.feedback == SKIP)].tolist() == [9]
    assert sorted(full.item[full.user == 1].tolist()) == list(range(10))
    alone = make_log([0, 0], [1, 2], [0, 0])
    assert add_sampled_skips(alone, per_event=9.0, popularity_power=0.5, seed=0).num_events == 2

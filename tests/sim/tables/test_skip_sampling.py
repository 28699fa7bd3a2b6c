"""Sampled skips: never a touched item, no item twice in a session, the right number and popularity, by seed."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sim.tables import skip_sampling
from sim.tables.events import CLICK, SKIP, EventLog, build_event_log
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


def large_log(num_events: int = 30_000, num_items: int = 500) -> EventLog:
    random = np.random.default_rng(3)
    items = (random.random(num_events) ** 2 * num_items).astype(int)
    return make_log(random.integers(0, 3_000, num_events), items, random.integers(0, 10_000, num_events))


def assert_sound(log: EventLog, full: EventLog) -> None:
    """Checks everything that must hold of a log with sampled skips."""
    recorded = full.feedback != SKIP
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(full, name)[recorded], getattr(log, name))
        assert getattr(full, name).dtype == getattr(log, name).dtype
    touched = set(zip(log.user.tolist(), log.item.tolist(), strict=True))
    skips = zip(full.user[~recorded].tolist(), full.item[~recorded].tolist(), strict=True)
    assert not touched.intersection(skips)
    pairs = list(zip(full.session.tolist(), full.item.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert (np.diff(full.session) >= 0).all()
    assert all((np.diff(full.time[full.session == session]) >= 0).all() for session in np.unique(full.session)[:50])
    owner = log.user[log.session_starts()[:-1]]
    np.testing.assert_array_equal(owner[full.session], full.user)
    assert full.synthetic_skips


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 400)), min_size=1, max_size=40)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(rows=rows, per_event=st.sampled_from([0.0, 0.4, 1.0, 9.0]), power=st.sampled_from([0.0, 0.5, 1.0]))
def test_skips_of_any_log_are_sound(rows, per_event, power):
    log = make_log(*zip(*rows, strict=True))
    assert_sound(log, add_sampled_skips(log, per_event=per_event, popularity_power=power, seed=1))


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


def test_skips_stand_before_random_events_of_their_session():
    # One session of ten items at ten times, and 1,000 items that only the other user touched.
    log = make_log([0] * 10 + [1] * 1_000, range(1_010), [*range(10), *range(5_000, 6_000)])
    full = add_sampled_skips(log, per_event=90.0, popularity_power=0.5, seed=0)
    skips = (full.user == 0) & (full.feedback == SKIP)
    counts = np.bincount(full.time[skips], minlength=10)
    assert counts.sum() == 900
    assert counts.min() > 50
    # Before the event of the same time.
    assert full.item[(full.user == 0) & (full.feedback == CLICK)].tolist() == list(range(10))
    assert full.feedback[full.user == 0][-1] == CLICK


def test_a_user_who_touched_nearly_everything_gets_what_is_left():
    log = make_log([0] * 9 + [1], range(10), [0] * 10)
    full = add_sampled_skips(log, per_event=9.0, popularity_power=0.5, seed=0)
    assert full.item[(full.user == 0) & (full.feedback == SKIP)].tolist() == [9]
    assert sorted(full.item[full.user == 1].tolist()) == list(range(10))
    alone = make_log([0, 0], [1, 2], [0, 0])
    assert add_sampled_skips(alone, per_event=9.0, popularity_power=0.5, seed=0).num_events == 2

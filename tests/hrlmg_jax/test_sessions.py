"""How a log is split and its items numbered: by hand, and against sets and counters in plain Python."""

import collections
import contextlib
from pathlib import Path

import hydra
import jax
import numpy as np
import pytest

from harness.errors import UserError
from harness.settings import read_settings
from hrlmg_jax.user_model.item_embedding import EmbeddingConfig, embed_items
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.datasets.sessions import SessionData, load_sessions
from sim.tables.events import CLICK, ORDER, EventLog

DAY = 86_400
PARTS = ("train", "held_out", "test")


def events_csv(tmp_path, rows: list[tuple], **changes) -> LogConfig:
    """Writes rows (user, item, time, event) as a log of one's own and returns its configuration."""
    lines = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,time,event\n{lines}")
    events = {"view": "skip", "click": "click", "buy": "order"}
    columns = {f"{name}_column": name for name in ("user", "item", "time")} | {"feedback_column": "event"}
    with hydra.initialize_config_module("conf", version_base="1.3"):
        found = hydra.compose("data_statistics", ["data=events_csv"]).data
    places = {"path": str(path), "cache": str(tmp_path / "tables")}
    changes = {**columns, "feedback_of_event": events, "split": "day", **places, **changes}
    return read_settings(LogConfig, {**found, **changes}, "data")


def generated(tables: Path) -> LogConfig:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        composed = hydra.compose("fit_simulator", ["data.size=tiny", f"data.cache={tables}"])
    return read_settings(LogConfig, composed.data, "data")


# Six users on two days; item 1 is only seen on the second day.
ROWS = [
    *[(user, item, 100 * user + item, event) for user in range(6) for item, event in [(9, "view"), (7, "click")]],
    (0, 4, 5_000, "buy"),  # user 0's second session of the first day
    (0, 7, 5_010, "view"),
    (2, 3, 300, "view"),
    (5, 8, 600, "buy"),
    (1, 1, DAY + 10, "click"),
    (1, 9, DAY + 20, "view"),
    (5, 4, DAY + 30, "view"),
]


def with_held_out(config: LogConfig, wanted: set[int]) -> SessionData:
    """The log split with a seed that holds out the wanted users."""
    for seed in range(1_000):
        with contextlib.suppress(UserError):  # all users on one side
            data = load_sessions(config, 0.4, seed)
            if {int(user) for user in data.log.user_ids[data.held_out]} == wanted:
                return data
    raise AssertionError("no seed holds them out")


def test_parts_and_counts_by_hand(tmp_path):
    data = with_held_out(events_csv(tmp_path, ROWS), {2, 5})
    users, items = ([int(number) for number in ids] for ids in (data.log.user_ids, data.log.item_ids))

    def part(name):
        rows = data.rows(name)
        found = zip(data.log.user[rows], data.log.item[rows], data.log.feedback[rows], strict=True)
        return [(users[user], items[item], int(feedback)) for user, item, feedback in found]

    assert part("train") == [
        *[(0, 7, 1), (0, 9, 0)],
        *[(0, 4, 2), (0, 7, 0)],
        *[(1, 7, 1), (1, 9, 0)],
        *[(3, 7, 1), (3, 9, 0)],
        *[(4, 7, 1), (4, 9, 0)],
    ]
    assert part("held_out") == [(2, 7, 1), (2, 9, 0), (2, 3, 0), (5, 7, 1), (5, 9, 0), (5, 8, 2)]
    assert part("test") == [(1, 1, 1), (1, 9, 0), (5, 4, 0)]
    # Rows of the log: 0 to 3 user 0; 4, 5 user 1; 6 to 8 user 2; 9 to 12; 13 to 15 user 5; then tests of users 1 and 5.
    assert data.first_rows("train").tolist() == [0, 2, 4, 9, 11]
    assert data.first_rows("held_out").tolist() == [6, 13]
    assert data.first_rows("test").tolist() == [16, 18]
    # The catalogue: 4, 7 and 9, which training users saw on the first day; then 1, 3 and 8.
    assert data.num_items == 3
    assert items == [4, 7, 9, 1, 3, 8]
    counts = data.training_counts()
    assert counts["shown"].tolist() == [1, 5, 4]
    assert counts["clicked"].tolist() == [1, 4, 0]
    assert counts["ordered"].tolist() == [1, 0, 0]
    # The histories are of the log as it is numbered here: before user 5's test session, 7, 9 and 8.
    np.testing.assert_array_equal(data.table.before(18, 4).browsed, [-1, 1, 2, 5])
    np.testing.assert_array_equal(data.table.before(18, 4).ordered, [-1, -1, -1, 5])


def test_the_test_part_changes_nothing_of_what_is_learned_from(tmp_path):
    """Other items, answers and users on the second day: the same rows, held-out users, catalogue, lists and vectors."""
    random = np.random.default_rng(0)

    def day(number: int, users: tuple[int, int], items: tuple[int, int], events: list[str]) -> list[tuple]:
        times = sorted(number * DAY + random.integers(0, 80_000, 200))
        return [
            (int(random.integers(*users)), int(random.integers(*items)), int(time), str(random.choice(events)))
            for time in times
        ]

    first = day(0, (10, 40), (10, 40), ["click", "buy", "view", "view"])
    embedding = EmbeddingConfig(6, "user", 0.1, 1.0, 5.0, 0.5)
    found = []
    for second in (day(1, (10, 40), (0, 40), ["view", "buy"]), day(1, (0, 40), (30, 80), ["click"])):
        data = load_sessions(events_csv(tmp_path, first + second), 0.3, 1)
        log, parts = data.log, [data.rows(part) for part in ("train", "held_out")]
        ids = [(log.user_ids[log.user[rows]], log.item_ids[log.item[rows]], log.feedback[rows]) for rows in parts]
        vectors = embed_items(embedding, log, parts[0], 0)
        catalogue = log.item_ids[: data.num_items]
        found.append((parts, ids, catalogue, data.training_counts(), vectors[: data.num_items]))
        assert log.num_users in (30, 40)
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.fixture(scope="module")
def plain(tables) -> EventLog:
    """The generated log before its items are numbered anew."""
    return load_log(generated(tables))


@pytest.fixture(scope="module", params=[(0.1, 0), (0.5, 7)])
def data(request, tables) -> SessionData:
    return load_sessions(generated(tables), *request.param)


def test_the_parts_are_disjoint_and_complete(data):
    rows = [data.rows(part) for part in PARTS]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(data.log.num_events))
    firsts = [data.first_rows(part) for part in PARTS]
    np.testing.assert_array_equal(np.sort(np.concatenate(firsts)), data.log.session_starts()[:-1])
    for part_rows, part_firsts in zip(rows, firsts, strict=True):
        assert np.isin(part_firsts, part_rows).all()
        assert len(np.unique(data.log.session[part_rows])) == len(part_firsts)  # sessions are not torn apart


def test_parts_are_those_of_their_users_and_days(data):
    users = {part: set(data.log.user[data.rows(part)].tolist()) for part in PARTS}
    assert users["train"].isdisjoint(users["held_out"])
    assert users["held_out"] == set(np.flatnonzero(data.held_out).tolist())
    assert users["test"] & users["train"]
    assert users["test"] & users["held_out"]
    day = data.log.time // DAY
    assert set(day[data.rows("test")].tolist()) == {day.max()}
    for part in ("train", "held_out"):
        assert set(day[data.rows(part)].tolist()) == {day.max() - 1}


def test_about_the_asked_share_of_users_is_held_out_by_seed(tables):
    config = generated(tables)
    one, again, other = (load_sessions(config, 0.3, seed).held_out for seed in (1, 1, 2))
    assert abs(one.sum() - 60) < 4.5 * np.sqrt(200 * 0.3 * 0.7)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_renumbering_leaves_the_log_as_it_was(plain, data):
    np.testing.assert_array_equal(data.log.item_ids[data.log.item], plain.item_ids[plain.item])
    np.testing.assert_array_equal(np.sort(data.log.item_ids), plain.item_ids)
    for name in ("user", "session", "time", "feedback", "probabilities", "user_ids"):
        np.testing.assert_array_equal(getattr(data.log, name), getattr(plain, name))


def test_the_catalogue_is_what_training_users_saw(data):
    rows = data.rows("train")
    assert set(data.log.item[rows].tolist()) == set(range(data.num_items))
    # Known items keep their order, and so do the others.
    assert (np.diff(data.log.item_ids[: data.num_items]) > 0).all()
    assert (np.diff(data.log.item_ids[data.num_items :]) > 0).all()


def test_training_counts_equal_a_counter(data):
    shown, clicked, ordered = (collections.Counter() for _ in range(3))
    for row in data.rows("train"):
        item, feedback = int(data.log.item[row]), data.log.feedback[row]
        shown[item] += 1
        clicked[item] += feedback >= CLICK
        ordered[item] += feedback == ORDER
    counts = data.training_counts()
    for name, expected in (("shown", shown), ("clicked", clicked), ("ordered", ordered)):
        assert counts[name].tolist() == [expected[item] for item in range(data.num_items)]
    assert counts["shown"].min() >= 1


def test_a_part_without_sessions_is_refused(tmp_path):
    config = events_csv(tmp_path, ROWS)
    with pytest.raises(UserError, match="held-out users"):
        load_sessions(config, 1e-9, 0)
    with pytest.raises(UserError, match="train users"):
        load_sessions(config, 1 - 1e-9, 0)


@pytest.mark.parametrize(("event", "missing"), [("view", "clicks"), ("click", "skips")])
def test_a_training_part_without_clicks_or_skips_is_refused(tmp_path, event, missing):
    first_day = [(user, item, 100 * user + item, event) for user in range(20) for item in range(3)]
    second_day = [(1, 0, DAY, "view"), (1, 1, DAY + 1, "click"), (2, 1, DAY + 1, "buy")]
    config = events_csv(tmp_path, first_day + second_day)
    with pytest.raises(UserError, match=f"training part of events_csv holds no {missing}"):
        load_sessions(config, 0.3, 0)


def test_a_log_of_one_day_is_refused(tmp_path):
    config = events_csv(tmp_path, [row for row in ROWS if row[2] < DAY])
    with pytest.raises(UserError, match="leaves no training sessions"):
        load_sessions(config, 0.3, 0)

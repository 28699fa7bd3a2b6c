"""What runs on ratings recommend: every agent against its own episodes, histories, filters, sessions, commands."""

import dataclasses
import datetime
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import polars.testing
import pytest
from bandit_methods import METHODS, USERS, build
from bandit_problem import LENGTH, NUM_ITEMS, make_table
from command_lines import assert_one_message

import tpgr_jax
from harness.errors import UserError
from sim.evaluation.protocol import evaluate_policy, make_episode_batch
from sim.recommend.command import answer
from sim.recommend.recommender import Recommender
from sim.tables.items import ItemTable
from tpgr_jax.recommend import Config
from tpgr_jax.recommender import RatingSystem

OLD_RUNS = Path(__file__).parents[1] / "old_runs" / "5e63f8e"
TABLE = make_table()
QUICK = ("popularity", "linear_ucb", "ddpg_r")
"""The others take as long again; what differs between agents is their policy, which `test_rank.py` checks."""


def recommender_of(name: str) -> Recommender:
    problem, method, params = build(METHODS[name])
    system = RatingSystem(problem, method, params, problem.env)
    return Recommender(system, np.array([f"item {i}" for i in problem.data.item_ids]), "run")


@pytest.fixture(scope="module")
def ucb() -> Recommender:
    return recommender_of("linear_ucb")


def rating(user: int, item: int) -> int | None:
    return int(TABLE[user, item]) or None


def history(user: int, items: list[int]) -> list[tuple[int, int | None]]:
    return [(item, rating(user, item)) for item in items]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in METHODS]
)
def test_lists_of_one_are_the_episodes_of_an_evaluation(name):
    recommender = recommender_of(name)
    system: Any = recommender.system
    problem = system.problem
    played = evaluate_policy(
        make_episode_batch(problem.env, system.policy, False),
        problem.env_params,
        system.params,
        USERS,
        problem.num_relevant,
        jax.random.key(0),
        len(USERS),
    )
    given: list[list[Any]] = [[] for _ in USERS]
    for t in range(LENGTH):
        lists = recommender.recommend(given, 1)
        assert lists.ids[:, 0].tolist() == played.items[:, t].tolist()
        for user, items in zip(USERS, lists.ids, strict=True):
            given[user].append((items[0], rating(user, items[0])))


@pytest.fixture(scope="module", params=["tpgr", "tpgr_plus"])
def old_run(request, tmp_path_factory, tables) -> Recommender:
    folder = shutil.copytree(OLD_RUNS / request.param / "run", tmp_path_factory.mktemp(request.param) / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPGR_JAX_CACHE", str(tables))
        return tpgr_jax.load(folder)


def test_a_run_repeats_its_evaluation(old_run):
    system: Any = old_run.system
    evaluation = np.load(Path(old_run.source) / "eval.npz", allow_pickle=False)
    ratings = system.problem.data.matrix(np.nan_to_num(system.problem.data.rating_values)).toarray()
    users = old_run.reader.users.find(evaluation["user"])
    given: list[list[Any]] = [[] for _ in users]
    for items in evaluation["items"].T:
        np.testing.assert_array_equal(old_run.recommend(given, 1).ids[:, 0], items)
        for row, (user, item) in enumerate(zip(users, items, strict=True)):
            value = ratings[user, old_run.reader.items.find([item])[0]]
            given[row].append((item, value or None))


def test_items_excluded_one_by_one_are_those_of_an_allow_list(old_run):
    ids = old_run.system.item_ids
    generator = np.random.default_rng(0)
    past = [(item, 4) for item in ids[generator.permutation(len(ids))[:3]]]
    first = old_run.recommend([past], 5, paths=True)
    out = np.union1d(first.ids[0], ids[generator.permutation(len(ids))[:7]])  # few: one program ranks for all three
    left = np.setdiff1d(ids, out)
    excluded = old_run.recommend([past], 5, exclude=[out], paths=True)
    allowed = old_run.recommend([past], 5, allowed=left, paths=True)
    pl.testing.assert_frame_equal(excluded.paths, allowed.paths, abs_tol=1e-5)
    np.testing.assert_array_equal(excluded.ids, allowed.ids)
    np.testing.assert_allclose(excluded.scores, allowed.scores, atol=1e-5)
    assert not set(excluded.ids[0]) & {*out, *(item for item, _ in past)}


def test_paths_lead_to_the_items(old_run):
    lists = old_run.recommend([[]], 3, paths=True)
    table = lists.paths
    for rank in (1, 2, 3):
        path = table.filter(table["rank"] == rank)
        assert path["level"].to_list() == list(range(len(path)))
        assert path["items"].to_list()[-1] == 1
        assert path["such_as"].to_list()[-1] == str(lists.ids[0, rank - 1])
        assert path["items"].is_sorted(descending=True)
        score = lists.scores[0, rank - 1]
        if "probability" in lists.path_score:
            assert np.log(path["score"].to_numpy()).sum() == pytest.approx(score, abs=1e-4)
        else:
            assert path["score"].to_list()[-1] == pytest.approx(score, abs=1e-5)


def test_a_known_user_is_her_ratings(ucb):
    items = np.flatnonzero(TABLE[3]).tolist()  # without times in the order of the items
    known, given = ucb.recommend([3], 4), ucb.recommend([history(3, items)], 4)
    np.testing.assert_array_equal(known.ids, given.ids)
    np.testing.assert_array_equal(known.scores, given.scores)
    assert known.requests.tolist() == [3]
    assert not set(known.ids[0][known.ranks[0] > 0]) & set(items)


def test_histories_are_in_order_of_time_for_one_user_and_for_many(ucb, monkeypatch):
    problem = ucb.system.problem
    times = np.random.default_rng(0).integers(0, 5, problem.data.num_ratings)  # with ties
    data = dataclasses.replace(problem.data, timestamps=times)
    system = dataclasses.replace(ucb.system, problem=dataclasses.replace(problem, data=data))
    one_by_one = [system.histories_of([user])[0] for user in range(data.num_users)]
    monkeypatch.setattr("tpgr_jax.recommender._MANY", 10**6)
    for user, (alone, together) in enumerate(zip(one_by_one, system.histories_of(range(data.num_users)), strict=True)):
        rows = np.arange(data.indptr[user], data.indptr[user + 1])
        rows = rows[np.argsort(times[rows], kind="stable")]
        for found in (alone, together):
            np.testing.assert_array_equal(found.items, data.items[rows])
            np.testing.assert_array_equal(found.answers, np.asarray(data.rating_values)[data.codes[rows]])


def test_of_a_long_history_the_last_answers_make_the_state_and_all_are_excluded(ucb):
    long = history(5, [0, 1, 2, 3, 4, 5, 6, 7])
    last = long[-(LENGTH - 1) :]
    whole, part = ucb.recommend([long], NUM_ITEMS), ucb.recommend([last], NUM_ITEMS, exclude=[0, 1, 2])
    np.testing.assert_array_equal(whole.ids, part.ids)
    np.testing.assert_array_equal(whole.scores, part.scores)
    assert whole.number.tolist() == [4]
    assert "only 4 of 12 items" in whole.notes[0]


def test_of_two_answers_to_an_item_the_last_counts(ucb):
    twice, once = [(1, 5), (2, 1), (1, 2)], [(2, 1), (1, 2)]
    np.testing.assert_array_equal(ucb.recommend([twice], 5).scores, ucb.recommend([once], 5).scores)


def test_what_was_seen_may_come_again_but_not_in_a_session(ucb):
    past, now = history(5, [0, 1, 2]), history(5, [3])
    everything = ucb.recommend([past], NUM_ITEMS, exclude_seen=False)
    assert everything.number.tolist() == [NUM_ITEMS]
    lists = ucb.recommend([past], NUM_ITEMS, exclude_seen=False, sessions=[now])
    assert set(lists.ids[0][lists.ranks[0] > 0]) == set(range(NUM_ITEMS)) - {3}


def test_filters_of_all_and_of_each(ucb):
    shared = ucb.recommend([[], 4], 3, allowed=[1, 2, "7", 11], exclude=[2])
    assert set(shared.ids.ravel()) <= {1, 7, 11, -1}
    assert shared.titles[0, 0] == f"item {shared.ids[0, 0]}"
    assert shared.number[0] == 3
    each = ucb.recommend([[], []], 3, allowed=[[1, 2], [3]], exclude=[[1], []])
    assert [row[ranks > 0].tolist() for row, ranks in zip(each.ids, each.ranks, strict=True)] == [[2], [3]]
    assert each.scores[1, 1] == -np.inf
    assert each.frame().rows()[0][:4] == (0, 1, 2, "item 2")


def test_stock_is_by_the_dates_of_the_item_table(ucb):
    days = 86_400 * np.arange(NUM_ITEMS)
    nothing: dict[str, Any] = {"category_names": (), "category_starts": np.zeros(NUM_ITEMS + 1, int)}
    nothing |= {"categories": np.zeros(0, int), "has_row": np.ones(NUM_ITEMS, bool), "source": "items.csv"}
    counts = {"rows": NUM_ITEMS, "other_rows": 0, "repeated_rows": 0}
    titles = [f"title {item}" for item in range(NUM_ITEMS)]
    table = ItemTable(
        ucb.system.item_ids, titles, available_from=days, available_until=days + 200_000, **nothing, **counts
    )
    recommender = dataclasses.replace(ucb, table=table)
    for at in (5 * 86_400, "1970-01-06", datetime.datetime(1970, 1, 6, tzinfo=datetime.UTC)):
        lists = recommender.recommend([[]], 5, at=at)
        assert set(lists.ids[0][lists.ranks[0] > 0]) == {3, 4, 5}
    assert recommender.recommend([[]], 5, at="1970-01-06", allowed=[4, 9]).ids[0].tolist() == [4, -1, -1, -1, -1]
    with pytest.raises(UserError, match="at is 'soon'"):
        recommender.recommend([[]], at="soon")
    with pytest.raises(UserError, match="no dates"):
        ucb.recommend([[]], at="1970-01-06")


def test_a_plan_goes_on_with_the_likeliest_answers(ucb):
    system: Any = ucb.system
    plan = ucb.recommend([[]], LENGTH, plan=True)
    session = ucb.session()
    train = system.problem.train_users
    for item in plan.ids[0]:
        assert session.next().ids[0, 0] == item
        values, counts = np.unique(TABLE[train, item][TABLE[train, item] > 0], return_counts=True)
        session.answer(item, values[counts == counts.max()].max())
    with pytest.raises(UserError, match=f"has {LENGTH} steps"):
        ucb.recommend([[]], LENGTH + 1, plan=True)


def test_ids_that_are_not_known(ucb):
    with pytest.raises(UserError, match="unknown user: 99"):
        ucb.recommend([99, 3], 2)
    skipped, cold = (ucb.recommend([99, 3], 2, unknown=unknown) for unknown in ("skip", "cold"))
    assert skipped.number.tolist() == [0, 2]
    np.testing.assert_array_equal(cold.ids[0], ucb.recommend([[]], 2).ids[0])
    assert all("unknown user: 99" in lists.notes for lists in (skipped, cold))
    with pytest.raises(UserError, match="unknown item: 77"):
        ucb.recommend([[(77, 5)]])
    assert ucb.recommend([[(77, 5), (1, 4)]], 2, unknown="skip").notes == ("unknown item: 77",)
    assert ucb.recommend([[]], 2, allowed=[1, 2, 77]).notes == ("allowed: unknown item: 77",)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"histories": [[]], "k": 0}, "k is 0"),
        ({"histories": [[]], "allowed": [77, 78]}, "none of the allowed items"),
        ({"histories": [[]], "allowed": []}, "none of the allowed items"),
        ({"histories": [[(1, 6)]]}, "the answer 6 is none"),
        ({"histories": [[(1, "good")]]}, "not every answer is a rating from 1 to 5"),
        ({"histories": [[1, 2]]}, r"a list of \(item, answer\)"),
        ({"histories": [None]}, r"a list of \(item, answer\)"),
        ({"histories": [[]], "sessions": []}, "0 sessions for 1 histories"),
        ({"histories": [[]], "exclude": [[1], [2]]}, "2 lists for 1 histories"),
        ({"histories": [[]], "unknown": "drop"}, "unknown='drop'"),
    ],
)
def test_mistakes_are_one_message(arguments, problem, ucb):
    with pytest.raises(UserError, match=problem):
        ucb.recommend(**arguments)


def test_requests_of_a_size_are_compiled_once(ucb):
    traces, system = [], ucb.system
    rank = system.policy.rank

    def counted(*arguments):
        traces.append(arguments[3])
        return rank(*arguments)

    method = system.method._replace(policy=system.policy._replace(rank=counted))
    counting = dataclasses.replace(ucb, system=dataclasses.replace(system, method=method))
    for length in range(LENGTH):
        for number in (3, 4):
            for k in (2, 9, 16):
                counting.recommend([history(1, list(range(length)))] * number, k, exclude=[8], allowed=[9, 10, 11])
    assert traces == [16]
    counting.recommend([[]] * 5, 17)
    assert traces == [16, 32]


def test_many_requests_are_answered_in_parts(ucb, monkeypatch):
    users = [*range(30), *range(30)]
    whole = ucb.recommend(users, 3, exclude=[[user % 12] for user in users])
    monkeypatch.setattr("sim.recommend.recommender.AT_A_TIME", 16)
    parts = ucb.recommend(users, 3, exclude=[[user % 12] for user in users])
    np.testing.assert_array_equal(whole.ids, parts.ids)


SETTINGS: dict[str, Any] = {
    "run": "run",
    **dict.fromkeys(("checkpoint", "data_root", "data_cache", "data_path", "user", "history", "users", "out")),
    **dict.fromkeys(("allowed", "exclude", "at")),
    "k": 3,
    "plan": False,
    "paths": False,
    "exclude_seen": True,
    "unknown": "error",
}


def ask(recommender: Recommender, **changes: Any) -> None:
    answer(Config(**(SETTINGS | changes)), recommender)


def test_the_command_prints_a_list(ucb, capsys, tmp_path):
    (tmp_path / "history.csv").write_text("item,rating\n0,5\n1,\n")
    (tmp_path / "allowed.txt").write_text("2\n3\n77\n")
    ask(ucb, history=str(tmp_path / "history.csv"), allowed=str(tmp_path / "allowed.txt"))
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["rank", "item", "title", "score"]
    assert {line.split()[1] for line in lines[1:3]} == {"2", "3"}
    assert "upper confidence bound" in lines[3]
    assert err.splitlines() == ["allowed: unknown item: 77", "0: only 2 of 3 items, no others may be recommended"]


def test_the_command_writes_lists_of_many(ucb, capsys, tmp_path):
    (tmp_path / "users.txt").write_text("3\n99\n5\n")
    out = tmp_path / "lists.csv"
    with pytest.raises(UserError, match="unknown user: 99"):
        ask(ucb, users=str(tmp_path / "users.txt"), out=str(out))
    assert not out.exists()
    ask(ucb, users=str(tmp_path / "users.txt"), out=str(out), unknown="skip")
    printed = capsys.readouterr()
    assert "lists of 2 users" in printed.out
    assert "unknown user: 99" in printed.err
    assert {line.split(",")[0] for line in out.read_text().splitlines()[1:]} == {"3", "5"}
    ask(ucb, users="all", out=str(out))
    somebody_left = np.count_nonzero((TABLE > 0).sum(1) < NUM_ITEMS)
    assert len({line.split(",")[0] for line in out.read_text().splitlines()[1:]}) == somebody_left


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "neither user, history nor users"),
        ({"user": "1", "users": "all", "out": "a.csv"}, "user and users given"),
        ({"users": "all"}, "users is given without out"),
        ({"users": "all", "out": "lists.xlsx"}, r"\.parquet"),
        ({"user": "1", "out": "a.csv"}, "out is given without users"),
        ({"users": "all", "out": "a.csv", "paths": True}, "paths are printed for one user"),
        ({"run": None, "user": "1"}, "no run given"),
    ],
)
def test_settings_that_do_not_fit(changes, problem):
    with pytest.raises(UserError, match=problem):
        Config(**(SETTINGS | changes))


def test_the_command_line(run_command_line, tmp_path):
    for arguments, message in {
        ("run=run", "user=1", "k=0"): "k is 0",
        ("run=nowhere", "user=1"): "there is no such folder",
        ("run=run", "user=1"): "is not a run folder",
    }.items():
        (tmp_path / "run").mkdir(exist_ok=True)
        assert_one_message(run_command_line("tpgr_jax.recommend", *arguments), message)
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(OLD_RUNS / "tpgr" / "run", tmp_path / "run")
    finished = run_command_line("tpgr_jax.recommend", "run=run", "user=3", "k=2", "paths=true")
    assert finished.returncode == 0, finished.stderr
    assert "probability of the child" in finished.stdout
    (tmp_path / "run" / "tree.npz").write_bytes(b"damaged")
    assert_one_message(run_command_line("tpgr_jax.recommend", "run=run", "user=3"), "tree.npz")

"""Re-ranking against a direct transcription of Algorithm 4."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.errors import UserError
from hrlmg_jax.agent import hrl_mg
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.learner import LearnerConfig
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.agent.policy import ActingParams
from hrlmg_jax.evaluation.offline import (
    LoggedSessions,
    OfflineTest,
    logged_sessions,
    original_ids,
    rank_by_list,
    rank_by_score,
    rerank,
)
from hrlmg_jax.problem import make_env
from hrlmg_jax.retrieval.index import ItemIndex, RetrievalConfig
from sim.datasets.sessions import SessionData
from sim.envs.session_env import LoggedFeedback, SessionConfig
from sim.tables.events import build_event_log, with_test_sessions

ITEMS, SIZE, LENGTH = 30, 5, 3
MEMORY, PERIOD, GOALS = 7, 5, 2
NO_GOALS = GoalConfig(False, 1, 2, 0.5, 0.5, 0.1, False, False, False, "gamma", True)
AGENTS = {
    "DDPG": NO_GOALS,
    "DDPG with a memory": dataclasses.replace(NO_GOALS, memory=MEMORY),
    "goals of a memory": dataclasses.replace(
        NO_GOALS, enabled=True, conditioned=True, memory=MEMORY, period=PERIOD, count=GOALS
    ),
}


@pytest.fixture(scope="module", params=AGENTS)
def world(request):
    """A random log of 6 users with 3 sessions of 4 to 11 items, and networks drawn at random."""
    generator = np.random.default_rng(0)
    users, items, times, feedback, sessions = [], [], [], [], []
    for session in range(18):
        shown = generator.choice(ITEMS, generator.integers(4, 12), replace=False)
        for place, item in enumerate(shown):
            users.append(session // 3)
            items.append(item)
            times.append(session * 1000 + place)
            feedback.append(generator.choice(3, p=[0.5, 0.35, 0.15]))
            sessions.append(session)
    columns = [np.asarray(column) for column in (users, items, times, feedback, sessions)]
    log = build_event_log(
        name="log",
        users=columns[0],
        items=columns[1],
        times=columns[2],
        feedback=columns[3],
        sessions=columns[4],
        session_gap=0.0,
        checksum="",
        source="",
    )
    data = SessionData(with_test_sessions(log, np.arange(18) % 3 == 2), ITEMS, np.zeros(6, bool))
    config = NetworkConfig(4, 4, 8, "unit", 1.0, "linear", "twin")
    goals = AGENTS[request.param]
    learner = LearnerConfig(1, 0, 1, 1, 1, 1, 0.9, 0.1, 0.1, 0.1, 1.0, 0.1, "item", "bootstrap")
    settings = hrl_mg.Settings(
        name="tested", network=config, goals=goals, learner=learner, retrieval=RetrievalConfig("exact", 1)
    )
    env = SessionConfig(8, LENGTH, 1.0, 5.0)
    policy = hrl_mg.make_learner(settings, make_env(env, LoggedFeedback(), 8), SIZE).policy
    vectors = generator.normal(size=(ITEMS, SIZE))
    embedding = jnp.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), jnp.float32)

    def drawn(level):
        shapes = jax.eval_shape(level.init, jax.random.key(1)).params["actor"]
        return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.5, leaf.shape), jnp.float32), shapes)

    actor, networks = drawn(policy.low), policy.low.networks
    high = drawn(policy.high) if goals.enabled else None
    params = ActingParams(actor, high, ItemIndex(embedding, ITEMS), data.table, jnp.ones(ITEMS), jnp.bool_(False))
    propose = jax.jit(lambda browsed, clicked, seen: networks.act(actor, browsed, clicked, embedding, seen).vector)
    return SimpleNamespace(
        data=data,
        env=env,
        goals=goals,
        policy=policy,
        params=params,
        embedding=np.asarray(embedding, np.float64),
        propose=propose,
    )


def histories_before(log, row):
    """The user's items before a row that were browsed, clicked (ordered or not) and ordered, oldest first."""
    own = np.flatnonzero((log.user == log.user[row]) & (log.time < log.time[row]))
    earlier = own[np.argsort(log.time[own])]
    return [[int(log.item[i]) for i in earlier if log.feedback[i] >= least] for least in range(3)]


def padded(items):
    last = items[-LENGTH:]
    return jnp.asarray([[-1] * (LENGTH - len(last)) + last], jnp.int32)


def direction(world, items):
    total = sum((world.embedding[item] for item in items), np.zeros(SIZE))
    return total / max(np.linalg.norm(total), 1e-12) * len(items) / (len(items) + 1)


def vectors_seen(world, before, histories, step, goals_in_force):
    """What the low level sees besides its histories; new goals begin at every multiple of the period."""
    goals = world.goals
    if not goals.memory:
        return None, None
    remembered = [direction(world, items[-MEMORY:]) for items in before]
    remembered += [direction(world, items[-LENGTH:]) for items in histories[1:]]
    if not goals.enabled:
        return np.stack(remembered), None
    if step % PERIOD == 0:
        slopes = 8 * np.asarray(world.params.high["weights"], np.float64) @ np.stack(remembered)
        goals_in_force = slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), 1e-12)
    stage = 0 if step % PERIOD < 2 else 1  # two steps of five, then the other three
    return goals_in_force[stage : stage + 1], goals_in_force


def transcription(world, row, items, answers):
    """Algorithm 4, line by line, for one session."""
    before = histories_before(world.data.log, row)  # line 2
    histories = [list(kind) for kind in before]
    left, ranked, goals = list(items), [], None
    while left:  # line 3
        seen, goals = vectors_seen(world, before, histories, len(ranked), goals)
        seen = None if seen is None else jnp.asarray(seen[None], jnp.float32)
        proposal = np.asarray(world.propose(padded(histories[0]), padded(histories[1]), seen), np.float64)
        scores = proposal[0, 0] @ world.embedding[left].T
        chosen = left[int(np.argmax(scores))]  # line 4
        ranked.append(chosen)  # line 5
        answer = answers[list(items).index(chosen)]  # line 6
        for kind in range(answer + 1):
            histories[kind].append(chosen)  # line 7
        left.remove(chosen)  # line 8
    return ranked


def test_reranking_is_algorithm_4(world):
    log = world.data.log
    starts = log.session_starts()
    chosen = np.flatnonzero(world.data.log.is_test)
    length = np.diff(starts)[chosen]
    items = np.full((len(chosen), length.max()), -1, np.int32)
    feedback = np.zeros(items.shape, np.int8)
    for number, session in enumerate(chosen):
        rows = slice(starts[session], starts[session + 1])
        items[number, : length[number]] = log.item[rows]
        feedback[number, : length[number]] = log.feedback[rows]
    sessions = LoggedSessions(starts[chosen], length, items, feedback)
    found = rerank(world, world.policy.as_policy(), world.params, sessions, at_a_time=4)
    for number in range(len(chosen)):
        shown = items[number, : length[number]].tolist()
        answers = feedback[number, : length[number]].tolist()
        expected = transcription(world, int(starts[chosen[number]]), shown, answers)
        assert found.items[number, : length[number]].tolist() == expected
        assert found.feedback[number, : length[number]].tolist() == [answers[shown.index(item)] for item in expected]
        assert (found.items[number, length[number] :] == -1).all()
        assert not found.feedback[number, length[number] :].any()


def test_ranking_by_score_keeps_padding_last_and_ties_in_the_logged_order():
    sessions = LoggedSessions(
        np.zeros(2, int),
        np.array([3, 2]),
        np.array([[7, 8, 9], [4, 5, -1]], np.int32),
        np.array([[0, 1, 2], [1, 0, 0]], np.int8),
    )
    found = rank_by_score(sessions, np.array([[0.1, 0.5, 0.5], [-3.0, -2.0, 99.0]]))
    np.testing.assert_array_equal(found.items, [[8, 9, 7], [5, 4, -1]])
    np.testing.assert_array_equal(found.feedback, [[1, 2, 0], [0, 1, 0]])


def test_the_offline_test_is_about_items_of_the_catalogue():
    # Sessions of test users 0 to 3; training users were shown items 0 to 4.
    rows = [
        *[(9, 9, item, 0, item) for item in range(5)],
        *[(0, 0, 5, 2, 100), (0, 0, 3, 0, 101), (0, 0, 1, 1, 102)],  # begins with an item that is left out
        *[(1, 1, 6, 1, 100), (1, 1, 2, 0, 101)],  # nothing else was answered
        *[(2, 2, 2, 0, 100), (2, 2, 4, 2, 101), (2, 2, 0, 0, 102)],
        *[(3, 3, 7, 1, 100)],  # nothing is left
    ]
    users, sessions, items, feedback, times = map(np.array, zip(*rows, strict=True))
    columns = {"users": users, "items": items, "times": times, "feedback": feedback, "sessions": sessions}
    log = build_event_log(name="log", **columns, session_gap=0.0, checksum="", source="log.csv")
    log = with_test_sessions(log, np.arange(5) < 4)
    found = logged_sessions(SimpleNamespace(data=SessionData(log, 5, np.zeros(5, bool))), 10)
    assert found.items.tolist() == [[3, 1, -1], [2, 4, 0]]
    assert found.feedback.tolist() == [[0, 1, 0], [0, 2, 0]]
    assert found.length.tolist() == [2, 3]
    assert log.item[found.row].tolist() == [5, 2]  # the histories are those before the whole session
    ranking = np.array([4, 2, 0, 1, 3])
    assert rank_by_list(ranking, found).items.tolist() == [[1, 3, -1], [4, 2, 0]]
    with pytest.raises(UserError, match="of an item that training users were shown"):
        logged_sessions(SimpleNamespace(data=SessionData(log, 0, np.zeros(5, bool))), 10)


def test_padding_names_no_item():
    items = np.array([[1, 0], [2, -1]], np.int32)
    assert original_ids(np.array([70, 80, 90]), items).tolist() == [[80, 70], [90, -1]]
    assert original_ids(np.array(["a", "bc", "d"]), items).tolist() == [["bc", "a"], ["d", ""]]


def test_offline_metrics_of_a_hand_worked_session():
    ranked = OfflineTest(np.array([[3, 1, 2]], np.int32), np.array([[0, 2, 1]], np.int8))
    metrics = ranked.metrics(np.array([0.0, 1.0, 5.0]))
    np.testing.assert_allclose(metrics["map"], [(1 / 2 + 2 / 3) / 2])
    expected = (5 / np.log2(3) + 1 / 2) / (5 + 1 / np.log2(3))
    np.testing.assert_allclose(metrics["ndcg20"], [expected])
    np.testing.assert_allclose(metrics["ndcg40"], [expected])

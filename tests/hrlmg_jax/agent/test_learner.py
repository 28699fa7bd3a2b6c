"""Algorithm 2: what training keeps of the sessions it plays, re-played in plain Python, and what it learns from it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hrlmg_jax.agent.high_levels
import hrlmg_jax.agent.low_levels
from harness.compute.devices import DevicesConfig, device_mesh
from harness.errors import UserError
from harness.settings import read_settings
from hrlmg_jax.agent import hrl_mg
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.high_levels import LearnedGoals, MemoryGoals
from hrlmg_jax.agent.learner import HrlState, Learner, LearnerConfig, TwoLevelLearner, World
from hrlmg_jax.agent.low_levels import DdpgLevel
from hrlmg_jax.agent.memory import REMEMBERED
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.agent.transitions import HighTransition, LowTransition
from hrlmg_jax.retrieval.index import ItemIndex, RetrievalConfig
from sim.envs.histories import Histories, make_history_table
from sim.envs.session_env import SessionEnv, SessionParams
from sim.tables.events import EventLog, build_event_log

ITEMS, CATALOGUE, E, N, B = 14, 12, 6, 3, 4
MEMORY = 5
WARM_UP, STEPS = 16, 30
REWARD = [0.0, 1.0, 5.0]
EMBEDDING = np.random.default_rng(0).normal(size=(ITEMS, E))
EMBEDDING = (EMBEDDING / np.linalg.norm(EMBEDDING, axis=1, keepdims=True)).astype(np.float32)
ANSWERS = np.random.default_rng(1).choice(3, (ITEMS + 1, ITEMS), p=[0.5, 0.3, 0.2]).astype(np.int32)


class TableFeedback:
    """A certain answer to every item, which depends on the item clicked last."""

    def initial(self, params: jax.Array, start: jax.Array) -> tuple[()]:
        return ()

    def probabilities(self, params: jax.Array, hidden: tuple[()], histories: Histories, item: jax.Array) -> jax.Array:
        return jax.nn.one_hot(params[histories.clicked[-1] + 1, item], 3)

    def update(self, params: jax.Array, hidden: tuple[()], item: jax.Array, feedback: jax.Array) -> tuple[()]:
        return ()


def make_log() -> EventLog:
    """Five users with one to three sessions; all items occur, two of them outside the catalogue."""
    generator = np.random.default_rng(2)
    rows = [
        (user, user * 10 + session, item, 1000 * session + place)
        for user in range(5)
        for session in range(1 + user % 3)
        for place, item in enumerate(generator.permutation(ITEMS)[: ITEMS if user == 2 else 4])
    ]
    users, sessions, items, times = map(np.array, zip(*rows, strict=True))
    return build_event_log(
        name="log",
        users=users,
        items=items,
        times=times,
        feedback=generator.choice(3, len(rows), p=[0.4, 0.4, 0.2]),
        sessions=sessions,
        session_gap=1.0,
        checksum="none",
        source="hand-made",
    )


LOG = make_log()
FIRST_ROWS = LOG.session_starts()[:-1]


def make_world() -> World:
    env = SessionParams(make_history_table(LOG), jnp.asarray(FIRST_ROWS, jnp.int32), None, jnp.asarray(ANSWERS))
    frequency = np.bincount(LOG.item, minlength=ITEMS)[:CATALOGUE]
    cumulative = jnp.asarray(np.cumsum(frequency), jnp.float32)
    return World(env, ItemIndex(jnp.asarray(EMBEDDING), CATALOGUE), cumulative)


def learner_config(**changes: Any) -> LearnerConfig:
    settings: dict[str, Any] = {
        "sessions": B,
        "warm_up_steps": WARM_UP,
        "batch_size": 8,
        "high_batch_size": 6,
        "replay_capacity": B * STEPS + 5,
        "high_replay_capacity": 99,
        "gamma": 0.9,
        "tau": 0.05,
        "actor_rate": 1e-3,
        "critic_rate": 3e-3,
        "clip_norm": 1.0,
        "action_noise": 0.1,
        "target_action": "item",
        "terminal": "bootstrap",
    }
    return read_settings(LearnerConfig, {**settings, **changes}, "agent.learner")


def goal_config(**changes: Any) -> GoalConfig:
    settings: dict[str, Any] = {
        "enabled": True,
        "count": 2,
        "period": 3,
        "intrinsic_weight": 0.0,
        "benefit_discount": 0.5,
        "noise": 0.1,
        "conditioned": False,
        "frozen": False,
        "hindsight": False,
        "discount": "gamma",
        "store_partial_window": True,
    }
    return read_settings(GoalConfig, {**settings, **changes}, "agent.goals")


NETWORK = NetworkConfig(
    hidden_size=4,
    state_size=4,
    critic_width=5,
    action_norm="unit",
    action_bound=1.0,
    q_output="linear",
    critics="twin",
)


def make_learner(goals: GoalConfig, length: int = 7, **changes: Any) -> Learner:
    settings = hrl_mg.Settings(
        name="tested",
        network=NETWORK,
        goals=goals,
        learner=learner_config(**changes),
        retrieval=RetrievalConfig("exact", 1),
    )
    return hrl_mg.make_learner(settings, SessionEnv(TableFeedback(), length, N), E)


def two_levels(learner: Learner) -> TwoLevelLearner:
    assert isinstance(learner, TwoLevelLearner)
    return learner


@dataclass(frozen=True)
class Played:
    """A short training run, with the state before every step and after the last (leaves [STEPS + 1, ...])."""

    name: str
    learner: Learner
    states: Any
    metrics: Any

    @property
    def final(self) -> HrlState:
        return self.at(STEPS)

    def at(self, step: int) -> HrlState:
        return jax.tree.map(lambda leaf: leaf[step], self.states)


@functools.cache
def compiled(learner: Learner) -> tuple[Any, Any]:
    """`init`, and a chunk of half of the steps that also returns the state before each."""

    @jax.jit
    def chunk(state: HrlState, world: World) -> tuple[HrlState, Any]:
        def step(state: HrlState, _: None) -> tuple[HrlState, Any]:
            following, metrics = learner.train_step(state, world)
            return following, (state, metrics)

        return jax.lax.scan(step, state, None, length=STEPS // 2)

    return jax.jit(learner.init), chunk


def on_host(tree: Any) -> Any:
    """Arrays as NumPy's; of the key, its numbers."""
    return jax.device_get(dataclasses.replace(tree, key=jax.random.key_data(tree.key)))


def play(name: str, seed: int = 0) -> Played:
    learner = LEARNERS[name]
    init, chunk = compiled(learner)
    world = make_world()
    state, (first, first_metrics) = chunk(init(jax.random.key(seed), world), world)
    state, (second, second_metrics) = chunk(state, world)
    states = jax.tree.map(
        lambda a, b, c: np.concatenate([a, b, np.asarray(c)[None]]), on_host(first), on_host(second), on_host(state)
    )
    metrics = jax.tree.map(lambda a, b: np.concatenate([a, b]), first_metrics, second_metrics)
    return Played(name, learner, states, metrics)


CASES: dict[str, tuple[GoalConfig, dict[str, Any]]] = {
    # Sessions of 7 steps and windows of 3: the third window has one step. Without goals: DDPG.
    "ddpg": (goal_config(enabled=False), {}),
    "one, frozen": (goal_config(count=1, frozen=True), {}),
    "two": (goal_config(count=2, hindsight=True), {}),
    "three": (goal_config(count=3, noise=0.0, store_partial_window=False), {}),
    # Sessions of two whole windows of 4; the low level sees its goals.
    "conditioned": (goal_config(count=2, period=4, conditioned=True, intrinsic_weight=0.5), {"length": 8}),
    "memory": (goal_config(count=1, conditioned=True, hindsight=True, memory=MEMORY, noise=0.0), {}),
    "ddpg, memory": (goal_config(enabled=False, memory=MEMORY), {"action_noise": 0.0, "length": 8}),
}
LEARNERS = {name: make_learner(goals, **changes) for name, (goals, changes) in CASES.items()}
GOALS = {name: goals for name, (goals, _) in CASES.items()}
WITHOUT_INFLUENCE = ["one, frozen", "two", "three"]
WITH_GOALS = [*WITHOUT_INFLUENCE, "conditioned", "memory"]


def quick(names: Iterable[str]) -> list[Any]:
    """The learners as parameters; those that are made of the parts of others take their turn with the long tests."""
    of_parts = ("three", "one, frozen")
    return [pytest.param(name, marks=pytest.mark.long) if name in of_parts else name for name in names]


@functools.cache
def run(name: str) -> Played:
    return play(name)


# --- A session in plain Python ---------------------------------------------------------------------------------------


def logged_histories(start: int) -> dict[str, list[int]]:
    """All that the user of session `start` had done before it, by kind."""
    first = FIRST_ROWS[start]
    rows = [row for row in range(first) if LOG.user[row] == LOG.user[first]]
    return {
        kind: [int(LOG.item[row]) for row in rows if LOG.feedback[row] >= least]
        for kind, least in (("browsed", 0), ("clicked", 1), ("ordered", 2))
    }


def last_n(items: list[int]) -> list[int]:
    return ([-1] * N + items)[-N:]


@dataclass
class Step:
    """One step of one session as it must have been."""

    place: int
    t: int
    item: int
    answer: int
    last: bool
    before: dict[str, list[int]]
    after: dict[str, list[int]]


def replayed(played: Played) -> list[Step]:
    """Follows the sessions with the recorded items alone, in the order of the low-level memory."""
    length = played.learner.env.episode_length
    rows, episodes = played.final.low_replay.rows, played.states.episodes
    histories: list[Any] = [None] * B
    steps = []
    for number in range(STEPS):
        for b in range(B):
            t = int(episodes.state.step[number, b])
            if number == 0 or t == 0:
                histories[b] = logged_histories(int(episodes.state.start[number, b]))
            item = int(rows.item[number * B + b])
            before = histories[b]
            answer = int(ANSWERS[before["clicked"][-1] + 1 if before["clicked"] else 0, item])
            after = {
                kind: before[kind] + ([item] if answer >= least else [])
                for kind, least in (("browsed", 0), ("clicked", 1), ("ordered", 2))
            }
            histories[b] = after
            steps.append(Step(b, t, item, answer, t == length - 1, before, after))
    return steps


def stage_of_step(t: int, goals: GoalConfig) -> int:
    """Stages of floor(c / M) steps, the rest in the last."""
    length = goals.period // goals.count
    return ([goal for goal in range(goals.count) for _ in range(length)] + [goals.count - 1] * goals.period)[
        t % goals.period
    ]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of vectors that may be zero: a user without history has a zero state before anything is learned."""
    return float(a.astype(np.float64) @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def remembered_by(start: int, now: dict[str, list[int]]) -> np.ndarray:
    """[5, E]: of the last items of each kind before session `start`, and of the last N now, directions by hand."""
    past = logged_histories(start)
    kinds = [past[kind][-MEMORY:] for kind in ("browsed", "clicked", "ordered")]
    kinds += [now[kind][-N:] for kind in ("clicked", "ordered")]
    found = np.zeros((5, E))
    for direction, items in zip(found, kinds, strict=True):
        total = EMBEDDING[items].sum(0)
        if items:
            direction += total / np.linalg.norm(total) * len(items) / (len(items) + 1)
    return found


@functools.cache
def proposing(learner: Learner) -> Any:
    """HActor's goals from its parameters, histories and what is remembered, compiled."""
    high, embedding = two_levels(learner).policy.high, jnp.asarray(EMBEDDING)
    if isinstance(high, MemoryGoals):
        return jax.jit(lambda params, clicked, ordered, seen: high.networks.act(params, seen))
    networks = high.networks
    return jax.jit(
        lambda params, clicked, ordered, seen: networks.act(params, clicked, ordered, embedding, None).vector
    )


def greedy_goals(played: Played, number: int, b: int, now: dict[str, list[int]]) -> np.ndarray:
    """[M, E] that HActor of step `number` sets in place b of the batch for histories without noise."""
    histories = (np.array([last_n(now[kind])], np.int32) for kind in ("clicked", "ordered"))
    params = jax.tree.map(lambda leaf: leaf[number], played.states.high.params["actor"])
    seen = remembered_by(int(played.states.episodes.state.start[number, b]), now)[None].astype(np.float32)
    return np.asarray(proposing(played.learner)(params, *histories, seen))[0]


def goals_in_force(played: Played, number: int, b: int) -> np.ndarray:
    """[M, E] during step `number`: what the policy carries after it."""
    return played.states.episodes.carry.goals[number + 1, b]


# --- Bookkeeping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", quick(LEARNERS))
def test_low_level_memory_is_what_the_sessions_were(name: str) -> None:
    played = run(name)
    memory = played.final.low_replay
    rows = memory.rows
    assert (int(memory.size), int(memory.position)) == (B * STEPS, B * STEPS)
    for index, step in enumerate(replayed(played)):
        assert rows.browsed[index].tolist() == last_n(step.before["browsed"])
        assert rows.clicked[index].tolist() == last_n(step.before["clicked"])
        assert rows.feedback[index] == step.answer
        assert rows.truncated[index] == step.last
        assert 0 <= rows.item[index] < CATALOGUE
        if not GOALS[played.name].enabled:
            assert rows.intrinsic_reward[index] == 0
        else:
            goal = goals_in_force(played, index // B, step.place)[stage_of_step(step.t, GOALS[played.name])]
            assert rows.intrinsic_reward[index] == pytest.approx(cosine(EMBEDDING[step.item], goal), abs=1e-5)
    assert len(set(rows.feedback[: B * STEPS].tolist())) == 3


@pytest.mark.parametrize("name", quick(WITH_GOALS))
def test_high_level_memory_is_what_the_windows_were(name: str) -> None:
    """One row per whole window, and per partial one at the end of a session if these are kept."""
    played, goals = run(name), GOALS[name]
    memory = played.final.high_replay
    assert memory is not None
    expected: list[dict[str, Any]] = []
    began: dict[int, dict[str, list[int]]] = {}
    window: dict[int, list[Step]] = {}
    for index, step in enumerate(replayed(played)):
        b = step.place
        if step.t % goals.period == 0:
            began[b], window[b] = step.before, []
        window[b].append(step)
        whole = len(window[b]) == goals.period
        if not whole and not (step.last and goals.store_partial_window):
            continue
        sums, done = [0.0] * goals.count, np.zeros((goals.count, E))
        for position, past in enumerate(window[b]):
            sums[stage_of_step(position, goals)] += REWARD[past.answer]
            done[stage_of_step(position, goals)] += EMBEDDING[past.item]
        norm = np.linalg.norm(done, axis=1, keepdims=True)
        mean = np.divide(done, norm, out=np.zeros_like(done), where=norm > 0)
        expected.append(
            {
                "clicked": last_n(began[b]["clicked"]),
                "ordered": last_n(began[b]["ordered"]),
                "goals": mean if goals.hindsight else goals_in_force(played, index // B, b),
                "stage_reward": sums,
                "steps": len(window[b]),
                "truncated": step.last,
                "next_clicked": last_n(step.after["clicked"]),
                "next_ordered": last_n(step.after["ordered"]),
            }
        )
    assert int(memory.size) == len(expected) > 20
    for index, wanted in enumerate(expected):
        for field, value in wanted.items():
            np.testing.assert_allclose(getattr(memory.rows, field)[index], value, atol=1e-5, err_msg=field)
    partial = sum(row["steps"] < goals.period for row in expected)
    assert (partial > 0) == (goals.store_partial_window and name != "conditioned")
    assert {row["truncated"] for row in expected} == ({False} if name == "three" else {False, True})


@pytest.mark.parametrize("name", quick(LEARNERS))
def test_sessions_are_staggered_by_windows_restart_after_t_and_repeat_nothing(name: str) -> None:
    played, learner = run(name), LEARNERS[name]
    length, period = learner.env.episode_length, GOALS[played.name].period
    step, start = played.states.episodes.state.step, played.states.episodes.state.start
    assert (step[0] % period == 0).all()
    assert set(step[0].tolist()) == set(range(0, length - period + 1, period))  # as many as there are windows
    np.testing.assert_array_equal(step[1:], np.where(step[:-1] == length - 1, 0, step[:-1] + 1))
    restarted = step[1:] == 0
    assert (start[1:] == start[:-1])[~restarted].all()
    assert len(np.unique(start[1:][restarted])) > 3
    assert 0 <= start.min() <= start.max() < len(FIRST_ROWS)
    seen: list[set[int]] = [set() for _ in range(B)]
    for each in replayed(played):
        if each.t == 0:
            seen[each.place] = set()
        assert each.item not in seen[each.place]
        seen[each.place].add(each.item)


@pytest.mark.parametrize("name", quick(WITH_GOALS))
def test_goals_are_renewed_every_c_steps_and_kept_between(name: str) -> None:
    """Algorithm 2, lines 9 to 13; without noise they are HActor's for the histories of that moment."""
    played = run(name)
    for index, step in enumerate(replayed(played)):
        number, b = divmod(index, B)
        before, goals = played.states.episodes.carry.goals[number, b], goals_in_force(played, number, b)
        if step.t % GOALS[played.name].period:
            np.testing.assert_array_equal(goals, before)
            continue
        proposed = greedy_goals(played, number, b, step.before)
        if GOALS[played.name].noise == 0:
            np.testing.assert_allclose(goals, proposed, atol=1e-5)
            continue
        assert np.abs(goals - before).max() > 1e-3
        np.testing.assert_allclose(np.linalg.norm(goals, axis=-1), 1, atol=1e-5)
        assert np.abs(goals - proposed).max() > 1e-3
        near = [cosine(goal, greedy) > 0.6 for goal, greedy in zip(goals, proposed, strict=True) if greedy.any()]
        assert all(near)


def test_one_goal_is_in_force_for_the_whole_window() -> None:
    played = run("one, frozen")
    assert played.states.episodes.carry.goals.shape[2] == 1
    for index, step in enumerate(replayed(played)):
        goal = goals_in_force(played, index // B, step.place)[0]
        expected = cosine(EMBEDDING[step.item], goal)
        assert played.final.low_replay.rows.intrinsic_reward[index] == pytest.approx(expected, abs=1e-5)


def test_a_low_level_that_sees_goals_remembers_the_present_one_and_the_next() -> None:
    """The next one is HActor's without noise where a window begins with it, also after a session's last step."""
    played = run("conditioned")
    goals, rows = GOALS[played.name], played.final.low_replay.rows
    for index, step in enumerate(replayed(played)):
        number, b = divmod(index, B)
        in_force = goals_in_force(played, number, b)
        np.testing.assert_array_equal(rows.goal[index], in_force[stage_of_step(step.t, goals)])
        if (step.t + 1) % goals.period:
            expected = in_force[stage_of_step(step.t + 1, goals)]
        else:
            expected = greedy_goals(played, number, b, step.after)[0]
        np.testing.assert_allclose(rows.next_goal[index], expected, atol=1e-5)


def test_a_high_level_with_a_memory_sets_goals_by_what_it_remembers() -> None:
    """The past is that of the session's row in the log, which the replay remembers; what is lately clicked changes."""
    played, learner = run("memory"), LEARNERS["memory"]
    assert played.final.high_replay is not None
    period = GOALS[played.name].period
    starts, began, wanted, following, without = [], {}, [], [], 0
    for index, step in enumerate(replayed(played)):
        number, b = divmod(index, B)
        start = int(played.states.episodes.state.start[number, b])
        if step.t % period == 0:
            began[b] = step.before
            goals = goals_in_force(played, number, b)
            np.testing.assert_allclose(goals, greedy_goals(played, number, b, step.before), atol=1e-5)
            known = bool(remembered_by(start, step.before).any())
            np.testing.assert_allclose(np.linalg.norm(goals, axis=-1), float(known), atol=1e-5)
            without += not known
        if step.last or (step.t + 1) % period == 0:
            starts.append(start)
            wanted.append(remembered_by(start, began[b]))
            following.append(remembered_by(start, step.after))
    assert without, "no session began without a past"
    assert len({past.tobytes() for past in wanted}) > 10
    rows = jax.tree.map(lambda leaf: leaf[: len(starts)], played.final.high_replay.rows)
    np.testing.assert_array_equal(rows.row, FIRST_ROWS[starts])
    high, world = two_levels(learner).policy.high, make_world()
    assert isinstance(high, MemoryGoals)
    batch = high.batch(rows, world.index.embedding, world.env.table)
    np.testing.assert_allclose(batch.directions, np.stack(wanted), atol=1e-6)
    np.testing.assert_allclose(batch.next_directions, np.stack(following), atol=1e-6)
    np.testing.assert_allclose(batch.reward, rows.stage_reward / period, rtol=1e-6)  # one goal: no benefit to assign


def test_a_low_level_with_a_memory_sees_the_same_and_acts_by_it() -> None:
    """Before and after a step, from the replay's ids; without noise it takes the item nearest to its proposal."""
    played, learner = run("ddpg, memory"), LEARNERS["ddpg, memory"]
    steps = replayed(played)
    starts = [int(played.states.episodes.state.start[index // B, step.place]) for index, step in enumerate(steps)]
    rows = jax.tree.map(lambda leaf: leaf[: len(steps)], played.final.low_replay.rows)
    np.testing.assert_array_equal(rows.row, FIRST_ROWS[starts])
    batch = learner.low_batch(rows, make_world())
    wanted = np.stack([remembered_by(start, step.before) for start, step in zip(starts, steps, strict=True)])
    following = np.stack([remembered_by(start, step.after) for start, step in zip(starts, steps, strict=True)])
    np.testing.assert_allclose(batch.directions, wanted, atol=1e-6)
    np.testing.assert_allclose(batch.next_directions, following, atol=1e-6)
    assert np.abs(following - wanted).max() > 0.1
    low = learner.policy.low
    assert isinstance(low, DdpgLevel)
    propose = jax.jit(lambda actor, *inputs: low.networks.act(actor, *inputs[:2], jnp.asarray(EMBEDDING), inputs[2]))
    changed, recommended = 0, [set[int]() for _ in range(B)]
    for index, step in enumerate(steps):
        number, b = divmod(index, B)
        if number == 0 or step.t == 0:
            recommended[b] = set()
        left = [item for item in range(CATALOGUE) if item not in recommended[b]]
        recommended[b].add(step.item)
        if number < WARM_UP:
            continue
        actor = jax.tree.map(lambda leaf, n=number: leaf[n], played.states.low.params["actor"])
        histories = rows.browsed[index][None], rows.clicked[index][None]
        for seen in (wanted[index], np.zeros_like(wanted[index])):
            proto = np.asarray(propose(actor, *histories, seen[None].astype(np.float32)).vector)[0, 0]
            nearest = max(left, key=lambda item, proto=proto: float(EMBEDDING[item] @ proto))
            if seen.any() or not wanted[index].any():
                assert step.item == nearest
            else:
                changed += step.item != nearest
    assert changed, "the memory never mattered"


def test_the_weights_of_a_memory_are_reported_whether_they_learn_or_not() -> None:
    """In the warm-up too, when nothing is learned."""
    played, high = run("memory"), two_levels(LEARNERS["memory"]).policy.high
    assert isinstance(high, MemoryGoals)
    for number in range(STEPS):
        weights = high.networks.weights(played.at(number + 1).high.params["actor"])
        for kind, name in enumerate(REMEMBERED):
            assert played.metrics[f"high_goal_1_{name}"][number] == pytest.approx(float(weights[0, kind]), abs=1e-6)


def test_metrics_are_rates_per_session_of_the_step() -> None:
    played = run("two")
    rows = played.final.low_replay.rows
    for number in range(STEPS):
        answers = rows.feedback[number * B : (number + 1) * B].tolist()
        items = rows.item[number * B : (number + 1) * B].tolist()
        expected = {
            "reward": 7 * sum(REWARD[answer] for answer in answers) / B,
            "clicks": 7 * sum(answer >= 1 for answer in answers) / B,
            "orders": 7 * sum(answer == 2 for answer in answers) / B,
            "distinct_items": len(set(items)) / B,
            "intrinsic_reward": float(np.mean(rows.intrinsic_reward[number * B : (number + 1) * B])),
        }
        for key, value in expected.items():
            assert played.metrics[key][number] == pytest.approx(value, abs=1e-5), key


# --- Learning --------------------------------------------------------------------------------------------------------


def leaves(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", quick(LEARNERS))
def test_networks_stay_as_they_are_in_the_warm_up_and_change_after_it(name: str) -> None:
    played = run(name)
    for level in ("low", "high"):
        if getattr(played.states, level) is None:
            assert level == "high"
            assert not GOALS[name].enabled
            continue
        flat = [leaves(getattr(played.at(number), level)) for number in range(STEPS + 1)]
        for number in range(STEPS):
            stays = number < WARM_UP or (name, level) == ("one, frozen", "high")
            assert np.array_equal(flat[number], flat[number + 1]) == stays


@pytest.mark.parametrize("name", quick(WITHOUT_INFLUENCE))
def test_goals_without_weight_do_not_change_what_the_low_level_does_and_learns(name: str) -> None:
    """With alpha = 0 the low level is DDPG, whatever the high level is."""
    played, ddpg = run(name), run("ddpg")
    for field in ("browsed", "clicked", "item", "feedback", "truncated"):
        np.testing.assert_array_equal(
            getattr(played.final.low_replay.rows, field), getattr(ddpg.final.low_replay.rows, field)
        )
    for part in ("params", "target"):
        found, expected = leaves(getattr(played.final.low, part)), leaves(getattr(ddpg.final.low, part))
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(leaves(ddpg.final.low.params) - leaves(ddpg.at(0).low.params)).max() > 5e-3


def test_the_same_key_gives_the_same_run_and_another_key_another() -> None:
    played, again, other = run("three"), play("three"), play("three", seed=1)
    jax.tree.map(np.testing.assert_array_equal, again.states, played.states)
    jax.tree.map(np.testing.assert_array_equal, again.metrics, played.metrics)
    items = played.final.low_replay.rows.item
    assert (other.final.low_replay.rows.item != items).any()
    assert (leaves(other.at(0).low.params) != leaves(played.at(0).low.params)).any()


def test_the_high_level_learns_nothing_before_the_first_window_has_ended() -> None:
    """As without a warm-up: the low level learns from the first step, the high level from the third."""
    state = dataclasses.replace(restored(run("two"), 0), step=jnp.int32(WARM_UP))
    _, (before, _) = compiled(LEARNERS["two"])[1](state, make_world())
    states = on_host(before)
    for level, first_change in (("low", 0), ("high", 2)):
        flat = [leaves(jax.tree.map(lambda leaf, n=n: leaf[n], getattr(states, level))) for n in range(5)]
        assert [not np.array_equal(a, b) for a, b in itertools.pairwise(flat)] == [
            number >= first_change for number in range(4)
        ]


def test_networks_begin_different_from_each_other_and_equal_to_their_targets() -> None:
    first = run("three").at(0)
    assert first.high is not None
    for level in (first.low, first.high):
        jax.tree.map(np.testing.assert_array_equal, level.params, level.target)
        encoders = [level.params["actor"]["encoder"]["inputs"], *level.params["critic"]["encoder"]["inputs"]]
        heads = level.params["critic"]["heads"]["hidden"]
        for group in (encoders, heads.reshape(-1, *heads.shape[2:])):
            assert min(np.abs(a - b).max() for k, a in enumerate(group) for b in group[:k]) > 0.01


def restored(played: Played, step: int) -> HrlState:
    """The state on the device."""
    state = jax.tree.map(jnp.asarray, played.at(step))
    return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))


def test_a_state_that_was_put_away_goes_on_as_the_run_did() -> None:
    played = run("two")
    final, _ = compiled(LEARNERS["two"])[1](restored(played, STEPS // 2), make_world())
    jax.tree.map(np.testing.assert_array_equal, on_host(final), played.final)


@pytest.mark.long
@pytest.mark.parametrize("name", ["two", "memory", "ddpg, memory"])
def test_sessions_on_two_devices_are_the_sessions_on_one(name: str) -> None:
    with device_mesh(DevicesConfig(count=2), B, "agent.learner.sessions"):
        together = play(name)
    alone = run(name)
    for leaf, expected in zip(
        jax.tree.leaves((together.states, together.metrics)),
        jax.tree.leaves((alone.states, alone.metrics)),
        strict=True,
    ):
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-4)


def test_a_step_under_jit_is_the_step_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the warm-up; the update, which would only take time, is left out."""
    monkeypatch.setattr(hrlmg_jax.agent.low_levels, "update_level", lambda *arguments: (arguments[2], {}))
    played, number = run("ddpg"), WARM_UP - 1
    state, metrics = LEARNERS["ddpg"].train_step(restored(played, number), make_world())
    for found, wanted in zip(jax.tree.leaves(on_host(state)), jax.tree.leaves(played.at(number + 1)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    for key, value in metrics.items():
        assert float(value) == pytest.approx(float(played.metrics[key][number]), abs=1e-5)


@pytest.mark.parametrize("target_action", ["item", "proto"])
def test_critics_are_asked_about_items_if_so_set_and_about_goals_as_they_are(
    monkeypatch: pytest.MonkeyPatch, target_action: str
) -> None:
    asked = []

    def update(*arguments: Any) -> tuple[Any, dict[str, jax.Array]]:
        networks, config, level, *_, executed = arguments
        asked.append((networks.heads, (config, executed)))
        return level, {}

    for module in (hrlmg_jax.agent.low_levels, hrlmg_jax.agent.high_levels):
        monkeypatch.setattr(module, "update_level", update)
    learner, world = make_learner(GOALS["two"], target_action=target_action), make_world()
    jax.eval_shape(lambda state: learner.train_step(state, world), restored(run("two"), 0))
    of_level = dict(asked)
    proto = np.random.default_rng(3).normal(size=(5, 1, E)).astype(np.float32)
    nearest = EMBEDDING[[max(range(CATALOGUE), key=lambda i, p=p: float(EMBEDDING[i] @ p)) for p in proto[:, 0]]]
    config, executed = of_level[1]
    np.testing.assert_array_equal(executed(jnp.asarray(proto)), nearest[:, None] if target_action == "item" else proto)
    optimizer = config.optimizer
    assert (optimizer.actor_rate, optimizer.critic_rate, optimizer.clip_norm, config.tau) == (1e-3, 3e-3, 1.0, 0.05)
    goals = np.random.default_rng(4).normal(size=(5, 2, E)).astype(np.float32)
    np.testing.assert_array_equal(of_level[2][1](jnp.asarray(goals)), goals)


# --- Batches ---------------------------------------------------------------------------------------------------------


def low_rows() -> LowTransition:
    """A skip, a click, an order, and an order that ends the session."""
    return LowTransition(
        browsed=jnp.asarray([[-1, -1, 3], [1, 2, 3], [-1, 4, 5], [7, 8, 9]]),
        clicked=jnp.asarray([[-1, -1, -1], [-1, -1, 3], [4, 5, 6], [-1, 0, 1]]),
        item=jnp.asarray([10, 11, 0, 2]),
        feedback=jnp.asarray([0, 1, 2, 2], jnp.int8),
        intrinsic_reward=jnp.asarray([0.2, -1.0, 0.5, 0.0]),
        truncated=jnp.asarray([False, False, False, True]),
        goal=None,
        next_goal=None,
    )


@pytest.mark.parametrize(("terminal", "final"), [("bootstrap", 0.9), ("zero", 0.0)])
def test_low_level_batches_by_hand(terminal: str, final: float) -> None:
    learner = make_learner(goal_config(intrinsic_weight=0.5), terminal=terminal)
    batch = learner.low_batch(low_rows(), make_world())
    np.testing.assert_allclose(batch.reward, [[0.1], [0.5], [5.25], [5.0]])
    np.testing.assert_allclose(batch.discount, [0.9, 0.9, 0.9, final])
    np.testing.assert_array_equal(batch.action, EMBEDDING[[10, 11, 0, 2]][:, None])
    np.testing.assert_array_equal(batch.active, np.ones((4, 1)))
    np.testing.assert_array_equal(batch.state[0], low_rows().browsed)
    np.testing.assert_array_equal(batch.state[1], low_rows().clicked)
    assert batch.next_state[0].tolist() == [[-1, 3, 10], [2, 3, 11], [4, 5, 0], [8, 9, 2]]
    assert batch.next_state[1].tolist() == [[-1, -1, -1], [-1, 3, 11], [5, 6, 0], [0, 1, 2]]


def test_low_level_batches_of_ddpg_leave_the_intrinsic_reward_out() -> None:
    learner = make_learner(goal_config(enabled=False, intrinsic_weight=0.5))
    np.testing.assert_allclose(learner.low_batch(low_rows(), make_world()).reward, [[0], [1], [5], [5]])


@pytest.mark.parametrize("terminal", ["bootstrap", "zero"])
@pytest.mark.parametrize("discount", ["gamma", "gamma_pow_c"])
def test_high_level_batches_by_hand(terminal: str, discount: str) -> None:
    """Windows of 5 with two goals (stages of 2 and 3 steps): a whole one, a last one, and last ones cut short."""
    learner = make_learner(
        goal_config(period=5, count=2, benefit_discount=0.3, discount=discount), length=7, terminal=terminal
    )
    steps, last = np.array([5, 5, 3, 2, 1]), np.array([False, True, True, True, True])
    rows = HighTransition(
        clicked=jnp.asarray(np.arange(15).reshape(5, 3)),
        ordered=jnp.asarray(np.arange(15, 30).reshape(5, 3)),
        goals=jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, E)), jnp.float32),
        stage_reward=jnp.asarray([[1.0, 2.0], [5.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
        steps=jnp.asarray(steps),
        truncated=jnp.asarray(last),
        next_clicked=jnp.asarray(np.arange(30, 45).reshape(5, 3)),
        next_ordered=jnp.asarray(np.arange(45, 60).reshape(5, 3)),
    )
    high, world = two_levels(learner).policy.high, make_world()
    assert isinstance(high, LearnedGoals)
    batch = high.batch(rows)
    np.testing.assert_allclose(batch.reward, [[1, 2.3], [5, 1.5], [0, 1], [1, 0.3], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(batch.active, [[1, 1], [1, 1], [1, 1], [1, 0], [1, 0]])
    expected = [0.9**n if discount == "gamma_pow_c" else 0.9 for n in steps]
    if terminal == "zero":
        expected = [0 if ends else value for ends, value in zip(last, expected, strict=True)]
    np.testing.assert_allclose(batch.discount, expected, rtol=1e-6)
    np.testing.assert_array_equal(batch.action, rows.goals)
    remembering = two_levels(
        make_learner(dataclasses.replace(high.goals, memory=MEMORY), terminal=terminal)
    ).policy.high
    assert isinstance(remembering, MemoryGoals)
    with_rows = dataclasses.replace(rows, row=jnp.asarray(FIRST_ROWS[:5]))
    per_step = remembering.batch(with_rows, world.index.embedding, world.env.table).reward
    np.testing.assert_allclose(per_step, np.asarray(batch.reward) / 5, rtol=1e-6)
    for found, wanted in (
        (batch.state, (rows.clicked, rows.ordered)),
        (batch.next_state, (rows.next_clicked, rows.next_ordered)),
    ):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


# --- The best actors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddpg", "two"])
def test_the_best_actors_are_kept_and_act(name: str) -> None:
    learner, played, world = LEARNERS[name], run(name), make_world()
    early, late = restored(played, WARM_UP + 1), restored(played, STEPS)
    assert float(early.best.reward) == -np.inf
    first = learner.keep_best(early, 3.0)
    assert (float(first.best.reward), int(first.best.step)) == (3.0, WARM_UP + 1)
    late = dataclasses.replace(late, best=first.best)
    for reward in (3.0, 2.5, float("nan")):
        kept = learner.keep_best(late, reward)
        assert (float(kept.best.reward), int(kept.best.step)) == (3.0, WARM_UP + 1)
        acting, current = learner.acting_params(kept, world), learner.current_params(kept, world)
        np.testing.assert_array_equal(leaves(acting.low), leaves(early.low.params["actor"]))
        np.testing.assert_array_equal(leaves(current.low), leaves(late.low.params["actor"]))
        assert not bool(acting.warming_up)
        assert not bool(current.warming_up)
        if late.high is None:
            assert acting.high is None
            assert current.high is None
        else:
            assert early.high is not None
            np.testing.assert_array_equal(leaves(acting.high), leaves(early.high.params["actor"]))
            np.testing.assert_array_equal(leaves(current.high), leaves(late.high.params["actor"]))
    better = learner.keep_best(late, 3.5)
    assert (float(better.best.reward), int(better.best.step)) == (3.5, STEPS)
    np.testing.assert_array_equal(leaves(better.best.low), leaves(late.low.params["actor"]))
    # The copies outlive the state, whose arrays the next chunk takes over.
    own = {id(leaf) for leaf in jax.tree.leaves((late.low, late.high, late.step))}
    assert not own & {id(leaf) for leaf in jax.tree.leaves(better.best)}


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sessions", 0),
        ("batch_size", 0),
        ("high_batch_size", 0),
        ("replay_capacity", B - 1),
        ("high_replay_capacity", B - 1),
        ("actor_rate", 0.0),
        ("critic_rate", float("nan")),
        ("clip_norm", -1.0),
        ("warm_up_steps", -1),
        ("action_noise", float("inf")),
        ("gamma", 1.0),
        ("tau", 0.0),
        ("target_action", "nearest"),
        ("terminal", "one"),
    ],
)
def test_a_bad_learner_setting_is_named(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"agent.learner.{key}"):
        learner_config(**{key: value})


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("count", {"count": 0}),
        ("period", {"count": 4, "period": 3}),
        ("benefit_discount", {"benefit_discount": 1.1}),
        ("intrinsic_weight", {"intrinsic_weight": -0.5}),
        ("noise", {"noise": float("nan")}),
        ("discount", {"discount": "none"}),
        ("conditioned", {"conditioned": True, "enabled": False}),
    ],
)
def test_a_bad_goal_setting_is_named(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"agent.goals.{key}"):
        goal_config(**changes)

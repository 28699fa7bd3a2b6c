"""Whole sessions against a simulator in plain Python, with a hand-made user whose answers depend on everything."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_log
from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.fixed_policies import scripted_policy
from sim.envs.histories import make_history_table
from sim.envs.policy import Decision, Policy
from sim.envs.rollout import rollout
from sim.envs.session_env import LoggedFeedback, SessionConfig, SessionEnv, SessionParams
from sim.tables.events import CLICK, ORDER, SKIP, EventLog, build_event_log

NUM_USERS, NUM_ITEMS, LENGTH, HISTORY = 6, 30, 8, 3
CERTAIN = {SKIP: [1.0, 0.0, 0.0], CLICK: [0.0, 1.0, 0.0], ORDER: [0.0, 0.0, 1.0]}


@dataclass(frozen=True)
class MoodyUser:
    """Clicks by appeal and mood, less on what the histories hold of the same kind (item mod 3); orders by clicks.

    The hidden state is (session, mood, answers of each kind so far).
    """

    def initial(self, params, start):
        return start, params["mood"][start], jnp.zeros(3, jnp.int32)

    def probabilities(self, params, hidden, histories, item):
        _, mood, answers = hidden

        def alike(history):
            return jnp.sum((history >= 0) & (history % 3 == item % 3))

        click = jnp.clip(params["appeal"][item] + mood - 0.1 * alike(histories.browsed), 0.05, 0.9)
        given_click = 0.1 + 0.1 * alike(histories.clicked) + 0.2 * alike(histories.ordered) + 0.01 * answers[2]
        return jnp.stack([1 - click, click * (1 - given_click), click * given_click])

    def update(self, params, hidden, item, feedback):
        start, mood, answers = hidden
        return start, 0.8 * mood + 0.05 * (feedback - 1) + 0.001 * item, answers.at[feedback].add(1)


@dataclass(frozen=True)
class FixedAnswers:
    """Always the same probabilities, its parameters [3]."""

    def initial(self, params, start):
        return ()

    def probabilities(self, params, hidden, histories, item):
        return params

    def update(self, params, hidden, item, feedback):
        return ()


def oracle_session(world, rows, start, items, answers):
    """The probabilities, rewards, histories and moods of a session, given what was shown and how it was answered."""
    begins = world["begins"][start]
    user = rows[begins][0]
    seen = [(item, feedback) for owner, item, feedback in rows[:begins] if owner == user]
    mood, counts = world["mood"][start], [0, 0, 0]
    steps = []

    def last(least):
        return [item for item, feedback in seen if feedback >= least][-HISTORY:]

    for item, answer in zip(items, answers, strict=True):

        def alike(history, kind=item % 3):
            return sum(other % 3 == kind for other in history)

        click = min(max(world["appeal"][item] + mood - 0.1 * alike(last(SKIP)), 0.05), 0.9)
        given_click = 0.1 + 0.1 * alike(last(CLICK)) + 0.2 * alike(last(ORDER)) + 0.01 * counts[2]
        probabilities = [1 - click, click * (1 - given_click), click * given_click]
        seen.append((item, answer))
        mood = 0.8 * mood + 0.05 * (answer - 1) + 0.001 * item
        counts[answer] += 1
        padded = [[-1] * (HISTORY - len(last(least))) + last(least) for least in (SKIP, CLICK, ORDER)]
        steps.append((probabilities, [0, 1, 5][answer], padded, mood, list(counts)))
    return steps


@pytest.fixture(scope="module")
def rows():
    """A log of rows (user, item, feedback); the last user has one row, the first many."""
    generator = np.random.default_rng(0)
    lengths = [12, 5, 9, 2, 7, 1]
    return [
        (user, int(generator.integers(NUM_ITEMS)), int(generator.choice(3, p=[0.4, 0.4, 0.2])))
        for user, length in enumerate(lengths)
        for _ in range(length)
    ]


def log_of(rows) -> EventLog:
    return hand_made_log(*zip(*rows, strict=True), NUM_USERS, NUM_ITEMS)


@pytest.fixture(scope="module")
def world(rows):
    """Sessions that begin before the first row of users, and in the middle."""
    generator = np.random.default_rng(1)
    return {
        "begins": np.array([0, 11, 12, 14, 17, 24, 26, 28, 33, 35]),
        "mood": generator.uniform(0, 0.3, 10).astype(np.float32),
        "appeal": generator.uniform(0, 0.6, NUM_ITEMS).astype(np.float32),
    }


@pytest.fixture(scope="module")
def params(rows, world) -> SessionParams:
    model = {"mood": jnp.asarray(world["mood"]), "appeal": jnp.asarray(world["appeal"])}
    return SessionParams(make_history_table(log_of(rows)), jnp.asarray(world["begins"], jnp.int32), None, model)


ENV = SessionEnv(MoodyUser(), LENGTH, HISTORY)


@functools.partial(jax.jit, static_argnums=0)
def play(env, params, starts, items, key):
    """[B] sessions and [B, T] items -> the first observation and state, and everything each step returns, [T, B]."""
    first = reset(env, params, starts)
    keys = jax.random.split(key, items.T.shape)

    def step(state, inputs):
        observation, state, *outcome = jax.vmap(env.step, (0, 0, 0, None))(inputs[0], state, inputs[1], params)
        return state, (observation, state, *outcome)

    return first, jax.lax.scan(step, first[1], (keys, items.T))[1]


@functools.partial(jax.jit, static_argnums=0)
def reset(env, params, starts):
    return jax.vmap(env.reset_at, (0, None))(starts, params)


def stacked(histories):
    return np.stack([histories.browsed, histories.clicked, histories.ordered], -2)


@pytest.fixture(scope="module")
def played(params):
    """40 sessions with other items each, every beginning four times: inputs, and what each step returned."""
    generator = np.random.default_rng(2)
    starts = np.tile(np.arange(10, dtype=np.int32), 4)
    items = np.stack([generator.permutation(NUM_ITEMS)[:LENGTH] for _ in starts]).astype(np.int32)
    first, steps = play(ENV, params, jnp.asarray(starts), jnp.asarray(items), jax.random.key(0))
    return starts, items, jax.device_get(first), jax.device_get(steps)


def test_every_step_equals_the_oracle(rows, world, played):
    starts, items, _, (observation, state, reward, terminated, truncated, info) = played
    assert set(np.unique(info.feedback)) == {SKIP, CLICK, ORDER}
    assert (info.feedback.dtype, reward.dtype) == (np.int32, np.float32)
    for b, start in enumerate(starts):
        steps = oracle_session(world, rows, start, items[b].tolist(), info.feedback[:, b].tolist())
        probabilities, rewards, histories, mood, counts = (np.array(column) for column in zip(*steps, strict=True))
        np.testing.assert_allclose(info.probabilities[:, b], probabilities, atol=1e-6)
        np.testing.assert_array_equal(reward[:, b], rewards.astype(np.float32))
        np.testing.assert_array_equal(stacked(observation.histories)[:, b], histories)
        np.testing.assert_array_equal(stacked(state.histories)[:, b], histories)
        np.testing.assert_allclose(state.hidden[1][:, b], mood, atol=1e-6)
        np.testing.assert_array_equal(state.hidden[2][:, b], counts)
        np.testing.assert_array_equal(observation.last_item[:, b], items[b])
        so_far = np.where(np.tri(LENGTH, dtype=bool), items[b], -1)
        np.testing.assert_array_equal(observation.recommended[:, b], so_far)
        np.testing.assert_array_equal(state.start[:, b], start)
    np.testing.assert_array_equal(observation.step, np.tile(np.arange(LENGTH)[:, None] + 1, len(starts)))
    np.testing.assert_array_equal(observation.hidden[1], state.hidden[1])
    assert not terminated.any()
    np.testing.assert_array_equal(truncated, np.tile(np.arange(LENGTH)[:, None] == LENGTH - 1, len(starts)))


def test_rewards_are_those_of_the_settings():
    answers = jnp.array([[SKIP, CLICK], [ORDER, CLICK]])
    assert ENV.reward_of(answers).tolist() == [[0, 1], [5, 1]]
    assert SessionEnv(MoodyUser(), LENGTH, HISTORY, 0.5, 2.0).reward_of(answers).tolist() == [[0, 0.5], [2, 0.5]]


def test_a_session_starts_with_what_its_user_had_seen_by_then(rows, world, played):
    observation, state = jax.tree.map(lambda array: array[:10], played[2])
    assert (np.asarray(observation.step) == 0).all()
    assert (np.asarray(observation.recommended) == -1).all()
    assert (np.asarray(observation.last_item) == -1).all()
    assert observation.candidates is None
    np.testing.assert_array_equal(observation.hidden[1], world["mood"])
    np.testing.assert_array_equal(observation.row, world["begins"])
    for start, begins in enumerate(world["begins"]):
        seen = [row[1:] for row in rows[:begins] if row[0] == rows[begins][0]]
        for least, history in enumerate(
            (observation.histories.browsed, state.histories.clicked, state.histories.ordered)
        ):
            items = [item for item, feedback in seen if feedback >= least][-HISTORY:]
            assert np.asarray(history)[start].tolist() == [-1] * (HISTORY - len(items)) + items


def test_reset_draws_sessions_uniformly(params):
    keys = jax.random.split(jax.random.key(3), 5_000)
    _, state = jax.jit(jax.vmap(ENV.reset, (0, None)))(keys, params)
    counts = np.bincount(np.asarray(state.start), minlength=10)
    assert (np.abs(counts - 500) < 5 * np.sqrt(5_000 * 0.1 * 0.9)).all()
    assert len(counts) == 10


def answers_of(probabilities, keys):
    """The first answers of a user with these probabilities, one per key."""
    env = SessionEnv(FixedAnswers(), 1, 1)
    table = make_history_table(log_of([(0, 0, SKIP)]))
    params = SessionParams(table, jnp.zeros(1, jnp.int32), None, jnp.asarray(probabilities, jnp.float32))
    return np.asarray(first_answers(env, params, keys))


@functools.partial(jax.jit, static_argnums=0)
def first_answers(env, params, keys):
    _, state = env.reset_at(0, params)
    return jax.vmap(lambda key: env.step(key, state, jnp.int32(0), params)[-1].feedback)(keys)


@pytest.mark.parametrize("probabilities", [[0.9, 0.095, 0.005], [0.2, 0.3, 0.5], [0.0, 0.4, 0.6], [0.7, 0.0, 0.3]])
def test_answers_are_as_frequent_as_their_probabilities(probabilities):
    num_draws = 50_000
    answers = answers_of(probabilities, jax.random.split(jax.random.key(4), num_draws))
    counts = np.bincount(answers, minlength=3)
    p = np.array(probabilities)
    assert (np.abs(counts - num_draws * p) <= 4.5 * np.sqrt(num_draws * p * (1 - p))).all()


@pytest.mark.parametrize("answer", [SKIP, CLICK, ORDER])
def test_a_certain_answer_is_always_given(answer):
    assert (answers_of(CERTAIN[answer], jax.random.split(jax.random.key(5), 50_000)) == answer).all()


@pytest.mark.parametrize("drawn", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("answer", [SKIP, CLICK, ORDER])
def test_a_certain_answer_is_given_at_the_ends_of_what_can_be_drawn(answer, drawn, monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(drawn))
    table = make_history_table(log_of([(0, 0, SKIP)]))
    params = SessionParams(table, jnp.zeros(1, jnp.int32), None, jnp.asarray(CERTAIN[answer]))
    env = SessionEnv(FixedAnswers(), 1, 1)
    _, state = env.reset_at(0, params)
    assert int(env.step(jax.random.key(0), state, jnp.int32(0), params)[-1].feedback) == answer


def test_one_draw_gives_no_weaker_an_answer_where_the_stronger_is_likelier():
    # What makes it an inverse of the distribution function, and comparisons with common random numbers sharp.
    keys = jax.random.split(jax.random.key(6), 2_000)
    answers = [
        answers_of([1 - click, click - order, order], keys) for click, order in [(0.1, 0.0), (0.3, 0.1), (0.8, 0.3)]
    ]
    assert (answers[0] <= answers[1]).all()
    assert (answers[1] <= answers[2]).all()
    assert (answers[0] < answers[2]).any()


def test_a_session_alone_is_the_same_as_in_a_batch(params, played):
    starts, items, _, (*_, together) = played
    keys = jax.random.split(jax.random.key(0), (LENGTH, 40))

    @jax.jit
    def play_alone(start, items, keys):
        def step(state, inputs):
            _, state, *_, info = ENV.step(inputs[0], state, inputs[1], params)
            return state, info

        return jax.lax.scan(step, ENV.reset_at(start, params)[1], (keys, items))[1]

    for b in range(40):
        info = play_alone(starts[b], items[b], keys[:, b])
        np.testing.assert_array_equal(info.feedback, together.feedback[:, b])
        np.testing.assert_allclose(info.probabilities, together.probabilities[:, b], atol=1e-6)


roll = jax.jit(rollout, static_argnums=(0, 2, 6))
SCRIPTED = scripted_policy()


def play_script(env, params, script, starts, key):
    return roll(env, params, SCRIPTED, script, starts, key, True)


def test_a_rollout_keeps_what_happened(rows, world, params):
    script = jnp.asarray(np.random.default_rng(9).integers(0, NUM_ITEMS, (50, LENGTH)), jnp.int32)
    starts = np.arange(50) % 10
    played = jax.tree.map(
        np.asarray, play_script(ENV, params, script, jnp.asarray(starts, jnp.int32), jax.random.key(1))
    )
    np.testing.assert_array_equal(played.item, script.T)
    np.testing.assert_array_equal(played.reward, np.array([0, 1, 5])[played.feedback])
    for b, start in enumerate(starts):
        items, answers = played.item[:, b].tolist(), played.feedback[:, b].tolist()
        steps = oracle_session(world, rows, start, items, answers)
        np.testing.assert_allclose(played.probabilities[:, b], [step[0] for step in steps], atol=1e-6)
    other = play_script(ENV, params, script, jnp.asarray(starts, jnp.int32), jax.random.key(2))
    assert (np.asarray(other.feedback) != played.feedback).any()


# Logged sessions (Alg. 4): user, item, time, feedback, session
LOGGED = [
    (0, 7, 0, SKIP, 0),
    (0, 3, 1, ORDER, 0),
    (0, 5, 2, CLICK, 0),
    (0, 3, 9, SKIP, 1),
    (0, 8, 10, CLICK, 1),
    (1, 5, 0, ORDER, 2),
]


@pytest.fixture(scope="module")
def logged():
    """The logged sessions as an environment of their own, with ids renumbered by `build_event_log`."""
    users, items, times, feedback, sessions = (np.array(column) for column in zip(*LOGGED, strict=True))
    log = build_event_log(
        name="logged",
        users=users,
        items=items,
        times=times,
        feedback=feedback,
        sessions=sessions,
        session_gap=0.0,
        checksum="none",
        source="hand-made",
    )
    assert log.item_ids.tolist() == [3, 5, 7, 8]
    candidates = jnp.array([[2, 0, 1], [0, 3, -1], [1, -1, -1]], jnp.int32)
    answers = jnp.array([[SKIP, ORDER, CLICK], [SKIP, CLICK, SKIP], [ORDER, SKIP, SKIP]], jnp.int8)
    rows = jnp.array([0, 3, 5], jnp.int32)
    return SessionParams(make_history_table(log), rows, candidates, (candidates, answers))


def test_logged_feedback_answers_as_the_log_did_in_any_order(logged):
    env = SessionEnv(LoggedFeedback(), 3, 2)
    # Session 0 backwards; session 1 with an item (2) that it did not show; session 2 with one of another session.
    script = jnp.array([[1, 0, 2], [3, 2, 0], [1, 0, 3]], jnp.int32)
    starts = jnp.arange(3, dtype=jnp.int32)
    for seed in range(5):
        played = play_script(env, logged, script, starts, jax.random.key(seed))
        expected = [[CLICK, ORDER, SKIP], [CLICK, SKIP, SKIP], [ORDER, SKIP, SKIP]]
        np.testing.assert_array_equal(np.asarray(played.feedback).T, expected)
        np.testing.assert_array_equal(np.asarray(played.reward).T, [[1, 5, 0], [1, 0, 0], [5, 0, 0]])
        np.testing.assert_array_equal(played.probabilities.transpose(1, 0, 2), np.eye(3)[np.array(expected)])


def test_logged_answers_move_the_histories_on(logged):
    env = SessionEnv(LoggedFeedback(), 2, 2)
    script = jnp.array([[1, 0], [3, 0]], jnp.int32)
    first, (observation, *_) = play(env, logged, jnp.array([0, 1], jnp.int32), script, jax.random.key(0))
    # Session 0 begins with nothing; session 1 after 7 skipped, 3 ordered, 5 clicked, as items 2, 0, 1.
    empty = [[-1, -1]] * 3
    np.testing.assert_array_equal(stacked(first[0].histories), [empty, [[0, 1], [0, 1], [-1, 0]]])
    np.testing.assert_array_equal(
        stacked(observation.histories)[-1], [[[1, 0], [1, 0], [-1, 0]], [[3, 0], [1, 3], [-1, 0]]]
    )


def test_policies_see_the_candidates_of_their_session(logged):
    def act(params, carry, observation, key, explore):
        left = jnp.where(
            jnp.any(observation.candidates[:, :, None] == observation.recommended[:, None, :], -1),
            -1,
            observation.candidates,
        )
        return carry, Decision(jnp.max(left, -1), jnp.zeros(left.shape[0]))

    env = SessionEnv(LoggedFeedback(), 3, 2)
    starts = jnp.array([0, 2, 1], jnp.int32)
    played = roll(env, logged, Policy(lambda params, size: (), act), (), starts, jax.random.key(0), False)
    np.testing.assert_array_equal(played.item[:, 0], [2, 1, 0])
    np.testing.assert_array_equal(played.item[:2, 2], [3, 0])
    assert int(played.item[0, 1]) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("episode_length", 0),
        ("history_length", 0),
        ("click_reward", -1.0),
        ("click_reward", float("nan")),
        ("order_reward", float("inf")),
    ],
)
def test_settings_out_of_range_are_named(key, value):
    settings = {"episode_length": 50, "history_length": 10, "click_reward": 1.0, "order_reward": 5.0}
    with pytest.raises(UserError, match=f"env.{key}"):
        read_settings(SessionConfig, settings | {key: value}, "env")
    assert SessionConfig(**settings).order_reward == 5


def test_some_answer_must_be_worth_something():
    with pytest.raises(UserError, match=r"\.click_reward and \.order_reward"):
        SessionConfig(50, 10, 0.0, 0.0)

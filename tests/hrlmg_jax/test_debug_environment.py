"""Learning where the best item of every state is known: agents must come to recommend it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.agent import hrl_mg
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.learner import HrlState, Learner, LearnerConfig, TwoLevelLearner, World
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.retrieval.index import ItemIndex, RetrievalConfig
from sim.envs.histories import Histories, make_history_table
from sim.envs.rollout import rollout
from sim.envs.session_env import FeedbackModel, SessionEnv, SessionParams
from sim.tables.events import build_event_log

GROUPS, GROUP_SIZE, E, N, T = 4, 20, 8, 3, 20
ITEMS = GROUPS * GROUP_SIZE
STEPS = 200
# Which group is clicked after a click in none, the first, the second, ... group.
NEXT_IN_A_ROUND = [0, 1, 2, 3, 0]
ALWAYS_THE_SAME = [2, 2, 2, 2, 2]


class Wanted(NamedTuple):
    """Of each item, its group; of each group clicked last (none first), the group that is clicked now."""

    group: jax.Array
    after: jax.Array


class WantedFeedback:
    """A click for every item of the group that is wanted after the last click, a skip for all others."""

    def initial(self, params: Wanted, start: jax.Array) -> tuple[()]:
        return ()

    def probabilities(self, params: Wanted, hidden: tuple[()], histories: Histories, item: jax.Array) -> jax.Array:
        last = histories.clicked[-1]
        wanted = params.after[jnp.where(last < 0, 0, params.group[jnp.maximum(last, 0)] + 1)]
        return jax.nn.one_hot((params.group[item] == wanted).astype(jnp.int32), 3)

    def update(self, params: Wanted, hidden: tuple[()], item: jax.Array, feedback: jax.Array) -> tuple[()]:
        return ()


class TasteFeedback:
    """A click for every item of the group of the user who comes (user `start` likes group `start`), a skip else."""

    def initial(self, params: Wanted, start: jax.Array) -> jax.Array:
        return start

    def probabilities(self, params: Wanted, hidden: jax.Array, histories: Histories, item: jax.Array) -> jax.Array:
        return jax.nn.one_hot((params.group[item] == hidden).astype(jnp.int32), 3)

    def update(self, params: Wanted, hidden: jax.Array, item: jax.Array, feedback: jax.Array) -> jax.Array:
        return hidden


def optimum(after: list[int], first: int) -> int:
    """The most clicks that a session of T different items can have, by trying everything."""

    @functools.cache
    def most(last: int, left: tuple[int, ...], steps: int) -> int:
        found = 0
        for group, count in enumerate(left):
            if steps and count:
                clicked = group == after[last + 1]
                rest = (*left[:group], count - 1, *left[group + 1 :])
                found = max(found, clicked + most(group if clicked else last, rest, steps - 1))
        return found

    return most(first, (GROUP_SIZE,) * GROUPS, T)


def make_world(after: list[int], skipped: int = 0) -> World:
    """Items around four directions; sessions of users who clicked in each of the groups before, and of a new one.

    Before the click they were shown some items of the next group.
    """
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(GROUPS), GROUP_SIZE)
    centre = generator.normal(size=(GROUPS, E))
    embedding = centre[group] / np.linalg.norm(centre[group], axis=1, keepdims=True)
    embedding += 0.15 * generator.normal(size=(ITEMS, E))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    rows = []
    for user in range(GROUPS):
        others = (user + 1) % GROUPS * GROUP_SIZE + np.arange(skipped)
        rows += [(user, time, item, 0) for time, item in enumerate(others.tolist())]
        rows += [(user, skipped + item, user * GROUP_SIZE + item, int(item == 0)) for item in (0, 1)]
    rows += [(GROUPS, item, item, 0) for item in range(ITEMS)]  # the new one, who is to see everything
    users, times, items, feedback = map(np.array, zip(*rows, strict=True))
    log = build_event_log(
        name="log",
        users=users,
        items=items,
        times=times,
        feedback=feedback,
        sessions=None,
        session_gap=1e9,
        checksum="none",
        source="hand-made",
    )
    env = SessionParams(
        table=make_history_table(log),
        # After the click; the new user's first.
        rows=jnp.asarray([(skipped + 2) * user + skipped + 1 for user in range(GROUPS)] + [(skipped + 2) * GROUPS]),
        candidates=None,
        model=Wanted(jnp.asarray(group, jnp.int32), jnp.asarray(after, jnp.int32)),
    )
    return World(env, ItemIndex(jnp.asarray(embedding, jnp.float32), ITEMS), jnp.arange(1.0, ITEMS + 1))


def make_learner(with_goals: bool, users: FeedbackModel | None = None, **changes: Any) -> Learner:
    """Returns the agents; `changes` are of the goals."""
    network = NetworkConfig(
        hidden_size=16,
        state_size=16,
        critic_width=32,
        action_norm="unit",
        action_bound=1.0,
        q_output="linear",
        critics="twin",
    )
    goals = GoalConfig(
        enabled=with_goals,
        count=2,
        period=10,
        intrinsic_weight=0.5,
        benefit_discount=0.5,
        noise=0.1,
        conditioned=False,
        frozen=False,
        hindsight=False,
        discount="gamma",
        store_partial_window=True,
    )
    goals = dataclasses.replace(goals, **changes)
    config = LearnerConfig(
        sessions=32,
        warm_up_steps=60,
        batch_size=64,
        high_batch_size=64,
        replay_capacity=20_000,
        high_replay_capacity=5_000,
        gamma=0.95,
        tau=0.01,
        actor_rate=1e-3,
        critic_rate=3e-3,
        clip_norm=1.0,
        action_noise=0.1,
        target_action="item",
        terminal="bootstrap",
    )
    settings = hrl_mg.Settings(
        name="tested", network=network, goals=goals, learner=config, retrieval=RetrievalConfig("exact", 1)
    )
    return hrl_mg.make_learner(settings, SessionEnv(users or WantedFeedback(), T, N), E)


class Compiled(NamedTuple):
    """An agent's functions, which all problems share."""

    init: Callable[..., HrlState]
    train: Callable[..., tuple[HrlState, Any]]
    clicks: Callable[..., jax.Array]


@pytest.fixture(
    scope="module", params=[pytest.param(False, id="ddpg", marks=pytest.mark.long), pytest.param(True, id="hrl_mg")]
)
def agent(request: pytest.FixtureRequest) -> Compiled:
    return compiled(make_learner(request.param))


def compiled(learner: Learner) -> Compiled:
    def train(state: HrlState, world: World) -> tuple[HrlState, Any]:
        return jax.lax.scan(lambda state, _: learner.train_step(state, world), state, None, length=STEPS)

    def clicks(state: HrlState, world: World) -> jax.Array:
        """Of a greedy session from every start (Algorithm 3)."""
        params, starts = learner.current_params(state, world), jnp.arange(GROUPS + 1)
        policy = learner.policy.as_policy()
        return rollout(learner.env, world.env, policy, params, starts, jax.random.key(1), explore=False).reward.sum(0)

    return Compiled(jax.jit(learner.init), jax.jit(train), jax.jit(clicks))


@pytest.mark.parametrize(
    ("after", "chunks"),
    [pytest.param(NEXT_IN_A_ROUND, 2, id="by last click"), pytest.param(ALWAYS_THE_SAME, 1, id="always the same")],
)
def test_nine_tenths_of_the_optimum_are_reached(agent: Compiled, after: list[int], chunks: int) -> None:
    world = make_world(after)
    best = np.array([optimum(after, first) for first in range(-1, GROUPS)])
    assert (best == T).all()
    state = jax.jit(agent.init)(jax.random.key(0), world)
    assert np.mean(agent.clicks(state, world)) < 0.6 * T
    for _ in range(chunks):
        state, metrics = agent.train(state, world)
    found = np.asarray(agent.clicks(state, world))
    assert found.mean() >= 0.9 * best.mean()
    assert all(np.isfinite(np.asarray(values)).all() for values in metrics.values())


@pytest.mark.long
def test_a_memory_learns_to_set_goals_to_what_each_user_has_liked() -> None:
    """Every user likes the group of a click before the session, and was shown more of the next group.

    The weights begin with the wrong sign: goals point away from what was clicked, and to what was shown.
    """
    learner = make_learner(True, TasteFeedback(), memory=10, conditioned=True, hindsight=True)
    assert isinstance(learner, TwoLevelLearner)
    agent, world = compiled(learner), make_world(ALWAYS_THE_SAME, skipped=5)
    observation = jax.vmap(learner.env.reset_at, (0, None))(jnp.arange(GROUPS), world.env)[0]
    centre = np.asarray(world.index.embedding).reshape(GROUPS, GROUP_SIZE, E).mean(1)
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)

    def towards(state: HrlState) -> np.ndarray:
        """[GROUPS, M] cosines of goals at the beginning of sessions and what the users like."""
        goals = learner.policy.set_goals(learner.current_params(state, world), observation)
        return np.sum(np.asarray(goals) * centre[:, None], -1)

    state = jax.jit(agent.init)(jax.random.key(0), world)
    assert state.high is not None
    wrong = {"weights": jnp.tile(0.02 * jnp.asarray([1.0, -1.0, 0.0, -1.0, 0.0]), (2, 1))}
    level = dataclasses.replace(
        state.high, params={**state.high.params, "actor": wrong}, target={**state.high.target, "actor": wrong}
    )
    state = dataclasses.replace(state, high=level)
    assert towards(state).max() < 0
    state, _ = agent.train(state, world)
    assert towards(state).min() > 0.8
    assert np.asarray(agent.clicks(state, world))[:GROUPS].mean() >= 0.9 * T

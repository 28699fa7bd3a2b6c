"""The greedy oracle and the planner against every item tried one by one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_worlds import generated_log

from hrlmg_jax.baselines.oracle import oracle_policy
from hrlmg_jax.user_model.network import FeedbackNetwork, FeedbackNetworkConfig, FeedbackParams, LearnedFeedback
from sim.envs.histories import make_history_table
from sim.envs.rollout import advance, begin
from sim.envs.session_env import FeedbackModel, SessionEnv, SessionParams
from sim.generators.funnel_truth import truth_of_sessions
from sim.generators.funnel_users import FunnelModel

SESSIONS, STEPS, N = 3, 8, 4
ITEMS = 100
REWARDS = np.array([0.0, 2.0, 7.0])


def env_params(users: Any) -> SessionParams:
    log = generated_log()
    rows = log.session_starts()[5 : 5 + SESSIONS]
    return SessionParams(make_history_table(log), jnp.asarray(rows, jnp.int32), None, users)


def true_users() -> tuple[FeedbackModel, Any]:
    return FunnelModel(), truth_of_sessions(generated_log(), generated_log().session_starts()[:SESSIONS])


def learned_users() -> tuple[FeedbackModel, Any]:
    network = FeedbackNetwork(FeedbackNetworkConfig(hidden_size=3, state_size=3, width=5))
    generator = np.random.default_rng(0)
    embedding = jnp.asarray(generator.normal(size=(ITEMS, 6)), jnp.float32)
    history = jnp.zeros((1, N), jnp.int32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), history, history, jnp.zeros((1,), int), embedding))
    params = jax.tree.map(lambda leaf: generator.normal(0, 1, leaf.shape).astype(np.float32), shapes["params"])
    return LearnedFeedback(network), FeedbackParams(params, embedding)


@pytest.mark.parametrize(
    ("users", "trust_weight"),
    [
        pytest.param(true_users, 0.0, id="greedy, true users"),
        pytest.param(true_users, 3.0, id="planner"),
        pytest.param(learned_users, 0.0, id="greedy, learned users"),
    ],
)
def test_every_recommendation_is_the_best_that_is_left(users: Any, trust_weight: float) -> None:
    model, params = users()
    policy = oracle_policy(model, ITEMS, REWARDS[1], REWARDS[2], trust_weight)
    env, world = SessionEnv(model, STEPS, N), env_params(params)
    step = jax.jit(lambda episodes, key: advance(env, world, policy, params, episodes, key, False))
    rank, allowed = policy.rank, jnp.arange(ITEMS) % 7 > 0
    assert rank is not None
    ranking = jax.jit(lambda observation: rank(params, (), observation, 3, allowed))
    of_item = jax.jit(model.probabilities)
    gain = jax.jit(FunnelModel().trust_gain)
    episodes = begin(env, world, policy, params, jnp.arange(SESSIONS))
    differs_from_greedy = 0
    for number in range(STEPS):
        before, ranked = episodes.state, ranking(episodes.observation)
        episodes, played = step(episodes, jax.random.key(number))
        for session in range(SESSIONS):
            state = jax.tree.map(lambda leaf, session=session: leaf[session], before)
            done = np.asarray(state.recommended)
            values, expected = {}, {}
            for item in set(range(ITEMS)) - set(done.tolist()):
                chances = np.asarray(of_item(params, state.hidden, state.histories, jnp.int32(item)), np.float64)
                values[item] = expected[item] = chances @ REWARDS
                if trust_weight:
                    clicked = chances[1] + chances[2]
                    values[item] += trust_weight * clicked * float(gain(params, state.hidden, jnp.int32(item)))
            best = max(values.values())
            at_best = sorted((value for item, value in values.items() if item % 7), reverse=True)[:3]
            np.testing.assert_allclose(ranked.scores[session], at_best, rtol=1e-5)
            assert [values[int(item)] for item in ranked.items[session]] == pytest.approx(at_best, rel=1e-5)
            assert values[int(played.item[session])] == pytest.approx(best, rel=1e-5)
            differs_from_greedy += max(expected, key=expected.__getitem__) != int(played.item[session])
    assert (differs_from_greedy > 0) == (trust_weight > 0)


def test_trust_gain_by_hand() -> None:
    _, params = true_users()
    hidden = FunnelModel().initial(params, jnp.int32(1))
    taste, item = np.asarray(params.taste[1], np.float64), np.asarray(params.item[7], np.float64)
    expected = 0.25 * (taste @ item - 0.35 + 0.1 * float(params.order_appeal[7]))
    assert float(FunnelModel().trust_gain(params, hidden, jnp.int32(7))) == pytest.approx(expected, abs=1e-6)

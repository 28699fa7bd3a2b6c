"""Measures speed and memory of HRL-MG: `python -m hrlmg_jax.bench [--smoke] [--only SECTION ...] [--out FOLDER]`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.benchmark import Line, composed_settings, matrix_product_rate, run_benchmark, seconds_of
from harness.nearest import unit
from hrlmg_jax.feedback import FeedbackNetwork, FeedbackParams, LearnedFeedback
from hrlmg_jax.learner import HrlLearner, World
from hrlmg_jax.networks import ActorCritic
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.simulator import Simulator
from hrlmg_jax.system import Problem, fixed_rankings, load_data, make_env, make_learner
from sim.command import run_command
from sim.fixed_policies import random_policy
from sim.policy import Policy
from sim.rollout import rollout

MODULE = "hrlmg_jax.bench"
_STEPS_AT_A_TIME = 25


def settings(*overrides: str) -> RunConfig:
    """Returns the configuration of `python -m hrlmg_jax.train OVERRIDES`."""
    return composed_settings(RunConfig, "train_hrl_mg", *overrides)


def make_parts(config: RunConfig) -> tuple[HrlLearner, World, Problem]:
    """Builds learner and tables over the generated log with an untrained user model, which takes as long to ask."""
    data = load_data(config)
    key, embedding_key = jax.random.split(jax.random.key(0))
    embedding = unit(jax.random.normal(embedding_key, (data.log.num_items, config.simulator.embedding.size)))
    network = FeedbackNetwork(config.simulator.network)
    history = jnp.zeros((1, config.env.history_length), jnp.int32)
    params = network.init(key, history, history, jnp.zeros((1,), jnp.int32), embedding)["params"]
    simulator = Simulator(LearnedFeedback(network), FeedbackParams(params, embedding), {})
    problem = Problem(data, simulator, fixed_rankings(config, data))
    learner, world = make_learner(config, problem)
    return learner, world, problem


def encoding(config: RunConfig, hidden_size: int, state_size: int) -> float:
    """Returns the operations of the matrix products that make a state of two histories."""
    embedding = config.simulator.embedding.size
    gru = config.env.history_length * (embedding + hidden_size) * 3 * hidden_size
    return 2.0 * (2 * gru + 2 * hidden_size * state_size)


def level_operations(config: RunConfig, networks: ActorCritic, batch_size: int) -> float:
    """Returns the operations of one update of a level: targets forward; losses forward and (twice as much) back."""
    sizes, embedding = config.learning_agent.network, config.simulator.embedding.size
    encoders = (1 + sizes.num_critics) * encoding(config, sizes.hidden_size, sizes.state_size)
    actor = 2.0 * sizes.state_size * networks.heads * embedding
    critic = 2.0 * networks.heads * ((sizes.state_size + embedding) * sizes.critic_width + sizes.critic_width)
    forward = encoders + actor + sizes.num_critics * critic
    return batch_size * (forward + 3 * (forward + critic))


def step_operations(config: RunConfig, learner: HrlLearner, num_items: int) -> tuple[float, float]:
    """Returns the operations of the matrix products of a training step: of its recommendations, and of its updates."""
    agent, embedding = config.learning_agent, config.simulator.embedding.size
    own = encoding(config, agent.network.hidden_size, agent.network.state_size)
    user = encoding(config, config.simulator.network.hidden_size, config.simulator.network.state_size)
    retrieval = 2.0 * embedding * num_items
    played = agent.learner.sessions * (own + user + retrieval)
    updated = level_operations(config, learner.policy.low, agent.learner.batch_size)
    updated += agent.learner.batch_size * retrieval  # the target's action is the nearest item
    if learner.policy.high is not None:
        played += agent.learner.sessions * own / agent.goals.period
        updated += level_operations(config, learner.policy.high, agent.learner.high_batch_size)
    return played, updated


def bench_training(smoke: bool) -> list[Line]:
    """Training steps past the warm-up: one recommendation in every session, one update of each level."""
    config = settings("data.size=tiny" if smoke else "data.size=small", *(_SHORT if smoke else ()))
    learner, world, problem = make_parts(config)
    state = jax.block_until_ready(jax.jit(learner.init)(jax.random.key(0), world))
    state = dataclasses.replace(state, step=jnp.int32(config.learning_agent.learner.warm_up_steps))

    def several(state: Any, world: World) -> Any:
        return jax.lax.scan(lambda state, _: learner.train_step(state, world), state, None, length=_STEPS_AT_A_TIME)

    # Donated, as in training, so that the replay memories are changed in place.
    compiled = jax.jit(several, donate_argnums=0)

    def advance() -> Any:
        nonlocal state
        state, metrics = compiled(state, world)
        return metrics

    seconds = seconds_of(advance, 1 if smoke else 7) / _STEPS_AT_A_TIME
    rate = matrix_product_rate(256 if smoke else 2048)
    played, updated = step_operations(config, learner, problem.data.num_items)
    sessions, length = config.learning_agent.learner.sessions, config.env.episode_length
    levels = 2 if config.learning_agent.goals.enabled else 1
    counted = f"{played / 1e9:.3f} GFLOP of recommendations, {updated / 1e9:.3f} of updates"
    lines = [
        Line("matrix product, float32", rate / 1e9, "GFLOP/s"),
        Line("training step", seconds * 1e3, "ms", note=f"{sessions} sessions side by side; {counted}"),
        Line("step / its operations", seconds * rate / (played + updated), "x"),
        Line("updates", levels / seconds, "1/s", note="of both levels"),
        Line("sessions trained", sessions / length / seconds, "1/s", note=f"{length} recommendations each"),
        Line("replay, low level", state.low_replay.bytes_per_row, "bytes per transition", 120),
    ]
    if state.high_replay is not None:
        note = "with its M goals, which are vectors"
        lines.append(Line("replay, high level", state.high_replay.bytes_per_row, "bytes per window", note=note))
    return lines


def bench_rollout(smoke: bool) -> list[Line]:
    """Whole sessions with the learned user: greedy decisions of the agent, and a random policy."""
    config = settings("data.size=tiny" if smoke else "data.size=small", *(_SHORT if smoke else ()))
    learner, world, problem = make_parts(config)
    state = jax.jit(learner.init)(jax.random.key(0), world)
    length = config.env.episode_length
    env = make_env(config.env, problem.simulator.model, length)
    lines = []
    for sessions in (16,) if smoke else (512, 2048):
        rows = np.resize(problem.data.first_rows("train"), sessions)
        env_params = problem.env_params(rows)

        def play(policy: Policy, params: Any, env_params: Any = env_params, sessions: int = sessions) -> float:
            def batch(env_params: Any, params: Any) -> jax.Array:
                starts = jnp.arange(sessions, dtype=jnp.int32)
                return rollout(env, env_params, policy, params, starts, jax.random.key(0), explore=False).reward

            compiled = jax.jit(batch)
            return sessions / seconds_of(lambda: compiled(env_params, params), 1)

        agent = play(learner.policy.as_policy(), learner.current_params(state, world))
        alone = play(random_policy(problem.data.num_items), None)
        name = f"{sessions:,} sessions at once"
        lines.append(Line(f"{name}: agent", agent, "sessions/s", note=f"{agent * length:,.0f} recommendations/s"))
        lines.append(Line(f"{name}: simulator alone (random policy)", alone, "sessions/s"))
    return lines


_SHORT = ("env.episode_length=20", "evaluation.long=20", "evaluation.short=10", "agent.learner.replay_capacity=1000")
SECTIONS = {"training": bench_training, "rollout": bench_rollout}

if __name__ == "__main__":
    run_command(lambda: run_benchmark(MODULE, SECTIONS, ()))

"""Speed of training steps, and of whole sessions with learned users."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.reports.benchmark import (
    Line,
    matrix_product_rate,
    seconds_of,
)
from hrlmg_jax.agent.learner import World
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.benchmark.parts import Parts, latent_users, make_parts
from hrlmg_jax.problem import make_env
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.settings import PaperConfig
from sim.envs.fixed_policies import random_policy
from sim.envs.policy import Policy
from sim.envs.rollout import rollout
from sim.envs.session_env import SessionEnv

_STEPS_AT_A_TIME = 25


def encoding(config: RunConfig, hidden_size: int, state_size: int) -> float:
    """Returns the operations of the matrix products that make a state of two histories."""
    embedding = config.simulator.embedding.size
    gru = config.env.history_length * (embedding + hidden_size) * 3 * hidden_size
    return 2.0 * (2 * gru + 2 * hidden_size * state_size)


def level_operations(config: RunConfig, sizes: NetworkConfig, heads: int, batch_size: int) -> float:
    """Returns the operations of one update of a level: targets forward; losses forward and (twice as much) back."""
    embedding = config.simulator.embedding.size
    encoders = (1 + sizes.num_critics) * encoding(config, sizes.hidden_size, sizes.state_size)
    actor = 2.0 * sizes.state_size * heads * embedding
    critic = 2.0 * heads * ((sizes.state_size + embedding) * sizes.critic_width + sizes.critic_width)
    forward = encoders + actor + sizes.num_critics * critic
    return batch_size * (forward + 3 * (forward + critic))


def step_operations(parts: Parts) -> tuple[float, float]:
    """Returns the operations of the matrix products of a training step: of its recommendations, and of its updates."""
    config, agent, embedding = parts.config, parts.agent, parts.config.simulator.embedding.size
    # A recommendation: the agent's state, the user's state, the product with all items.
    acting = encoding(config, agent.network.hidden_size, agent.network.state_size)
    assert isinstance(config.simulator, PaperConfig)
    user = encoding(config, config.simulator.network.hidden_size, config.simulator.network.state_size)
    retrieval = 2.0 * embedding * parts.problem.data.num_items
    played = agent.learner.sessions * (acting + user + retrieval)
    # Updates; the low level's target asks about the nearest item.
    updated = level_operations(config, agent.network, 1, agent.learner.batch_size)
    updated += agent.learner.batch_size * retrieval
    if agent.goals.enabled:
        assert not agent.goals.memory, "operations of a memory are not counted"
        played += agent.learner.sessions * acting / agent.goals.period
        updated += level_operations(config, agent.network, agent.goals.count, agent.learner.high_batch_size)
    return played, updated


def bench_training(smoke: bool) -> list[Line]:
    """Training steps past the warm-up: one recommendation in every session, one update of each level."""
    parts = make_parts(smoke)
    config, agent, learner, world = parts.config, parts.agent, parts.learner, parts.world
    state = jax.block_until_ready(jax.jit(learner.init)(jax.random.key(0), world))
    state = dataclasses.replace(state, step=jnp.int32(agent.learner.warm_up_steps))

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
    played, updated = step_operations(parts)
    sessions, length = agent.learner.sessions, config.env.episode_length
    levels = 2 if agent.goals.enabled else 1
    counted = f"{played / 1e9:.3f} GFLOP of recommendations, {updated / 1e9:.3f} of updates"
    lines = [
        Line("matrix product, float32", rate / 1e9, "GFLOP/s"),
        Line("training step", seconds * 1e3, "ms", note=f"{sessions} sessions side by side; {counted}"),
        Line("step / its operations", seconds * rate / (played + updated), "x", 3.5),
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
    parts = make_parts(smoke)
    config, learner, world, problem = parts.config, parts.learner, parts.world, parts.problem
    state = jax.jit(learner.init)(jax.random.key(0), world)
    length = config.env.episode_length
    env = make_env(config.env, problem.simulator.model, length)
    lines = []
    for sessions in (16,) if smoke else (512, 2048):
        rows = np.resize(problem.data.first_rows("train"), sessions)
        env_params = problem.env_params(rows)

        def play(
            policy: Policy, params: Any, env: SessionEnv = env, env_params: Any = env_params, sessions: int = sessions
        ) -> float:
            def batch(env_params: Any, params: Any) -> jax.Array:
                starts = jnp.arange(sessions, dtype=jnp.int32)
                return rollout(env, env_params, policy, params, starts, jax.random.key(0), explore=False).reward

            compiled = jax.jit(batch)
            return sessions / seconds_of(lambda: compiled(env_params, params), 1)

        # The agent, the paper's users alone, latent users alone.
        agent = play(learner.policy.as_policy(), learner.current_params(state, world))
        alone = play(random_policy(problem.data.num_items), None)
        name = f"{sessions:,} sessions at once"
        lines.append(Line(f"{name}: agent", agent, "sessions/s", note=f"{agent * length:,.0f} recommendations/s"))
        lines.append(Line(f"{name}: simulator alone (random policy)", alone, "sessions/s"))
        model, of_latent = latent_users(problem, rows)
        latent = play(random_policy(problem.data.num_items), None, make_env(config.env, model, length), of_latent)
        lines.append(Line(f"{name}: latent users alone / the paper's", latent / alone, "x", 0.5, at_most=False))
    return lines

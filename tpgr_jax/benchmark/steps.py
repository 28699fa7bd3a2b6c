"""Speed of training steps and decisions of TPGR."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from harness.compute.sharding import on_every_device
from harness.reports.benchmark import (
    Line,
    matrix_product_rate,
    seconds_of,
)
from sim.envs.fixed_policies import random_policy
from sim.envs.rating_env import STATUS_SIZE
from sim.envs.rollout import rollout
from tpgr_jax.agents.reinforce import LearnerState, Reinforce, World
from tpgr_jax.agents.tree_policy import PolicyParams
from tpgr_jax.benchmark.parts import EPISODES, SMOKE_EPISODES, random_tree, tree_learner, tree_settings
from tpgr_jax.networks.encoder import REWARD_BINS
from tpgr_jax.problem import make_problem
from tpgr_jax.settings import devices_of

PAPER_STEP_SECONDS = 3.0  # Table 3, MovieLens: a training step of 1,000 episodes on a 4-core i7-4790K
PAPER_DECISION_SECONDS = 3.4  # Table 3, MovieLens: 10^6 decisions
_STEPS_AT_A_TIME = 5


def operations(learner: Reinforce) -> tuple[float, float]:
    """Returns the floating-point operations of the matrix products of a rollout and of an update.

    A product of [n, a] and [a, b] counts 2 n a b; the update's products count three times (forward, and backward to
    both factors). Everything else (recurrence, softmax, masks, sampling, sorting, Adam) counts nothing.
    """
    network = learner.policy.network
    encoder = network.encoder
    status = STATUS_SIZE if encoder.status_in_rnn else 0
    widths = (encoder.state_size, *network.hidden, network.num_children)
    head = sum(first * second for first, second in itertools.pairwise(widths))
    inputs = encoder.embedding_size + REWARD_BINS + status
    decision = 2 * (inputs * 4 * encoder.hidden_size + network.depth * head)
    decisions = learner.episodes_per_step * learner.env.episode_length
    return float(decisions * decision), 3.0 * decisions * decision


def time_parts(learner: Reinforce, world: World, repeats: int) -> dict[str, float]:
    """Returns median seconds of a training step, of its rollout and of its update alone."""
    state = jax.block_until_ready(jax.jit(learner.init)(jax.random.key(0)))
    world = jax.jit(on_every_device)(world)
    users = jnp.resize(world.env.users, (learner.episodes_per_step,))
    policy = learner.policy.as_policy()

    def play(state: LearnerState, world: World) -> Any:
        params = PolicyParams(state.params, world.tree)
        return rollout(learner.env, world.env, policy, params, users, state.key, explore=True)

    def several(state: LearnerState, world: World) -> Any:
        return jax.lax.scan(lambda state, _: learner.train_step(state, world), state, None, length=_STEPS_AT_A_TIME)

    compiled_play, compiled_steps = jax.jit(play), jax.jit(several)
    compiled_update = jax.jit(lambda state, tree, trajectory: learner.update(state, tree, trajectory))
    trajectory = jax.block_until_ready(compiled_play(state, world))
    return {
        "rollout": seconds_of(lambda: compiled_play(state, world), repeats),
        "update": seconds_of(lambda: compiled_update(state, world.tree, trajectory), repeats),
        "step": seconds_of(lambda: compiled_steps(state, world), repeats) / _STEPS_AT_A_TIME,
    }


def bench_step(smoke: bool) -> list[Line]:
    """A training step against the machine's own rate (MovieLens-1M sizes) and against Table 3 (MovieLens-10M sizes)."""
    rate = matrix_product_rate(256 if smoke else 2048)
    lines = [Line("matrix product, float32", rate / 1e9, "GFLOP/s")]
    episodes = SMOKE_EPISODES if smoke else EPISODES
    for size in ("tiny",) if smoke else ("movielens_1m", "movielens_10m"):
        config = tree_settings(
            f"data.size={size}",
            f"train.episodes_per_step={episodes}",
            "agent.policy.embedding=random",
            f"env.allow_repeats={str(size == 'movielens_10m').lower()}",  # as in Table 3
        )
        problem = make_problem(config.data, config.env)
        learner, world = tree_learner(config, problem, random_tree(problem.data.num_items, config.tree.depth))
        with devices_of(config, problem.data.num_items):
            seconds = time_parts(learner, world, 1 if smoke else 7)
        played, updated = operations(learner)
        ideal = (played + updated) / rate
        decisions = episodes * problem.env.episode_length
        name = f"{size}, {problem.data.num_items:,} items"
        counted = f"{(played + updated) / 1e9:.2f} GFLOP"
        most = 3.5 if size == "movielens_1m" else None
        lines += [
            Line(f"{name}: training step", seconds["step"], "s", note=f"{episodes:,} episodes x 32 steps; {counted}"),
            *(
                Line(f"{name}: its {part}", seconds[part], "s", note=f"{seconds[part] * rate / counts:.1f} x ideal")
                for part, counts in (("rollout", played), ("update", updated))
            ),
            Line(f"{name}: step / its operations", seconds["step"] / ideal, "x", most),
            Line(f"{name}: episodes trained", episodes / seconds["step"], "1/s"),
        ]
        if size == "movielens_10m":
            million = seconds["rollout"] * 1e6 / decisions
            on_gpu = jax.devices()[0].platform == "gpu"
            step_target, decision_target = (3000, None) if on_gpu else (28, 4)
            ours = f", ours {million:.2f} s"
            lines += [
                _paper_over_ours("training step", PAPER_STEP_SECONDS, seconds["step"], step_target),
                _paper_over_ours("10^6 decisions", PAPER_DECISION_SECONDS, million, decision_target, ours),
            ]
    return lines


def _paper_over_ours(what: str, paper: float, ours: float, target: float | None, note: str = "") -> Line:
    name, note = f"paper's Table 3 / ours: {what}", f"paper {paper} s{note}"
    return Line(name, paper / ours, "x", target, at_most=False, note=note)


def bench_decisions(smoke: bool) -> list[Line]:
    """How many decisions a second the tree policy takes where a batch fills the device, beside the bare simulator."""
    config = tree_settings("data.size=tiny" if smoke else "data.size=movielens_10m", "env.allow_repeats=true")
    problem = make_problem(config.data, config.env)
    learner, world = tree_learner(config, problem, random_tree(problem.data.num_items, config.tree.depth))
    state = jax.jit(learner.init)(jax.random.key(0))
    on_gpu = jax.devices()[0].platform == "gpu"
    lines = []
    # The policy, and a random one, whose time is the simulator's own.
    for episodes in (SMOKE_EPISODES,) if smoke else (1_024, 8_192, *((65_536, 262_144, 1_048_576) if on_gpu else ())):
        users = jnp.resize(world.env.users, (episodes,))

        def play(policy: Any, params: Any, users: jax.Array = users) -> Any:
            def episode_batch(env: Any, params: Any, users: jax.Array) -> jax.Array:
                return rollout(learner.env, env, policy, params, users, jax.random.key(0), explore=True).reward

            compiled = jax.jit(episode_batch)
            batch = replace(config, train=replace(config.train, episodes_per_step=len(users)))
            with devices_of(batch, problem.data.num_items):
                env = jax.jit(on_every_device)(world.env)
                return seconds_of(lambda: compiled(env, params, users), 3)

        decisions = episodes * problem.env.episode_length
        tree = play(learner.policy.as_policy(), PolicyParams(state.params, world.tree))
        bare = play(random_policy(problem.data.num_items), None)
        target = 1e8 if on_gpu and episodes == 1_048_576 else None
        name = f"{episodes:,} episodes at once"
        lines.append(Line(f"{name}: decisions", decisions / tree, "1/s", target, at_most=False))
        lines.append(Line(f"{name}: simulator alone (random policy)", decisions / bare, "1/s"))
    if not on_gpu:
        lines.append(
            Line("on one H200: decisions", math.nan, "1/s", 1e8, at_most=False, note="needs a GPU: same command")
        )
    return lines

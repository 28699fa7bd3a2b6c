"""Measures speed and memory of TPGR: `python -m tpgr_jax.bench [--smoke] [--only SECTION ...] [--out FOLDER]`."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from harness.commands.command import run_command
from harness.compute.memory import return_free_memory
from harness.compute.sharding import on_every_device
from harness.errors import UserError
from harness.reports.benchmark import (
    Line,
    alternating_seconds,
    composed_settings,
    fitted_exponent,
    matrix_product_rate,
    measure_point,
    peak_memory,
    run_benchmark,
    seconds_of,
)
from sim.envs.fixed_policies import random_policy
from sim.envs.rating_env import STATUS_SIZE, RatingEnv
from sim.envs.rollout import rollout
from sim.envs.simulator import make_simulator
from sim.recommend.recommender import Recommender
from sim.recommend.speed import seconds_by_kind, speed_lines
from sim.tables.ratings import RatingData
from tpgr_jax.agents.reinforce import LearnerState, Reinforce, World
from tpgr_jax.agents.tpgr import Settings, make_learner
from tpgr_jax.agents.tree_policy import PolicyParams
from tpgr_jax.agents.value_tree import Learned
from tpgr_jax.bench_serving import measure_serving
from tpgr_jax.methods import Method, RunContext
from tpgr_jax.networks.encoder import REWARD_BINS
from tpgr_jax.problem import Problem, make_problem
from tpgr_jax.recommender import RatingSystem
from tpgr_jax.registry import build_method
from tpgr_jax.settings import RunConfig, devices_of
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import ItemTree
from tpgr_jax.tree.item_vectors import build_item_tree

MODULE = "tpgr_jax.bench"
EPISODES, EPISODE_LENGTH = 1000, 32
_SMOKE_EPISODES = 8
PAPER_STEP_SECONDS = 3.0  # Table 3, MovieLens: a training step of 1,000 episodes on a 4-core i7-4790K
PAPER_DECISION_SECONDS = 3.4  # Table 3, MovieLens: 10^6 decisions
TABLE_3_CATALOGUES = (("MovieLens", 10_677), ("Netflix", 17_770))
TABLE_3 = {
    "tpgr": ((3.0, 3.1), (3.4, 3.9)),
    "dqn_r": ((13.1, 15.3), (19.6, 34.6)),
    "ddpg_r": ((44.6, 58.6), (29.4, 49.6)),
    "ddpg_knn_1": ((1.3, 1.3), (1.8, 1.8)),
    "ddpg_knn_tenth": ((24.2, 40.3), (200.4, 313.0)),
    "ddpg_knn_all": ((248.4, 323.9), (1875.0, 3073.2)),
}
"""The paper's: seconds per training step of 1,000 episodes, and per 10^6 decisions, on MovieLens and Netflix."""
RECOMMENDING = ("tpgr", "tpgr_plus", "gaussian_posterior", "linear_ucb", "dqn_r", "ddpg_r", "ddpg_knn_tenth")
"""Methods whose lists are timed."""
_SMOKE_USERS = 16
# Of drawn output layers. The logits of a node then have a standard deviation of 1.2 to 1.5 for a user with three
# ratings and of 1.7 to 2.4 for one with a whole episode; those of TPGR trained on 200,000 episodes of MovieLens-1M have
# 1.3 to 25, and 1.4 to 41.
_KERNEL_SPREAD, _BIAS_SPREAD = 3.0, 1.3
_STEPS_AT_A_TIME = 5
_USERS, _RATINGS_PER_USER = 2_000, 50
_FLAT_LIMIT = 2**25  # decisions x items of a training step, beyond which the flat policy's logits take gigabytes


def settings(*overrides: str) -> RunConfig:
    """Returns the configuration of `python -m tpgr_jax.train OVERRIDES`."""
    return composed_settings(RunConfig, "train", *overrides)


def tree_settings(*overrides: str) -> RunConfig:
    """Returns the configuration of TPGR for batches of any multiple of eight episodes."""
    return settings("agent.learner.episodes_per_user=8", *overrides)


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


def method_runs(config: RunConfig, problem: Problem) -> dict[str, Callable[[], Any]]:
    """Returns calls that run a training step of any learning method, and a rollout of as many episodes.

    Trees are random; a value tree's fitted parts are drawn too, so that users part ways in it.
    """
    method = _method_on_a_random_tree(config, problem)
    agent = method.agent
    assert agent is not None
    users = jnp.resize(problem.env_params.users, (config.train.episodes_per_step,))

    def play(env_params: Any, params: Any, users: jax.Array) -> Any:
        return rollout(problem.env, env_params, method.policy, params, users, jax.random.key(0), explore=True).reward

    compiled_play, compiled_step = jax.jit(play), jax.jit(agent.train_step, donate_argnums=0)
    with devices_of(config, problem.data.num_items):
        env_params, world = jax.jit(on_every_device)((problem.env_params, agent.world))
        initialise, key = jax.jit(agent.init), jax.random.key(0)
        # As in training, the compiler's memory and the state are not held together.
        shapes = jax.eval_shape(initialise, key, world)
        compiled_step.lower(shapes, world).compile()
        compiled_play.lower(env_params, jax.eval_shape(method.policy_params, shapes), users).compile()
        return_free_memory()
        state = initialise(key, world)
        if isinstance(state.params, Learned):
            state = replace(state, params=jax.jit(_with_drawn_model)(state.params))
        jax.block_until_ready(state)

    def decide() -> Any:
        with devices_of(config, problem.data.num_items):
            return compiled_play(env_params, method.policy_params(state), users)

    def step() -> Any:
        nonlocal state  # given away, as in training: two states would take twice the memory
        with devices_of(config, problem.data.num_items):
            state, metrics = compiled_step(state, world)
        return metrics

    return {"decisions": decide, "step": step}


def _with_drawn_model(learned: Learned) -> Learned:
    leaves, structure = jax.tree.flatten((learned.answers, learned.leaf_kernel))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    answers, leaf_kernel = jax.tree.unflatten(structure, drawn)
    return replace(learned, answers=answers, leaf_kernel=leaf_kernel)


def _method_on_a_random_tree(config: RunConfig, problem: Problem) -> Method:
    tree = partial(_random_tree, problem.data.num_items, config.tree.depth)
    return build_method(problem, config.agent, RunContext(config.seed, config.train.episodes_per_step, tree))


def _tree_learner(config: RunConfig, problem: Problem, tree: ItemTree) -> tuple[Reinforce, World]:
    return make_learner(problem, cast(Settings, config.agent), tree, config.train.episodes_per_step)


def _random_tree(num_items: int, depth: int) -> ItemTree:
    return build_tree(num_items, depth, make_clustering("random", None, 0))


def bench_step(smoke: bool) -> list[Line]:
    """A training step against the machine's own rate (MovieLens-1M sizes) and against Table 3 (MovieLens-10M sizes)."""
    rate = matrix_product_rate(256 if smoke else 2048)
    lines = [Line("matrix product, float32", rate / 1e9, "GFLOP/s")]
    episodes = _SMOKE_EPISODES if smoke else EPISODES
    for size in ("tiny",) if smoke else ("movielens_1m", "movielens_10m"):
        config = tree_settings(
            f"data.size={size}",
            f"train.episodes_per_step={episodes}",
            "agent.policy.embedding=random",
            f"env.allow_repeats={str(size == 'movielens_10m').lower()}",  # as in Table 3
        )
        problem = make_problem(config.data, config.env)
        learner, world = _tree_learner(config, problem, _random_tree(problem.data.num_items, config.tree.depth))
        with devices_of(config, problem.data.num_items):
            seconds = time_parts(learner, world, 1 if smoke else 7)
        played, updated = operations(learner)
        ideal = (played + updated) / rate
        decisions = episodes * problem.env.episode_length
        name = f"{size}, {problem.data.num_items:,} items"
        counted = f"{(played + updated) / 1e9:.2f} GFLOP"
        lines += [
            Line(f"{name}: training step", seconds["step"], "s", note=f"{episodes:,} episodes x 32 steps; {counted}"),
            *(
                Line(f"{name}: its {part}", seconds[part], "s", note=f"{seconds[part] * rate / counts:.1f} x ideal")
                for part, counts in (("rollout", played), ("update", updated))
            ),
            Line(f"{name}: step / its operations", seconds["step"] / ideal, "x", 4 if size == "movielens_1m" else None),
            Line(f"{name}: episodes trained", episodes / seconds["step"], "1/s"),
        ]
        if size == "movielens_10m":
            million = seconds["rollout"] * 1e6 / decisions
            on_gpu = jax.devices()[0].platform == "gpu"
            step_target, decision_target = (3000, None) if on_gpu else (25, 3)
            ours = f", ours {million:.2f} s"
            lines += [
                _paper_over_ours("training step", PAPER_STEP_SECONDS, seconds["step"], step_target),
                _paper_over_ours("10^6 decisions", PAPER_DECISION_SECONDS, million, decision_target, ours),
            ]
    return lines


def _paper_over_ours(what: str, paper: float, ours: float, target: float | None, note: str = "") -> Line:
    name, note = f"paper's Table 3 / ours: {what}", f"paper {paper} s{note}"
    return Line(name, paper / ours, "x", target, at_most=False, note=note)


def sparse_catalogue(num_items: int) -> RatingData:
    """Returns few ratings over a catalogue of any size, for timing only."""
    generator = np.random.default_rng(0)
    stretch = num_items // _RATINGS_PER_USER  # one rated item in each stretch: distinct and ascending
    offsets = generator.integers(0, stretch, (_USERS, _RATINGS_PER_USER))
    items = (np.arange(_RATINGS_PER_USER) * stretch + offsets).astype(np.int32).ravel()
    return RatingData(
        name=f"catalogue of {num_items}",
        user_ids=np.arange(_USERS),
        item_ids=np.arange(num_items),
        indptr=np.arange(_USERS + 1, dtype=np.int64) * _RATINGS_PER_USER,
        items=items,
        codes=generator.integers(1, 6, len(items)).astype(np.uint8),
        rating_values=np.array([np.nan, 1, 2, 3, 4, 5]),
        timestamps=None,
        rating_min=1.0,
        rating_max=5.0,
        checksum="none",
        source="generated",
        synthetic=True,
    )


def catalogue_problem(config: RunConfig, num_items: int) -> Problem:
    """Returns the simulator over a catalogue of a given size."""
    data = sparse_catalogue(num_items)
    users = np.arange(data.num_users)
    simulator = make_simulator(config.env, data, users, config.data.hits_above)
    return Problem(data, users, users, np.ones(len(users), np.int64), *simulator, config.data, config.env)


def catalogue_point(items: int, depth: int, episodes: int, repeats: int) -> dict[str, float]:
    """Times decisions and training steps over a catalogue; run in a process of its own. Depth 0 is DQN-R."""
    common = (
        f"train.episodes_per_step={episodes}",
        "agent.policy.embedding=random",
        "agent.policy.train_embedding=false",
        "devices.count=1",  # for every size, whatever is the default for it
    )
    if depth:
        config = tree_settings(f"tree.depth={depth}", *common)
    else:
        config = settings("agent=dqn_r", *_learning_from_as_many(episodes), *common)
    problem = catalogue_problem(config, items)
    seconds = alternating_seconds(method_runs(config, problem), repeats)
    decisions = episodes * problem.env.episode_length
    return {
        "decision": seconds["decisions"] / decisions,
        "step": seconds["step"] / decisions,
        "memory": peak_memory(),
    }


def _learning_from_as_many(episodes: int, batch: int = 64) -> tuple[str, ...]:
    """Overrides by which an agent with replay learns from (about) as many episodes in a step as it plays."""
    size = min(batch, episodes)
    return f"agent.learner.updates_per_step={-(-episodes // size)}", f"agent.learner.batch_episodes={size}"


def _point_or_reason(
    lines: list[Line], name: str, point: Callable[..., dict[str, float]], smoke: bool, sizes: Mapping[str, Any]
) -> dict[str, float] | None:
    """Measures a point; where that fails (too little memory, mostly) adds a line that says why, and returns None."""
    try:
        return measure_point(MODULE, point, smoke, **sizes)
    except UserError as failure:
        lines.append(Line(name, math.nan, "", note=str(failure).splitlines()[0]))
        return None


def _exponent(measured: Mapping[int, Mapping[str, float]], what: str, smallest: int) -> float:
    """Returns the exponent of a measurement's growth from `smallest` items on; NaN for fewer than two sizes."""
    large = {items: point[what] for items, point in measured.items() if items >= smallest}
    return fitted_exponent(list(large), list(large.values())) if len(large) > 1 else math.nan


def _seconds_in_turns(
    methods: Mapping[str, Mapping[str, Callable[[], Any]]], repeats: int
) -> dict[tuple[str, str], float]:
    """Times all runs of several methods by turns; keys are a method and its run."""
    both = {(name, what): run for name, runs in methods.items() for what, run in runs.items()}
    return alternating_seconds(both, repeats)


def bench_catalogue(smoke: bool) -> list[Line]:
    """Seconds and memory from 10^3 to 10^7 items: DQN-R, the flat policy (depth 1), and depths 2 to 4."""
    lines = []
    sizes = (1_000,) if smoke else (10**3, 10**4, 10**5, 10**6, 10**7)
    for depth, kind in enumerate(("DQN-R",) if smoke else ("DQN-R", "flat", "depth 2", "depth 3", "depth 4")):
        measured = {}
        for items in sizes:
            most = _SMOKE_EPISODES if smoke else 256
            episodes = most if depth > 1 else min(most, _FLAT_LIMIT // (32 * items) // 8 * 8)
            name = f"{kind}, {items:,} items"
            # A size that cannot be measured says why.
            if not episodes:
                lines.append(Line(name, math.nan, "", note="too slow and too large with an output per item"))
                continue
            sizes_of_point = {"items": items, "depth": depth, "episodes": episodes, "repeats": 1 if smoke else 3}
            point = _point_or_reason(lines, name, catalogue_point, smoke, sizes_of_point)
            if point is None:
                continue
            # What it took.
            measured[items] = point
            note = f"{episodes} episodes; training step {point['step'] * 1e6:,.2f} us per decision"
            lines.append(Line(f"{name}: decision", point["decision"] * 1e6, "us", note=note))
            most_memory = {(10**6, depth): 2e9, (10**7, 3): 8e9}.get((items, depth)) if depth > 1 else None
            target = None if most_memory is None else most_memory / 2**30
            lines.append(Line(f"{name}: peak memory", point["memory"], "GiB", target))
        # How it grows with the number of items.
        for what in () if smoke else ("decision", "step"):
            exponent = _exponent(measured, what, 10**4 if depth > 1 else 0)
            aim = "about 1" if depth < 2 else f"about 1/{depth} or less"
            target = 0.25 if (what, depth) == ("step", 3) else None
            lines.append(Line(f"{kind}: exponent of seconds per {what}", exponent, "", target, note=aim))
    return lines


def value_tree_point(items: int, depth: int, episodes: int, repeats: int) -> dict[str, float]:
    """Times TPGR+ over a catalogue, alone for its memory and then in turns with TPGR at the same depth."""
    common = (f"train.episodes_per_step={episodes}", f"tree.depth={depth}", "devices.count=1")
    plus = settings("agent=tpgr_plus", *common)
    problem = catalogue_problem(plus, items)
    runs = method_runs(plus, problem)
    alternating_seconds(runs, 1)
    marks = {"memory": peak_memory()}
    tpgr = tree_settings("agent.policy.embedding=random", "agent.policy.train_embedding=false", *common)
    beside = method_runs(tpgr, catalogue_problem(tpgr, items))
    decisions = episodes * problem.env.episode_length
    seconds = _seconds_in_turns({"plus": runs, "tpgr": beside}, repeats)
    return marks | {f"{name}_{what}": value / decisions for (name, what), value in seconds.items()}


def bench_value_tree(smoke: bool) -> list[Line]:
    """TPGR+ beside TPGR: decisions and training steps at equal depth, from MovieLens-1M's catalogue to 10^6 items."""
    lines: list[Line] = []
    sizes = (1_000,) if smoke else (3_706, 10**4, 10**5, 10**6)
    for depth in (2,) if smoke else (2, 3):
        measured = {}
        for items in sizes:
            episodes = _SMOKE_EPISODES if smoke else 1_024
            point_sizes = {"items": items, "depth": depth, "episodes": episodes, "repeats": 1 if smoke else 7}
            name = f"depth {depth}, {items:,} items"
            point = _point_or_reason(lines, name, value_tree_point, smoke, point_sizes)
            if point is None:
                continue
            measured[items] = point
            ratio = point["plus_decisions"] / point["tpgr_decisions"]
            note = f"{episodes:,} episodes; TPGR {point['tpgr_decisions'] * 1e6:.2f} us"
            lines.append(Line(f"{name}: decision", point["plus_decisions"] * 1e6, "us", note=note))
            lines.append(Line(f"{name}: decision / TPGR's", ratio, "", 1.5))
            note = f"TPGR {point['tpgr_step'] * 1e6:.2f} us"
            lines.append(Line(f"{name}: training step per decision", point["plus_step"] * 1e6, "us", note=note))
            lines.append(Line(f"{name}: peak memory", point["memory"], "GiB", 4.0 if items == 10**6 else None))
        for agent in () if smoke else ("plus", "tpgr"):
            exponent = _exponent(measured, f"{agent}_decisions", 10**4)
            name = f"depth {depth}: exponent of seconds per decision, {'TPGR+' if agent == 'plus' else 'TPGR'}"
            lines.append(Line(name, exponent, "", note=f"about 1/{depth} or less"))
    return lines


def tree_point(items: int, features: int, depth: int) -> dict[str, float]:
    """Times the building of a PCA tree over dense vectors."""
    vectors = np.random.default_rng(0).standard_normal((items, features), np.float32)
    started = time.perf_counter()
    build_tree(items, depth, make_clustering("pca", vectors, 0))
    return {"seconds": time.perf_counter() - started, "memory": peak_memory()}


def bench_tree(smoke: bool) -> list[Line]:
    """Building trees over 10^6 items with 64 numbers each."""
    items = 2_000 if smoke else 10**6
    lines = []
    for depth in (2, 3):
        point = measure_point(MODULE, tree_point, smoke, items=items, features=64, depth=depth)
        name = f"{items:,} items, PCA, 64 numbers each, depth {depth}"
        lines.append(Line(name, point["seconds"], "s", 300, note=f"peak {point['memory']:.1f} GiB"))
    return lines


def netflix_point(size: str, episodes: int) -> dict[str, float]:
    """Loads, builds the tree and trains ten steps; each stage's seconds, and memory."""
    marks, started = {}, time.perf_counter()
    batch = f"train.episodes_per_step={episodes}"
    config = tree_settings(f"data.size={size}", batch, "agent.policy.embedding=random")
    problem = make_problem(config.data, config.env)
    marks["load"] = time.perf_counter() - started
    started = time.perf_counter()
    tree = build_item_tree(config.tree, problem.data, problem.train_users)
    marks["tree"] = time.perf_counter() - started
    started = time.perf_counter()
    learner, world = _tree_learner(config, problem, tree)
    device = sum(leaf.nbytes for leaf in jax.tree.leaves(world)) / 2**30
    with devices_of(config, problem.data.num_items):
        world = jax.jit(on_every_device)(world)
        _train_ten_steps(learner.train_step, jax.jit(learner.init)(jax.random.key(0)), world)
    marks["train"] = time.perf_counter() - started
    return {**marks, "memory": peak_memory(), "device": device, "ratings": problem.data.num_ratings}


def _train_ten_steps(train_step: Callable[[Any, Any], tuple[Any, Any]], state: Any, world: Any) -> None:
    step = jax.jit(train_step, donate_argnums=0)
    for _ in range(10):
        state, metrics = step(state, world)
    jax.block_until_ready(metrics)


def netflix_value_tree_point(size: str, episodes: int) -> dict[str, float]:
    """Fits TPGR+ to the ratings and trains ten steps, over a random tree; each stage's seconds, and memory."""
    config = settings("agent=tpgr_plus", f"data.size={size}", f"train.episodes_per_step={episodes}")
    problem = make_problem(config.data, config.env)
    agent = _method_on_a_random_tree(config, problem).agent
    assert agent is not None
    marks, started = {}, time.perf_counter()
    with devices_of(config, problem.data.num_items):
        world = jax.jit(on_every_device)(agent.world)
        state = agent.pretrain(jax.jit(agent.init)(jax.random.key(0), world))
        marks["fit"] = time.perf_counter() - started
        started = time.perf_counter()
        _train_ten_steps(agent.train_step, state, world)
    marks["train"] = time.perf_counter() - started
    return {**marks, "memory": peak_memory()}


def bench_netflix(smoke: bool) -> list[Line]:
    """The Netflix shape, generated: 480,189 users, 17,770 items, 100 million ratings."""
    sizes = {"size": "tiny", "episodes": _SMOKE_EPISODES} if smoke else {"size": "netflix", "episodes": 1024}
    settings_of_cache = "generated, or from the cache of an earlier run"
    steps, note = f"ten training steps of {sizes['episodes']:,} episodes", "compilation included"
    point = measure_point(MODULE, netflix_point, smoke, **sizes)
    lines = [
        Line("load the ratings", point["load"], "s", note=f"{point['ratings']:,} ratings, {settings_of_cache}"),
        Line("build the PCA tree, depth 2", point["tree"], "s"),
        Line(steps, point["train"], "s", note=note),
        Line("peak host memory", point["memory"], "GiB", 12.0),
        Line("data on the device", point["device"], "GiB", 1.0),
    ]
    plus = _point_or_reason(lines, "TPGR+", netflix_value_tree_point, smoke, sizes)
    if plus is not None:
        lines += [
            Line("TPGR+: fit the model", plus["fit"], "s", 240),
            Line(f"TPGR+: {steps}", plus["train"], "s", note=note),
            Line("TPGR+: peak host memory", plus["memory"], "GiB", 6.0),
        ]
    return lines


def bench_table3(smoke: bool) -> list[Line]:
    """All learning methods beside each other, as in Table 3: repeats allowed, hidden layers of 32 and 16.

    TPGR is timed again beside every method, in turns, so that a ratio compares what the machine did at the same time.
    """
    lines = []
    for column, (catalogue, items) in enumerate((("tiny", 50),) if smoke else TABLE_3_CATALOGUES):
        tree_runs, played = _table3_runs("tpgr", items, smoke)
        alone = alternating_seconds(tree_runs, 1 if smoke else 7)
        for agent, papers in TABLE_3.items():
            if smoke and agent not in ("tpgr", "dqn_r"):
                continue
            runs, episodes = _table3_runs(agent, items, smoke)
            both = {"tpgr": tree_runs, agent: runs}
            seconds = _seconds_in_turns(both, 1 if smoke else 3) if agent != "tpgr" else {}
            for number, what in enumerate(("step", "decisions")):
                name, unit = ("step", EPISODES) if what == "step" else ("10^6 decisions", 10**6 / EPISODE_LENGTH)
                tree = seconds.get(("tpgr", what), alone[what]) * unit / played
                ours = seconds.get((agent, what), alone[what]) * unit / episodes
                paper, papers_tree = papers[number][column], TABLE_3["tpgr"][number][column]
                note = f"{ours / tree:.2f} x TPGR's {tree:.3g} s; paper {paper:,g} s, {paper / papers_tree:.2f} x TPGR"
                lines.append(Line(f"{agent}, {catalogue}: {name}", ours, "s", note=f"{note}; {episodes} episodes"))
    return lines


def _table3_runs(agent: str, items: int, smoke: bool) -> tuple[dict[str, Callable[[], Any]], int]:
    """Returns what `method_runs` does for a method in Table 3, and with how many episodes."""
    slow = agent in ("ddpg_knn_tenth", "ddpg_knn_all")
    # A step of fewer episodes for those that would take minutes; their time grows with the episodes.
    episodes = _SMOKE_EPISODES if smoke else 64 if slow else EPISODES
    learning = () if agent == "tpgr" else _learning_from_as_many(episodes)
    compose = tree_settings if agent == "tpgr" else settings
    config = compose(
        f"agent={agent}",
        f"train.episodes_per_step={episodes}",
        "env.allow_repeats=true",
        f"env.episode_length={EPISODE_LENGTH}",
        "agent.policy.embedding=random",
        *learning,
    )
    return method_runs(config, catalogue_problem(config, items)), episodes


def bench_start(smoke: bool) -> list[Line]:
    """From the start of the process to the first completed update, without and with cached programs and tables."""
    with tempfile.TemporaryDirectory() as folder:
        cold = _first_update(Path(folder), "cold", smoke)
        warm = math.nan if smoke else _first_update(Path(folder), "warm", smoke)
    data = "MovieLens-1M" if _has_movielens() and not smoke else "generated ratings of its shape"
    limits = (None, None) if smoke else (12.0, 3.5)
    return [
        Line("first update, nothing cached", cold, "s", limits[0], note=data),
        Line("first update, programs and ratings cached", warm, "s", limits[1], note=data),
    ]


def bench_seeds(smoke: bool) -> list[Line]:
    """Whole commands: seeds that train together in one program against as many single runs; programs cached."""
    seeds, steps = (2, 1) if smoke else (8, 10)
    with tempfile.TemporaryDirectory() as folder:

        def seconds(run: str, num_seeds: int) -> float:
            each = ("log", "evaluate", "checkpoint")
            overrides = [
                f"num_seeds={num_seeds}",
                f"train.steps={steps}",
                *(f"train.{name}_every={steps}" for name in each),
                *(("agent=popularity",) if smoke else ()),
            ]
            command, environment = _train_command(Path(folder), run, smoke, overrides)
            started = time.perf_counter()
            finished = subprocess.run(command, env=environment, capture_output=True, text=True)
            if finished.returncode:
                raise UserError(f"{' '.join(command[2:])} failed:\n{finished.stderr[-2000:]}")
            return time.perf_counter() - started

        # Only that the command works.
        if smoke:
            return [
                Line(f"{seeds} seeds together", seconds("group", seeds), "s", note="whole command, nothing to train")
            ]
        # Twice each: the first compiles.
        for run, number in (("first", 1), ("first_group", seeds)):
            seconds(run, number)
        single, together = seconds("single", 1), seconds("group", seeds)
    return [
        Line(f"one seed, {steps} steps, evaluation included", single, "s", note="whole command"),
        Line(f"{seeds} seeds together", together, "s", note="whole command"),
        Line(f"{seeds} seeds together / {seeds} single commands", together / (seeds * single), "", 1.0),
    ]


def _has_movielens() -> bool:
    return (Path(os.environ.get("TPGR_JAX_DATA", "")) / "ml-1m").is_dir()


def _train_command(folder: Path, run: str, smoke: bool, overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the command line of a training on MovieLens-1M (or its shape), and its environment (own cache)."""
    data = "data.size=tiny" if smoke else "data=movielens_1m" if _has_movielens() else "data.size=movielens_1m"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["TPGR_JAX_CACHE"] = str(folder / "cache")
    command = [sys.executable, "-m", "tpgr_jax.train", data, f"hydra.run.dir={folder / run}", *overrides]
    return command, environment


def _first_update(folder: Path, run: str, smoke: bool) -> float:
    command, environment = _train_command(folder, run, smoke, ["train.log_every=1"])
    metrics = folder / run / "metrics.jsonl"
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                return math.nan
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        process.send_signal(signal.SIGKILL)
    return seconds


def bench_decisions(smoke: bool) -> list[Line]:
    """How many decisions a second the tree policy takes where a batch fills the device, beside the bare simulator."""
    config = tree_settings("data.size=tiny" if smoke else "data.size=movielens_10m", "env.allow_repeats=true")
    problem = make_problem(config.data, config.env)
    learner, world = _tree_learner(config, problem, _random_tree(problem.data.num_items, config.tree.depth))
    state = jax.jit(learner.init)(jax.random.key(0))
    on_gpu = jax.devices()[0].platform == "gpu"
    lines = []
    # The policy, and a random one, whose time is the simulator's own.
    for episodes in (_SMOKE_EPISODES,) if smoke else (1_024, 8_192, *((65_536, 262_144, 1_048_576) if on_gpu else ())):
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


def bench_recommend(smoke: bool) -> list[Line]:
    """Lists of ten items: for one user, for many at once, over 10^6 items, and from the start of a process."""
    lines = []
    agents = ("tpgr",) if smoke else RECOMMENDING
    asked = {"users": _SMOKE_USERS, "repeats": 2} if smoke else {"users": 1024, "repeats": 30}
    for agent in agents:
        sizes = {"agent": agent, "items": 0, "depth": 2, **asked}
        lines += _recommending(agent, sizes, smoke, 5 if agent == "tpgr" else 15, 20_000 if agent == "tpgr" else None)
    for depth in () if smoke else (3,):
        sizes = {"agent": "tpgr", "items": 10**6, "depth": depth, "users": 32, "repeats": 30}
        lines += _recommending(f"tpgr, 10^6 items, depth {depth}", sizes, smoke, 25, None)
    if not smoke:
        with tempfile.TemporaryDirectory() as folder:
            lines += _first_list(Path(folder))
    return lines


def _recommending(
    name: str, sizes: Mapping[str, Any], smoke: bool, most_ms: float, users_per_second: float | None
) -> list[Line]:
    lines: list[Line] = []
    point = _point_or_reason(lines, name, recommend_point, smoke, sizes)
    return lines if point is None else speed_lines(name, point, sizes["users"], most_ms, users_per_second)


def recommend_point(agent: str, items: int, depth: int, users: int, repeats: int) -> dict[str, float]:
    """Times lists of ten items for known users (whole histories) and new ones (three ratings).

    Networks are drawn, with logits as far apart as trained ones have them: where all are equal, no search is short.

    Args:
        items: Of a catalogue without structure; 0: generated ratings, of MovieLens-1M's shape for many users.
    """
    recommender = _drawn_recommender(agent, "movielens_1m" if users > _SMOKE_USERS else "tiny", items, depth)
    system = recommender.system
    assert isinstance(system, RatingSystem)
    problem = system.problem

    # Known users, and such as begin with three of their ratings.
    known = problem.data.user_ids[:users].tolist()
    histories = system.histories_of(range(len(known)))
    ids = problem.data.item_ids
    new = [list(zip(ids[one.items[:3]].tolist(), one.answers[:3].tolist(), strict=True)) for one in histories]
    return seconds_by_kind(recommender, {"known": known, "new": new}, repeats)


def _drawn_recommender(agent: str, size: str, items: int, depth: int) -> Recommender:
    """Returns a recommender whose networks are drawn; see `recommend_point`."""
    embedding = ("agent.policy.embedding=random",) if agent in ("tpgr", "dqn_r", "ddpg_r", "ddpg_knn_tenth") else ()
    config = settings(f"agent={agent}", f"data.size={size}", f"tree.depth={depth}", *embedding)
    problem = catalogue_problem(config, items) if items else make_problem(config.data, config.env)
    method = _method_on_a_random_tree(config, problem)
    state = None if method.agent is None else jax.jit(method.agent.init)(jax.random.key(0), method.agent.world)
    if state is not None:
        draw = _with_drawn_model if isinstance(state.params, Learned) else _with_drawn_heads
        state = replace(state, params=draw(state.params))
    assert isinstance(problem.env, RatingEnv)
    system = RatingSystem(problem, method, method.policy_params(state), problem.env)
    return Recommender(system, problem.data.item_ids.astype(str), "benchmark")


def _with_drawn_heads(params: Any) -> Any:
    """Draws the output layers of nodes, which are zero before training: kernels [nodes, H, C] and biases [nodes, C]."""
    leaves = flatten_dict(params)
    for path, leaf in leaves.items():
        if leaf.ndim == 3 and not jnp.any(leaf):
            bias = (*path[:-1], path[-1].replace("kernel", "bias"))
            for place, spread in ((path, _KERNEL_SPREAD), (bias, _BIAS_SPREAD)):
                shape = leaves[place].shape
                leaves[place] = spread * jax.random.normal(jax.random.key(math.prod(shape)), shape)
    return unflatten_dict(leaves)


def _first_list(folder: Path) -> list[Line]:
    """Whole commands: a list for one user, programs cached."""
    run = folder / "run"
    command, environment = _train_command(folder, "run", False, ["train.steps=1"])
    asked = [sys.executable, "-m", "tpgr_jax.recommend", f"run={run}", "user=42", "k=10"]
    seconds = []
    for words in (command, asked, asked, asked):
        started = time.perf_counter()
        finished = subprocess.run(words, env=environment, capture_output=True, text=True)
        if finished.returncode:
            raise UserError(f"{' '.join(words[2:])} failed:\n{finished.stderr[-2000:]}")
        seconds.append(time.perf_counter() - started)
    data = "MovieLens-1M" if _has_movielens() else "generated ratings of its shape"
    name = "from the start of a process to its first list, programs cached"
    return [Line(name, min(seconds[2:]), "s", 5, note=f"python -m tpgr_jax.recommend, {data}")]


def bench_serve(smoke: bool) -> list[Line]:
    """TPGR of MovieLens-1M's shape behind a server."""
    return measure_serving(_drawn_recommender("tpgr", "tiny" if smoke else "movielens_1m", 0, 2), smoke)


def bench_gym(smoke: bool) -> list[Line]:
    """Steps of the environments for others' agents (`sim.gym`) per second, with random actions."""
    try:
        from sim.gym.speed import scanned_rate, single_rate, vector_rate
        from sim.gym.worlds import RATINGS, SESSIONS, make_world
    except ImportError as missing:
        return [Line("environments of Gymnasium", math.nan, "", note=str(missing))]
    size, numbers, seconds = ("tiny", (2,), 0.01) if smoke else ("movielens_1m", (1, 256, 4096), 5.0)
    log = {"data.size": "tiny", "data.num_users": 10, "data.num_items": 100} if smoke else {}
    worlds = {
        f"ratings ({size})": make_world(RATINGS, {"data.size": size}),
        "sessions (synthetic_funnel)": make_world(SESSIONS, log, horizon=50),
    }
    lines = []
    for name, world in worlds.items():
        lines.append(Line(f"{name}: gymnasium.make", single_rate(world, seconds), "1/s"))
        for number in numbers:
            rates = [vector_rate(world, number, seconds, masks) for masks in (True, False)]
            note = f"without masks {rates[1]:,.0f}"
            lines.append(Line(f"{name}: gymnasium.make_vec, num_envs={number}", rates[0], "1/s", note=note))
        scanned = scanned_rate(world, numbers[-1], 2 if smoke else 64, 1 if smoke else 5)
        lines.append(Line(f"{name}: gymnax view, {numbers[-1]:,} in one program", scanned, "1/s"))
    return lines


SECTIONS = {
    "step": bench_step,
    "table3": bench_table3,
    "decisions": bench_decisions,
    "start": bench_start,
    "seeds": bench_seeds,
    "tree": bench_tree,
    "netflix": bench_netflix,
    "catalogue": bench_catalogue,
    "value_tree": bench_value_tree,
    "recommend": bench_recommend,
    "serve": bench_serve,
    "gym": bench_gym,
}
POINTS = (catalogue_point, value_tree_point, tree_point, netflix_point, netflix_value_tree_point, recommend_point)


def main() -> None:
    """Measures what the arguments of this process ask for."""
    run_benchmark(MODULE, SECTIONS, POINTS)


if __name__ == "__main__":
    run_command(main)

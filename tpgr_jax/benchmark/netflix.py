"""Ratings as many as those of Netflix."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

from harness.compute.sharding import on_every_device
from harness.reports.benchmark import (
    Line,
    measure_point,
    peak_memory,
)
from tpgr_jax.benchmark.parts import (
    MODULE,
    SMOKE_EPISODES,
    method_on_a_random_tree,
    point_or_reason,
    settings,
    tree_learner,
    tree_settings,
)
from tpgr_jax.problem import make_problem
from tpgr_jax.settings import devices_of
from tpgr_jax.tree.item_vectors import build_item_tree


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
    learner, world = tree_learner(config, problem, tree)
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
    agent = method_on_a_random_tree(config, problem).agent
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
    sizes = {"size": "tiny", "episodes": SMOKE_EPISODES} if smoke else {"size": "netflix", "episodes": 1024}
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
    plus = point_or_reason(lines, "TPGR+", netflix_value_tree_point, smoke, sizes)
    if plus is not None:
        lines += [
            Line("TPGR+: fit the model", plus["fit"], "s", 240),
            Line(f"TPGR+: {steps}", plus["train"], "s", note=note),
            Line("TPGR+: peak host memory", plus["memory"], "GiB", 6.0),
        ]
    return lines

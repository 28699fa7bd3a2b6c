"""What several sections measure: methods over random trees, catalogues of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from harness.compute.memory import return_free_memory
from harness.compute.sharding import on_every_device
from harness.errors import UserError
from harness.reports.benchmark import (
    Line,
    alternating_seconds,
    composed_settings,
    fitted_exponent,
    measure_point,
)
from sim.envs.rollout import rollout
from sim.envs.simulator import make_simulator
from sim.tables.ratings import RatingData
from tpgr_jax.agents.reinforce import Reinforce, World
from tpgr_jax.agents.tpgr import Settings, make_learner
from tpgr_jax.agents.value_tree import Learned
from tpgr_jax.methods import Method, RunContext
from tpgr_jax.problem import Problem
from tpgr_jax.registry import build_method
from tpgr_jax.settings import RunConfig, devices_of
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import ItemTree

MODULE = "tpgr_jax.bench"
EPISODES, EPISODE_LENGTH = 1000, 32
SMOKE_EPISODES = 8
_USERS, _RATINGS_PER_USER = 2_000, 50


def settings(*overrides: str) -> RunConfig:
    """Returns the configuration of `python -m tpgr_jax.train OVERRIDES`."""
    return composed_settings(RunConfig, "train", *overrides)


def tree_settings(*overrides: str) -> RunConfig:
    """Returns the configuration of TPGR for batches of any multiple of eight episodes."""
    return settings("agent.learner.episodes_per_user=8", *overrides)


def method_runs(config: RunConfig, problem: Problem) -> dict[str, Callable[[], Any]]:
    """Returns calls that run a training step of any learning method, and a rollout of as many episodes.

    Trees are random; a value tree's fitted parts are drawn too, so that users part ways in it.
    """
    method = method_on_a_random_tree(config, problem)
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
            state = replace(state, params=jax.jit(with_drawn_model)(state.params))
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


def with_drawn_model(learned: Learned) -> Learned:
    """Draws the fitted parts of a value tree."""
    fitted = {key: getattr(learned, key) for key in ("answers", "leaf_kernel", "mixing")}
    leaves, structure = jax.tree.flatten(fitted)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return replace(learned, **jax.tree.unflatten(structure, drawn))


def method_on_a_random_tree(config: RunConfig, problem: Problem) -> Method:
    """Returns the method that a configuration asks for; its tree, if it has one, is random."""
    tree = partial(random_tree, problem.data.num_items, config.tree.depth)
    return build_method(problem, config.agent, RunContext(config.seed, config.train.episodes_per_step, tree))


def tree_learner(config: RunConfig, problem: Problem, tree: ItemTree) -> tuple[Reinforce, World]:
    """Returns TPGR's learner over a tree, and its tables."""
    return make_learner(problem, cast(Settings, config.agent), tree, config.train.episodes_per_step)


def random_tree(num_items: int, depth: int) -> ItemTree:
    """Returns a balanced tree over items in random order."""
    return build_tree(num_items, depth, make_clustering("random", None, 0))


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


def learning_from_as_many(episodes: int, batch: int = 64) -> tuple[str, ...]:
    """Overrides by which an agent with replay learns from (about) as many episodes in a step as it plays."""
    size = min(batch, episodes)
    return f"agent.learner.updates_per_step={-(-episodes // size)}", f"agent.learner.batch_episodes={size}"


def point_or_reason(
    lines: list[Line], name: str, point: Callable[..., dict[str, float]], smoke: bool, sizes: Mapping[str, Any]
) -> dict[str, float] | None:
    """Measures a point; where that fails (too little memory, mostly) adds a line that says why, and returns None."""
    try:
        return measure_point(MODULE, point, smoke, **sizes)
    except UserError as failure:
        lines.append(Line(name, math.nan, "", note=str(failure).splitlines()[0]))
        return None


def exponent_of(measured: Mapping[int, Mapping[str, float]], what: str, smallest: int) -> float:
    """Returns the exponent of a measurement's growth from `smallest` items on; NaN for fewer than two sizes."""
    large = {items: point[what] for items, point in measured.items() if items >= smallest}
    return fitted_exponent(list(large), list(large.values())) if len(large) > 1 else math.nan


def seconds_in_turns(
    methods: Mapping[str, Mapping[str, Callable[[], Any]]], repeats: int
) -> dict[tuple[str, str], float]:
    """Times all runs of several methods by turns; keys are a method and its run."""
    both = {(name, what): run for name, runs in methods.items() for what, run in runs.items()}
    return alternating_seconds(both, repeats)

"""Speed of lists for one user, for many, and behind a server."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from harness.reports.benchmark import (
    Line,
)
from sim.envs.rating_env import RatingEnv
from sim.recommend.recommender import Recommender
from sim.recommend.speed import seconds_by_kind, speed_lines
from tpgr_jax.agents.value_tree import Learned
from tpgr_jax.benchmark.commands import first_list
from tpgr_jax.benchmark.parts import (
    catalogue_problem,
    method_on_a_random_tree,
    point_or_reason,
    settings,
    with_drawn_model,
)
from tpgr_jax.benchmark.serving import measure_serving
from tpgr_jax.problem import make_problem
from tpgr_jax.recommender import RatingSystem

RECOMMENDING = ("tpgr", "tpgr_plus", "gaussian_posterior", "linear_ucb", "dqn_r", "ddpg_r", "ddpg_knn_tenth")
"""Methods whose lists are timed."""
_SMOKE_USERS = 16
# Of drawn output layers. The logits of a node then have a standard deviation of 1.2 to 1.5 for a user with three
# ratings and of 1.7 to 2.4 for one with a whole episode; those of TPGR trained on 200,000 episodes of MovieLens-1M have
# 1.3 to 25, and 1.4 to 41.
_KERNEL_SPREAD, _BIAS_SPREAD = 3.0, 1.3


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
            lines += first_list(Path(folder))
    return lines


def _recommending(
    name: str, sizes: Mapping[str, Any], smoke: bool, most_ms: float, users_per_second: float | None
) -> list[Line]:
    lines: list[Line] = []
    point = point_or_reason(lines, name, recommend_point, smoke, sizes)
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
    method = method_on_a_random_tree(config, problem)
    state = None if method.agent is None else jax.jit(method.agent.init)(jax.random.key(0), method.agent.world)
    if state is not None:
        draw = with_drawn_model if isinstance(state.params, Learned) else _with_drawn_heads
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


def bench_serve(smoke: bool) -> list[Line]:
    """TPGR of MovieLens-1M's shape behind a server."""
    return measure_serving(_drawn_recommender("tpgr", "tiny" if smoke else "movielens_1m", 0, 2), smoke)

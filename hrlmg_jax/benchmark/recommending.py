"""Speed of lists for one user and for many."""

from __future__ import annotations

import jax
import numpy as np

from harness.reports.benchmark import (
    Line,
    composed_settings,
)
from hrlmg_jax.benchmark.parts import SHORT, make_parts
from hrlmg_jax.recommender import system_of
from hrlmg_jax.registry import build_method
from hrlmg_jax.settings import RunConfig
from sim.recommend.recommender import Recommender
from sim.recommend.speed import seconds_by_kind, speed_lines
from sim.tables.events import FEEDBACK_NAMES

RECOMMENDING = ("hrl_mg", "hrl_mg_memory", "ddpg", "ddpg_critic", "popularity")


def bench_recommend(smoke: bool) -> list[Line]:
    """Lists of ten items of drawn networks, for one user and for many at once."""
    lines = []
    for agent in RECOMMENDING[:1] if smoke else RECOMMENDING:
        seconds, users = recommend_seconds(agent, smoke)
        lines += speed_lines(agent, seconds, users, most_ms=15)
    return lines


def recommend_seconds(agent: str, smoke: bool) -> tuple[dict[str, float], int]:
    """Times lists for known users (all that the log knows of them) and new ones (three answers).

    Returns:
        Seconds, see `seconds_by_kind`, and how many users were asked for at once.
    """
    users, repeats = (8, 2) if smoke else (1024, 30)
    overrides = ["data.size=tiny", *SHORT] if smoke else ["data.size=small"]
    problem = make_parts(smoke).problem
    config = composed_settings(RunConfig, "train_hrl_mg", f"agent={agent}", *overrides)
    method = build_method(problem, config.agent)
    state = None if method.agent is None else jax.jit(method.agent.init)(jax.random.key(0), method.agent.world)
    system = system_of(problem, config, method.newest(state))
    recommender = Recommender(system, system.item_ids.astype(str), "benchmark")

    # Known users, and such as begin with three answers of theirs.
    known = system.user_ids[:users].tolist()
    histories = system.histories_of(range(len(known)))
    names = np.array(FEEDBACK_NAMES)
    new = [
        list(zip(system.item_ids[one.items[:3]].tolist(), names[one.answers[:3]].tolist(), strict=True))
        for one in histories
    ]
    return seconds_by_kind(recommender, {"known": known, "new": new}, repeats), len(known)

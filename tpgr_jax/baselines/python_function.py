"""A policy of the user's own, written in Python (`conf/agent/python.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.envs.python_policy import PythonSettings, python_policy
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.problem import Problem

_TAKEN = ("random", "popularity", "best_fixed_list")


@dataclass(frozen=True, kw_only=True)
class Settings(PythonSettings, AgentSettings):
    """What `conf/agent/python.yaml` holds."""

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        self.check_function(_TAKEN)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    function, data = settings.load(), problem.data
    distinct = not getattr(problem.env, "allow_repeats", False)

    def describe(params: Any, starts: np.ndarray) -> list[str]:
        return [f"user {user}" for user in data.user_ids[starts].tolist()]

    policy = python_policy(function, settings.batched, data.item_ids, distinct, describe)
    name = settings.result_name
    return Method(
        name, None, policy, lambda state: None, False, f"{name}: {function}, nothing to train", function.record
    )

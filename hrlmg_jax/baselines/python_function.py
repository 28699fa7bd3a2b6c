"""A policy of the user's own, written in Python (`conf/agent/python.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hrlmg_jax.evaluation.policies import BASELINES, EvaluationPolicy
from hrlmg_jax.methods import AgentSettings, Method, untrained
from hrlmg_jax.problem import Problem
from sim.envs.python_policy import PythonSettings, python_policy
from sim.envs.session_env import SessionParams


@dataclass(frozen=True, kw_only=True)
class Settings(PythonSettings, AgentSettings):
    """What `conf/agent/python.yaml` holds."""

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        super().__post_init__()
        self.check_function(BASELINES)


def build(problem: Problem, settings: Settings) -> Method:
    """Returns the function as a policy; it takes no part in the offline test, where only some items can be chosen."""
    function, data = settings.load(), problem.data
    ids = data.log.item_ids[: data.num_items]

    def describe(params: SessionParams, starts: np.ndarray) -> list[str]:
        rows = np.asarray(params.rows)[starts]
        return [f"user {user}" for user in data.log.user_ids[data.log.user[rows]].tolist()]

    policy = python_policy(function, settings.batched, ids, True, describe)
    name = settings.result_name
    tested = EvaluationPolicy(lambda users: policy, lambda _: None, False, None)
    return untrained(f"{name}, {function}", tested)._replace(function=function.record)

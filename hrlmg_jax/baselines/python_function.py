"""A policy of the user's own, written in Python (`conf/agent/python.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass

from hrlmg_jax.evaluation.policies import BASELINES, EvaluationPolicy
from hrlmg_jax.methods import AgentSettings, Method, untrained
from hrlmg_jax.problem import Problem
from sim.envs.python_policy import PythonSettings, python_policy


@dataclass(frozen=True, kw_only=True)
class Settings(PythonSettings, AgentSettings):
    """What `conf/agent/python.yaml` holds."""

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        super().__post_init__()
        self.check_function(BASELINES)

    @property
    def result_name(self) -> str:
        """The label, if there is one."""
        return self.label or self.name


def build(problem: Problem, settings: Settings) -> Method:
    """Returns the function as a policy; it takes no part in the offline test, where only some items can be chosen."""
    function, data = settings.load(), problem.data
    ids = data.log.item_ids[: data.num_items]
    policy = python_policy(function, settings.batched, ids, True, lambda start: f"session {start}")
    name = settings.result_name
    return untrained(f"{name}, {function}", EvaluationPolicy(lambda users: policy, lambda _: None, False, None))

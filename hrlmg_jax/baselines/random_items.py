"""Random items (`conf/agent/random.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass

from hrlmg_jax.evaluation.policies import random_items
from hrlmg_jax.methods import AgentSettings, Method, untrained
from hrlmg_jax.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Settings(AgentSettings):
    """The name."""


def build(problem: Problem, settings: Settings) -> Method:
    """Returns items drawn uniformly from those not recommended yet."""
    return untrained(settings.name, random_items(problem))

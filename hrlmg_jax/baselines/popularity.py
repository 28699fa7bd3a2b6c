"""The same list of items for everyone (`conf/agent/popularity.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hrlmg_jax.baselines.fixed_lists import BEST_RATE, COUNT, POPULARITY
from hrlmg_jax.evaluation.policies import fixed_list
from hrlmg_jax.methods import AgentSettings, Method, untrained
from hrlmg_jax.problem import Problem


@dataclass(frozen=True)
class RankingConfig:
    """What the items are ranked by; null is reward."""

    by: Literal["average", "count", "reward"] | None


@dataclass(frozen=True, kw_only=True)
class Settings(AgentSettings):
    """A fixed list; its result has the name that the list has beside other agents."""

    policy: RankingConfig

    @property
    def result_name(self) -> str:
        """The name of the list."""
        return {"average": BEST_RATE, "count": COUNT}.get(self.policy.by or "reward", POPULARITY)


def build(problem: Problem, settings: Settings) -> Method:
    """Returns the items of the list in order."""
    return untrained(settings.name, fixed_list(problem, settings.result_name))

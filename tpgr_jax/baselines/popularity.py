"""Popularity: the same list of items for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from sim.envs.fixed_policies import fixed_list_policy, rank_items
from tpgr_jax.methods import AgentSettings, Method, RunContext, fitted_method
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class PopularityConfig:
    """What the items are ranked by (`conf/agent/popularity.yaml`)."""

    by: Literal["average", "count", "reward"] | None

    @property
    def measure(self) -> str:
        """The paper's where none is named."""
        return self.by or "average"


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/popularity.yaml` holds."""

    policy: PopularityConfig

    @property
    def result_name(self) -> str:
        """What everybody is compared with, by average, is just "popularity"."""
        return self.name if self.policy.measure == "average" else f"{self.name}_{self.policy.measure}"


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    data, users, rewards = problem.training_ratings
    ranking = rank_items(data, users, settings.policy.measure, rewards)
    reach = problem.env.episode_length + 1  # one spare: a random first item may be on the list
    return fitted_method(settings.result_name, fixed_list_policy(reach), jnp.asarray(ranking))

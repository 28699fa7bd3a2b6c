"""DDPG-KNN (Dulac-Arnold et al. 2015): the critic's favourite among the K items nearest to the actor's proto-action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from harness.errors import UserError
from harness.settings import Count, Finite
from sim.envs.rollout import TrainingEnvironment
from tpgr_jax.baselines.item_ddpg import (
    ItemDdpg,
    ItemDdpgConfig,
    ItemDdpgPolicyConfig,
    ItemPolicy,
    item_world,
    make_item_networks,
)
from tpgr_jax.baselines.replay_learner import replay_method
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.networks.encoder import make_encoder
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class DdpgKnnPolicyConfig(ItemDdpgPolicyConfig):
    """Networks and neighbours (`conf/agent/ddpg_knn.yaml` explains each)."""

    k: Count | None
    k_fraction: Annotated[Finite, Field(gt=0, le=1)] | None
    measure: Literal["euclidean", "inner"]

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        if (self.k is None) == (self.k_fraction is None):
            raise UserError(
                f"agent.policy.k is {self.k}, agent.policy.k_fraction is {self.k_fraction}",
                do="Give one of them and set the other to null.",
            )

    def neighbours(self, num_items: int) -> int:
        """Returns K for a catalogue of I items: k, at most I, or k_fraction * I rounded up."""
        if self.k is not None:
            return min(self.k, num_items)
        assert self.k_fraction is not None
        # Rounding keeps products such as 0.1 * 30 = 3.0000000000000004 whole.
        return math.ceil(round(self.k_fraction * num_items, 9))


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/ddpg_knn.yaml` holds."""

    policy: DdpgKnnPolicyConfig
    learner: ItemDdpgConfig


def make_ddpg_knn(
    policy: DdpgKnnPolicyConfig, learner: ItemDdpgConfig, env: TrainingEnvironment, episodes_per_step: int
) -> ItemDdpg:
    """Builds the learner for a simulator.

    Raises:
        UserError: The replay memory is smaller than what a training step plays.
    """
    item_policy = ItemPolicy(
        networks=make_item_networks(policy, make_encoder(policy, env.num_items)),
        neighbours=policy.neighbours(env.num_items),
        measure=policy.measure,
        action_noise=learner.action_noise,
    )
    return ItemDdpg(env, item_policy, learner, episodes_per_step)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    world = item_world(problem, settings.policy, run.seed)
    learner = make_ddpg_knn(settings.policy, settings.learner, problem.env, run.episodes_per_step)
    return replay_method(problem, settings.result_name, settings.policy, learner, world, run)

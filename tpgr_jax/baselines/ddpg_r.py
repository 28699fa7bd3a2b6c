"""DDPG-R: the actor's vector ranks the items, the one of the largest inner product is recommended."""

from __future__ import annotations

from dataclasses import dataclass

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
class Settings(AgentSettings):
    """What `conf/agent/ddpg_r.yaml` holds."""

    policy: ItemDdpgPolicyConfig
    learner: ItemDdpgConfig


def make_ddpg_r(
    policy: ItemDdpgPolicyConfig, learner: ItemDdpgConfig, env: TrainingEnvironment, episodes_per_step: int
) -> ItemDdpg:
    """Builds the learner for a simulator.

    Raises:
        UserError: The replay memory is smaller than what a training step plays.
    """
    item_policy = ItemPolicy(
        networks=make_item_networks(policy, make_encoder(policy, env.num_items)),
        neighbours=1,
        measure="inner",
        action_noise=learner.action_noise,
    )
    return ItemDdpg(env, item_policy, learner, episodes_per_step)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    world = item_world(problem, settings.policy, run.seed)
    learner = make_ddpg_r(settings.policy, settings.learner, problem.env, run.episodes_per_step)
    return replay_method(problem, settings.result_name, settings.policy, learner, world, run)

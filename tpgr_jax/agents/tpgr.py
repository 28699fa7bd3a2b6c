"""TPGR, the paper's agent: a softmax policy at every internal node of the item tree, trained by REINFORCE."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from harness.errors import UserError
from harness.runs.seeds import read_single_run
from harness.training.agent import Agent
from tpgr_jax.agents.encoder_pretraining import pretrain_encoder
from tpgr_jax.agents.lazy_nodes import stored_params
from tpgr_jax.agents.reinforce import LearnerConfig, LearnerState, Reinforce, World, lazy_levels
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.tree_policy import PolicyConfig, make_tree_policy
from tpgr_jax.earlier_run import EarlierRun
from tpgr_jax.methods import AgentSettings, Method, RunContext, unchanged
from tpgr_jax.networks.encoder import pretrained
from tpgr_jax.problem import Problem
from tpgr_jax.tree.item_tree import ItemTree

PRETRAINING_EPISODES = 256


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/tpgr.yaml` holds."""

    policy: PolicyConfig
    learner: LearnerConfig

    @property
    def on_a_tree(self) -> bool:
        """True: it decides along the run's item tree."""
        return True

    @property
    def node_shards(self) -> int:
        """Devices that hold different nodes' networks."""
        return self.policy.head_shards

    def check(self, episodes_per_step: int) -> None:
        """Refuses a training step that would cut a user's group of episodes."""
        group = self.learner.episodes_per_user
        if episodes_per_step % group:
            raise UserError(
                f"train.episodes_per_step is {episodes_per_step}, not a multiple of "
                f"agent.learner.episodes_per_user ({group})",
                do=f"Use for instance {max(1, episodes_per_step // group) * group}.",
            )
        if self.learner.node_updates == "lazy" and self.policy.head_shards > 1:
            raise UserError(
                f"agent.learner.node_updates is lazy, agent.policy.head_shards {self.policy.head_shards}",
                do="Networks that are spread over devices are updated densely: choose auto or dense, or head_shards=1.",
            )


def make_learner(
    problem: Problem, settings: Settings, tree: ItemTree, episodes_per_step: int
) -> tuple[Reinforce, World]:
    """Builds the learner and the tables that it reads on the device."""
    policy = make_tree_policy(settings.policy, tree)
    lazy: tuple[int, ...] = ()
    if settings.policy.head_shards == 1:
        lazy = lazy_levels(settings.learner, tree.level_nodes, episodes_per_step * problem.env.episode_length)
    learner = Reinforce(problem.env, policy, settings.learner, episodes_per_step, lazy)
    return learner, World(problem.env_params, make_tree_tables(tree))


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    tree = run.tree()
    learner, world = make_learner(problem, settings, tree, run.episodes_per_step)

    def pretrain(state: LearnerState) -> LearnerState:
        if run.earlier is not None:
            return dataclasses.replace(state, params=_carried_over(run.earlier, tree, state.params))
        return dataclasses.replace(state, params=_pretrained(problem, settings.policy, learner, state.params, run.seed))

    return Method(
        settings.result_name,
        Agent(
            lambda key, world: learner.init(key),
            pretrain,
            learner.train_step,
            world,
            run.episodes_per_step,
            partition=learner.policy.partition,
        ),
        learner.policy.as_policy(),
        lambda state: learner.policy_params(state, world.tree),
        True,
        f"tree: depth {tree.depth}, {tree.num_children} children, {tree.num_internal:,} policy networks",
        finished=jax.jit(learner.finished) if learner.lazy else unchanged,
    )


def _carried_over(earlier: EarlierRun, tree: ItemTree, network: Any) -> Any:
    """Replaces freshly drawn parameters by an earlier run's: all, or without the heads where the tree is another."""
    learning_rate = read_single_run(earlier.folder)["agent"]["learner"]["learning_rate"]
    params_of = partial(stored_params, learning_rate=learning_rate)
    if earlier.keeps_places(tree):
        return earlier.carry_over(network, params_of=params_of)
    print(
        f"warning: the tree of {earlier.folder.path} has no room for the new items, or another shape: the tree was "
        "built anew, and only the encoder's parameters are carried over (tree.spare keeps leaves free)",
        file=sys.stderr,
    )
    return earlier.carry_over(network, [name for name in network if name.startswith("heads_")], params_of)


def _pretrained(problem: Problem, settings: PolicyConfig, learner: Reinforce, network: Any, seed: int) -> Any:
    """Replaces freshly drawn network parameters by pre-trained ones where the settings ask for it."""
    network = pretrained(network, problem, settings, seed)
    if settings.encoder_pretrain_steps:
        network, _ = pretrain_encoder(
            learner.policy.network.encoder,
            network,
            problem.env,
            problem.env_params,
            problem.data,
            problem.train_users,
            settings.encoder_pretrain_steps,
            PRETRAINING_EPISODES,
            seed,
        )
    return network

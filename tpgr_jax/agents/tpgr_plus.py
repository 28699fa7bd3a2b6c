"""TPGR+, beyond the paper: a tree of values on a Kalman filter of the user, learned from its own episodes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.training.agent import Agent
from tpgr_jax.agents.reinforce import LearnerState, World
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.value_learner import EPISODES, ValueLearner, ValueLearnerConfig
from tpgr_jax.agents.value_tree import ValueTreeConfig, ValueTreeParams, make_value_tree
from tpgr_jax.methods import AgentSettings, Method, RunContext
from tpgr_jax.models.coded_rewards import code_ratings, code_rewards
from tpgr_jax.models.explored_ratings import explore_ratings
from tpgr_jax.models.user_response_model import FittedResponses, fit_response_model
from tpgr_jax.problem import Problem
from tpgr_jax.tree.item_tree import ItemTree


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/tpgr_plus.yaml` holds."""

    policy: ValueTreeConfig
    learner: ValueLearnerConfig

    @property
    def on_a_tree(self) -> bool:
        """True: it decides along the run's item tree."""
        return True


def make_learner(
    problem: Problem, settings: Settings, tree: ItemTree, episodes_per_step: int
) -> tuple[ValueLearner, World]:
    """Builds the learner and the tables that it reads on the device.

    Raises:
        UserError: The simulator is not the paper's.
    """
    env = problem.rating_env(settings.name)
    policy = make_value_tree(settings.policy, tree, env.episode_length, float(problem.env_params.alpha))
    learner = ValueLearner(env, policy, settings.learner, episodes_per_step)
    return learner, World(problem.env_params, make_tree_tables(tree))


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`).

    Raises:
        UserError: The simulator is not the paper's, or an irregular tree takes too much room in the regular layout.
    """
    tree = run.tree().in_regular_layout()
    learner, world = make_learner(problem, settings, tree, run.episodes_per_step)

    def pretrain(state: LearnerState) -> LearnerState:
        fitted = _fitted(problem, settings, run.seed)
        return dataclasses.replace(state, params=learner.policy.with_fitted(state.params, fitted, tree.leaf_items))

    return Method(
        settings.result_name,
        Agent(lambda key, world: learner.init(key), pretrain, learner.train_step, world, run.episodes_per_step),
        learner.policy.as_policy(),
        lambda state: ValueTreeParams(state.params, world.tree),
        True,
        f"tree: depth {tree.depth}, {tree.num_children} children, beam {settings.policy.beam}",
    )


def _fitted(problem: Problem, settings: Settings, seed: int) -> FittedResponses:
    """Fits the model of users' answers to all training ratings, or to what random episodes tell of them."""
    if settings.learner.fit_to == EPISODES:
        env, episodes = problem.rating_env(settings.name), settings.learner.fit_episodes
        log = explore_ratings(env, problem.env_params, problem.train_users, episodes, seed)
        return fit_response_model(settings.policy, code_rewards(log.rewards), seed, log.seen)
    return fit_response_model(settings.policy, code_ratings(*problem.training_ratings), seed)

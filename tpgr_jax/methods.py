"""The compared methods behind one interface: what each trains, if anything, and how it recommends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.run_folder import RunFolder
from harness.training.agent import Agent
from sim.envs.fixed_policies import fixed_list_policy, rank_items
from sim.envs.policy import Policy
from sim.envs.rating_env import empirical_rewards
from tpgr_jax.agents.encoder_pretraining import pretrain_encoder
from tpgr_jax.agents.reinforce import LearnerState, Reinforce
from tpgr_jax.agents.tree_policy import PolicyConfig, PolicyParams
from tpgr_jax.agents.value_learner import EPISODES
from tpgr_jax.agents.value_tree import ValueTreeParams
from tpgr_jax.baselines.dqn_r import make_dqn_r
from tpgr_jax.baselines.gaussian_posterior import fit_gaussian_posterior, gaussian_posterior_policy
from tpgr_jax.baselines.greedy_svd import fit_greedy_svd, greedy_svd_policy
from tpgr_jax.baselines.hlinear_ucb import fit_hlinear_ucb, hlinear_ucb_policy
from tpgr_jax.baselines.item_ddpg import make_ddpg_knn, make_ddpg_r
from tpgr_jax.baselines.linear_ucb import fit_linear_ucb, linear_ucb_policy
from tpgr_jax.baselines.replay_learner import ReplayLearner, ReplayState
from tpgr_jax.baselines.replay_learner import World as ReplayWorld
from tpgr_jax.models.explored_ratings import collect_answers
from tpgr_jax.models.item_actions import action_vectors
from tpgr_jax.models.matrix_factorisation import stored_factor_vectors
from tpgr_jax.models.reward_moments import reward_matrix
from tpgr_jax.models.user_response_model import FittedAnswers, fit_answer_model
from tpgr_jax.networks.encoder import EncoderConfig, with_item_embedding
from tpgr_jax.problem import Problem, make_learner, make_tree, make_value_learner
from tpgr_jax.settings import (
    DdpgKnnAgent,
    DqnRAgent,
    FittedAgent,
    GreedySVDAgent,
    HLinearUCBAgent,
    LinearUCBAgent,
    PopularityAgent,
    ReplayAgent,
    RunConfig,
    TpgrAgent,
    ValueTreeAgent,
)
from tpgr_jax.tree.item_tree import ItemTree

PRETRAINING_EPISODES = 256


class Method(NamedTuple):
    """A method, ready to be trained and evaluated.

    Attributes:
        name: In tables and results.
        agent: What the outer loop trains; None if there is nothing to train.
        policy: Recommends.
        policy_params: `state -> parameters of the policy`, for a state of the agent (None without one).
        samples: Whether the policy has a second way of deciding, by sampling.
        description: One line about its size.
    """

    name: str
    agent: Agent | None
    policy: Policy
    policy_params: Callable[[Any], Any]
    samples: bool
    description: str


def make_method(config: RunConfig, problem: Problem, folder: RunFolder) -> Method:
    """Builds the method that a configuration asks for.

    Args:
        config: Of the run.
        problem: Data and simulator.
        folder: The run folder, where TPGR keeps its tree.

    Raises:
        UserError: Settings that do not fit the data, or a damaged tree.
    """
    if isinstance(config.agent, TpgrAgent):
        return tree_method(config, config.agent, problem, make_tree(config, problem, folder))
    if isinstance(config.agent, ValueTreeAgent):
        return value_tree_method(config, config.agent, problem, make_tree(config, problem, folder))
    if isinstance(config.agent, ReplayAgent):
        return _replay(config, config.agent, problem)
    return _fitted(config, config.agent, problem)


def tree_method(config: RunConfig, agent: TpgrAgent, problem: Problem, tree: ItemTree) -> Method:
    """Builds TPGR over a given tree."""
    learner, world = make_learner(config, problem, tree)

    def pretrain(state: LearnerState) -> LearnerState:
        return dataclasses.replace(state, params=_pretrained(config, agent.policy, problem, learner, state.params))

    trained = Agent(
        lambda key, world: learner.init(key),
        pretrain,
        learner.train_step,
        world,
        config.train.episodes_per_step,
        partition=learner.policy.partition,
    )
    return Method(
        agent.name,
        trained,
        learner.policy.as_policy(),
        lambda state: PolicyParams(state.params, world.tree),
        True,
        f"tree: depth {tree.depth}, {tree.num_children} children, {tree.num_internal:,} policy networks",
    )


def value_tree_method(config: RunConfig, agent: ValueTreeAgent, problem: Problem, tree: ItemTree) -> Method:
    """Builds the value tree over a given item tree."""
    learner, world = make_value_learner(config, problem, tree)

    def pretrain(state: LearnerState) -> LearnerState:
        fitted = _fitted_answers(config, agent, problem)
        return dataclasses.replace(state, params=learner.policy.with_fitted(state.params, fitted, tree.leaf_items))

    trained = Agent(
        lambda key, world: learner.init(key), pretrain, learner.train_step, world, config.train.episodes_per_step
    )
    return Method(
        agent.name,
        trained,
        learner.policy.as_policy(),
        lambda state: ValueTreeParams(state.params, world.tree),
        True,
        f"tree: depth {tree.depth}, {tree.num_children} children, beam {agent.policy.beam}",
    )


def _fitted_answers(config: RunConfig, agent: ValueTreeAgent, problem: Problem) -> FittedAnswers:
    if agent.learner.fit_to == EPISODES:
        episodes = agent.learner.fit_episodes
        log = collect_answers(problem.env, problem.env_params, problem.train_users, episodes, config.seed)
        return fit_answer_model(agent.policy, log.rewards, config.seed, log.seen)
    rewards = reward_matrix(problem.data, problem.train_users, empirical_rewards(problem.data, config.env.reward_scale))
    return fit_answer_model(agent.policy, rewards, config.seed)


def _pretrained(config: RunConfig, settings: PolicyConfig, problem: Problem, learner: Reinforce, network: Any) -> Any:
    """Replaces freshly drawn network parameters by pre-trained ones where the configuration asks for it."""
    if settings.embedding == "mf":
        network = with_item_embedding(network, _item_embedding(config, settings, problem))
    if settings.encoder_pretrain_steps:
        network, _ = pretrain_encoder(
            learner.policy.network,
            network,
            problem.env,
            problem.env_params,
            problem.data,
            problem.train_users,
            settings.encoder_pretrain_steps,
            PRETRAINING_EPISODES,
            config.seed,
        )
    return network


def _item_embedding(config: RunConfig, settings: EncoderConfig, problem: Problem) -> np.ndarray:
    return stored_factor_vectors(
        config.data.cache_folder,
        problem.data,
        problem.train_users,
        settings.embedding_size,
        settings.embedding_epochs,
        config.seed,
    )


def _replay(config: RunConfig, agent: ReplayAgent, problem: Problem) -> Method:
    learner, world = _replay_learner(config, agent, problem)

    def pretrain(state: ReplayState) -> ReplayState:
        if agent.policy.embedding == "random":
            return state
        return learner.with_item_embedding(state, _item_embedding(config, agent.policy, problem))

    trained = Agent(
        lambda key, world: learner.init(key), pretrain, learner.train_step, world, config.train.episodes_per_step
    )
    row = jax.eval_shape(learner.init, jax.random.key(0)).replay.bytes_per_row
    return Method(
        agent.name,
        trained,
        learner.as_policy(),
        lambda state: learner.policy_params(state, world),
        False,
        f"{agent.name}: replay of {agent.learner.replay_episodes:,} episodes, {row} bytes each",
    )


def _replay_learner(config: RunConfig, agent: ReplayAgent, problem: Problem) -> tuple[ReplayLearner, ReplayWorld]:
    env, episodes = problem.env, config.train.episodes_per_step
    if isinstance(agent, DqnRAgent):
        return make_dqn_r(agent.policy, agent.learner, env, episodes), ReplayWorld(problem.env_params)
    rewards = empirical_rewards(problem.data, config.env.reward_scale)
    vectors = action_vectors(agent.policy, problem.data, problem.train_users, rewards, config.seed)
    world = ReplayWorld(problem.env_params, jnp.asarray(vectors))
    if isinstance(agent, DdpgKnnAgent):
        return make_ddpg_knn(agent.policy, agent.learner, env, episodes), world
    return make_ddpg_r(agent.policy, agent.learner, env, episodes), world


def _fitted(config: RunConfig, agent: FittedAgent, problem: Problem) -> Method:
    """Builds a method that is fitted to the training users' ratings at once, and learns within episodes if at all."""
    rewards = empirical_rewards(problem.data, config.env.reward_scale)
    ratings = (problem.data, problem.train_users, rewards, config.seed)
    name, policy = agent.name, fixed_list_policy()
    params: Any
    if isinstance(agent, PopularityAgent):
        longest = config.env.episode_length + 1  # one spare: a random first item may be on the list
        params = jnp.asarray(rank_items(*ratings[:2], agent.policy.measure, rewards)[:longest])
        name = agent.result_name
    elif isinstance(agent, GreedySVDAgent):
        policy, params = greedy_svd_policy(), fit_greedy_svd(agent.policy, *ratings)
    elif isinstance(agent, LinearUCBAgent):
        policy, params = linear_ucb_policy(), fit_linear_ucb(agent.policy, *ratings)
    elif isinstance(agent, HLinearUCBAgent):
        policy = hlinear_ucb_policy()
        params = fit_hlinear_ucb(agent.policy, *ratings, problem.env, problem.env_params)
    else:
        policy = gaussian_posterior_policy(config.env.episode_length)
        params = fit_gaussian_posterior(agent.policy, *ratings)
    return Method(name, None, policy, lambda state: params, False, f"{name}: fitted, nothing to train")

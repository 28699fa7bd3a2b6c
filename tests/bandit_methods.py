"""The methods without a tree on the small rating problem, fitted, or with random parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bandit_problem import LENGTH, TRAIN_USERS, make_data, make_simulator, make_table

from harness.runs.composition import composed_values
from harness.settings import read_settings
from tpgr_jax.methods import Method, RunContext
from tpgr_jax.problem import Problem
from tpgr_jax.registry import build_method
from tpgr_jax.settings import RunConfig

USERS = np.arange(4)
SMALL = ["agent.policy.embedding=random", "agent.policy.state_hidden=4", "agent.policy.embedding_size=4"]
DDPG = ["agent=ddpg_knn", *SMALL, "agent.policy.vector_size=4"]
METHODS = {
    "popularity": ["agent=popularity"],
    "greedy_svd": ["agent=greedy_svd", "agent.policy.factors=3"],
    "linear_ucb": ["agent=linear_ucb", "agent.policy.feature_size=3"],
    "hlinear_ucb": ["agent=hlinear_ucb", "agent.policy.feature_size=3", "agent.policy.rounds=1"],
    "gaussian_posterior": ["agent=gaussian_posterior"],
    "gaussian_posterior, factors": ["agent=gaussian_posterior", "agent.policy.factors=3"],
    "dqn_r": ["agent=dqn_r", *SMALL],
    "ddpg_knn, k 1": [*DDPG, "agent.policy.k=1", "agent.policy.k_fraction=null"],
    "ddpg_knn, all": [*DDPG, "agent.policy.k_fraction=1"],
    "ddpg_r": ["agent=ddpg_r", *SMALL, "agent.policy.vector_size=4"],
}


def make_problem() -> Problem:
    config = read_settings(RunConfig, composed_values("train", [f"env.episode_length={LENGTH}"]))
    data = make_data(make_table())
    env, env_params, reward_of_code = make_simulator(data)
    relevant = np.ones(data.num_users, int)
    return Problem(data, TRAIN_USERS, USERS, relevant, env, env_params, reward_of_code, config.data, config.env)


def build(overrides: list[str]) -> tuple[Problem, Method, Any]:
    """A problem, a method and random parameters of its policy: what is untrained scores many items alike."""
    problem = make_problem()
    config = read_settings(RunConfig, composed_values("train", overrides))

    def no_tree() -> Any:
        raise AssertionError("an agent without a tree asks for one")

    method = build_method(problem, config.agent, RunContext(0, 4, no_tree))
    if method.agent is None:
        return problem, method, method.policy_params(None)
    state = jax.jit(method.agent.init)(jax.random.key(0), method.agent.world)
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.5, leaf.shape), jnp.float32), state.params)
    return problem, method, method.policy_params(state.replace(params=params))

"""Puts the parts of a run together: data, simulator, tree, policy, learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.runs import provenance
from harness.runs.run_folder import RunFolder, write_atomically
from sim.datasets.ratings import load_dataset
from sim.envs.rating_env import EnvParams, RatingEnv, make_env_params, make_rating_env
from sim.evaluation.protocol import num_relevant_items
from sim.tables.ratings import RatingData
from sim.tables.split import split_users
from tpgr_jax.agents.reinforce import Reinforce, World
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.tree_policy import make_tree_policy
from tpgr_jax.agents.value_learner import ValueLearner
from tpgr_jax.agents.value_tree import make_value_tree
from tpgr_jax.settings import RunConfig, TpgrAgent, ValueTreeAgent
from tpgr_jax.tree.item_tree import ItemTree, load_tree
from tpgr_jax.tree.item_vectors import build_item_tree, tree_path

VALIDATION_FRACTION = 0.1  # of the training users, with data.validation


@dataclass(frozen=True)
class Problem:
    """Data, split and simulator of a run: what every method is compared on.

    Attributes:
        data: All ratings.
        train_users: [n] indices, ascending.
        test_users: [m] indices, ascending; with data.validation, training users held out in their place.
        num_relevant: [U] relevant items of each user.
        env: The simulator.
        env_params: Its tables; `reset` draws training users.
    """

    data: RatingData
    train_users: np.ndarray
    test_users: np.ndarray
    num_relevant: np.ndarray
    env: RatingEnv
    env_params: EnvParams


def make_problem(config: RunConfig) -> Problem:
    """Loads the data, splits the users and builds the simulator.

    Raises:
        UserError: Data missing or damaged, or too small for the configuration.
    """
    data = load_dataset(config.data)
    train_users, test_users = split_users(data.num_users, config.data.test_fraction, config.data.split_seed)
    if config.data.validation:
        kept, held_out = split_users(len(train_users), VALIDATION_FRACTION, config.data.split_seed)
        train_users, test_users = train_users[kept], train_users[held_out]
    env = make_rating_env(config.env, data)
    env_params = make_env_params(config.env, data, train_users, config.data.relevant_above)
    relevant = num_relevant_items(data, config.data.relevant_above)
    if not relevant.any():
        raise UserError(
            f"no rating of {data.name} is above data.relevant_above={config.data.relevant_above:g} (the scale is "
            f"{data.rating_min:g} to {data.rating_max:g})",
            do="Set data.relevant_above to a rating of this scale; higher ones count as hits.",
        )
    return Problem(data, train_users, test_users, relevant, env, env_params)


def make_tree(config: RunConfig, problem: Problem, folder: RunFolder) -> ItemTree:
    """Takes the tree from the run folder, or builds and saves it there.

    Raises:
        UserError: The saved tree is damaged or of another catalogue.
    """
    path = tree_path(folder)
    if not path.exists():
        tree = build_item_tree(config.tree, problem.data, problem.train_users)
        write_atomically(path, tree.save)
        return tree
    tree = load_tree(path)
    if tree.num_items != problem.data.num_items:
        raise UserError(
            f"the tree is over {tree.num_items:,} items, {problem.data.name} has {problem.data.num_items:,}",
            where=str(path),
            do="Use the data set that the run was trained on.",
        )
    return tree


def make_learner(config: RunConfig, problem: Problem, tree: ItemTree) -> tuple[Reinforce, World]:
    """Builds TPGR's learner and the tables that it reads on the device."""
    agent = config.agent
    assert isinstance(agent, TpgrAgent)
    policy = make_tree_policy(agent.policy, tree.num_items, tree.num_children, tree.depth)
    learner = Reinforce(problem.env, policy, agent.learner, config.train.episodes_per_step)
    return learner, World(problem.env_params, make_tree_tables(tree))


def make_value_learner(config: RunConfig, problem: Problem, tree: ItemTree) -> tuple[ValueLearner, World]:
    """Builds the value tree's learner and the tables that it reads on the device."""
    agent, env = config.agent, config.env
    assert isinstance(agent, ValueTreeAgent)
    shape = (tree.num_items, tree.num_children, tree.depth)
    policy = make_value_tree(agent.policy, *shape, env.episode_length, env.alpha)
    learner = ValueLearner(problem.env, policy, agent.learner, config.train.episodes_per_step)
    return learner, World(problem.env_params, make_tree_tables(tree))


def describe_data(config: RunConfig, problem: Problem) -> dict[str, Any]:
    """Returns the data set's name, checksum and sizes, whether it is synthetic, and the split seed."""
    data = problem.data
    return {
        "name": data.name,
        "synthetic": data.synthetic,
        "checksum": data.checksum,
        "users": data.num_users,
        "items": data.num_items,
        "ratings": data.num_ratings,
        "split_seed": config.data.split_seed,
        "validation": config.data.validation,
    }


def record_origin(config: RunConfig, problem: Problem, folder: RunFolder) -> None:
    """Writes into a new run folder what it is made from.

    Raises:
        UserError: The folder cannot be written, or its record is missing although training has begun.
    """
    data = problem.data
    ids = {
        "user_ids": np.asarray(data.user_ids),
        "item_ids": np.asarray(data.item_ids),
        "train_users": np.asarray(data.user_ids[problem.train_users]),
        "test_users": np.asarray(data.user_ids[problem.test_users]),
        "synthetic": np.asarray(data.synthetic),
    }
    training_began = folder.checkpoints.exists() or tree_path(folder).exists()
    provenance.record_origin(folder, describe_data(config, problem), ids, training_began)


def check_same_origin(config: RunConfig, problem: Problem, folder: RunFolder) -> dict[str, Any]:
    """Compares data and split with what the run was trained on, and returns the run's record.

    Raises:
        UserError: Another data set, another version or split of it, or a missing or damaged record.
    """
    data = problem.data
    held_out = ("test_users", data.user_ids[problem.test_users], "data.split_seed, data.test_fraction")
    return provenance.check_same_origin(folder, describe_data(config, problem), data.source, held_out)

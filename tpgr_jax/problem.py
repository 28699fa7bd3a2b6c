"""What every method of a run is compared on: the ratings, their split into users, and the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.runs.provenance import Origin
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import load_dataset
from sim.envs.rating_env import RatingEnv
from sim.envs.rollout import TrainingEnvironment
from sim.envs.simulator import EnvSettings, make_simulator
from sim.evaluation.protocol import num_relevant_items
from sim.tables.ratings import RatingData
from tpgr_jax.tree.item_vectors import TREE_FILE


@dataclass(frozen=True)
class Problem:
    """Data, split and simulator of a run: what every method is compared on.

    Attributes:
        data: All ratings.
        train_users: [n] indices, ascending.
        test_users: [m] indices, ascending; with data.validation, training users held out in their place; empty with
            data.test_fraction=0.
        num_relevant: [U] relevant items of each user.
        env: The simulator.
        env_params: Its tables; `reset` draws training users.
        reward_of_code: [V + 1] float64 empirical reward of each rating code; entry 0 ("not rated") is 0.
        data_settings: What the data were made from.
        env_settings: What the simulator was made from.
        selection_users: [s] indices, ascending, of training users who train nothing and choose among the states of a
            run; empty without data.selection, and with data.validation, when they are the test users.
    """

    data: RatingData
    train_users: np.ndarray
    test_users: np.ndarray
    num_relevant: np.ndarray
    env: TrainingEnvironment
    env_params: Any
    reward_of_code: np.ndarray
    data_settings: DataConfig
    env_settings: EnvSettings
    selection_users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def for_use(self) -> bool:
        """Whether everybody trains, so that nobody is left to test."""
        return not len(self.test_users)

    @property
    def training_ratings(self) -> tuple[RatingData, np.ndarray, np.ndarray]:
        """What a method is fitted to: data, `train_users` and `reward_of_code`."""
        return self.data, self.train_users, self.reward_of_code

    def rating_env(self, agent: str) -> RatingEnv:
        """Returns the simulator for an agent that works on the paper's alone.

        Raises:
            UserError: It is another.
        """
        if not isinstance(self.env, RatingEnv):
            raise UserError(
                f"agent={agent} reads the tables of the paper's simulator, env.module is {self.env_settings.module}",
                do="Choose env=rating, or another agent.",
            )
        return self.env


def make_problem(data_settings: DataConfig, env_settings: EnvSettings, data: RatingData | None = None) -> Problem:
    """Loads the data, splits the users and builds the simulator.

    Args:
        data_settings: What the data are made from.
        env_settings: What the simulator is made from.
        data: What `load_dataset` gives for `data_settings`; None: it is loaded.

    Raises:
        UserError: Data missing or damaged, or too small for the settings.
    """
    data = load_dataset(data_settings) if data is None else data
    train_users, test_users, selection_users = data_settings.user_groups(data.num_users)
    if data_settings.validation:
        test_users, selection_users = selection_users, selection_users[:0]
    relevant_above = data_settings.hits_above
    data = data_settings.scaled(data, train_users)
    env, env_params, reward_of_code = make_simulator(env_settings, data, train_users, relevant_above)
    num_relevant = num_relevant_items(data, relevant_above)
    if not num_relevant.any():
        raise UserError(
            f"no rating of {data.name} is above data.relevant_above={relevant_above:g} (the scale is "
            f"{data.rating_min:g} to {data.rating_max:g})",
            do="Set data.relevant_above to a rating of this scale; higher ones count as hits.",
        )
    described = data_settings, env_settings
    return Problem(
        data, train_users, test_users, num_relevant, env, env_params, reward_of_code, *described, selection_users
    )


def describe_data(problem: Problem) -> dict[str, Any]:
    """Returns the data set's name, checksum, hash and sizes, whether it is synthetic, and how its users are split."""
    data = problem.data
    return {
        "name": data.name,
        "synthetic": data.synthetic,
        "checksum": data.checksum,
        "table": data.table_hash,
        "users": data.num_users,
        "items": data.num_items,
        "ratings": data.num_ratings,
        **problem.data_settings.described_split,
    }


def origin_of(problem: Problem) -> Origin:
    """Returns what a run is made from."""
    data = problem.data
    ids = {
        "user_ids": np.asarray(data.user_ids),
        "item_ids": np.asarray(data.item_ids),
        "train_users": np.asarray(data.user_ids[problem.train_users]),
        "test_users": np.asarray(data.user_ids[problem.test_users]),
        "synthetic": np.asarray(data.synthetic),
    }
    settings = "data.split_seed, data.test_fraction, data.fold, data.folds"
    return Origin(describe_data(problem), data.source, ids, "test_users", settings, TREE_FILE)

"""Puts the parts of a run together: log, simulator, environment, policy, learner."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.runs import provenance
from harness.runs.run_folder import RunFolder
from hrlmg_jax.agent.learner import HrlLearner, World
from hrlmg_jax.agent.networks import ActorCritic
from hrlmg_jax.agent.policy import TwoLevelPolicy, make_high_level
from hrlmg_jax.retrieval.index import make_item_index
from hrlmg_jax.sessions import SessionData, describe_log, load_sessions
from hrlmg_jax.settings import BEST_RATE, COUNT, POPULARITY, RunConfig
from hrlmg_jax.user_model.fit import FitConfig
from hrlmg_jax.user_model.store import FILE, Simulator, load_simulator, obtain_simulator
from sim.envs.session_env import TRUTH, FeedbackModel, SessionConfig, SessionEnv, SessionParams
from sim.generators.funnel import FunnelModel, truth_of_sessions


@dataclass(frozen=True)
class Problem:
    """Log, learned user and session beginnings of a run: what every method is compared on.

    Attributes:
        data: The log and its parts.
        simulator: The learned user.
        rankings: [I] int32 fixed lists by name, best item first.
        truth: Whether the generator's own users answer in place of the learned one (generated logs only).
    """

    data: SessionData
    simulator: Simulator
    rankings: dict[str, np.ndarray]
    truth: bool = False

    @property
    def users(self) -> FeedbackModel:
        """Who answers."""
        return FunnelModel() if self.truth else self.simulator.model

    def env_params(self, rows: np.ndarray) -> SessionParams:
        """Returns the environment's tables for sessions that begin at rows of the log."""
        if self.truth:
            return true_env_params(self.data, rows)
        return SessionParams(self.data.table, jnp.asarray(rows, jnp.int32), None, self.simulator.params)

    def with_truth(self) -> Problem:
        """Returns the same with the users who wrote the log."""
        return dataclasses.replace(self, truth=True)


def load_data(config: FitConfig | RunConfig) -> SessionData:
    """Loads and splits the log; checks that its catalogue suffices for a session without repeats.

    Raises:
        UserError: Log missing or damaged, or too small; or users are wanted that it does not know.
    """
    data = load_sessions(config.data, config.simulator.held_out_fraction, config.simulator.seed)
    if config.env.users == TRUTH and data.log.generator is None:
        raise UserError(
            f"{data.log.name} was not generated: nobody knows the users who wrote it",
            where="env.users=truth",
            do="Let learned users answer (env.users=learned), or take data=synthetic_funnel.",
        )
    if isinstance(config, RunConfig):
        longest = max(config.env.episode_length, config.evaluation.long)
        if data.num_items < longest:
            raise UserError(
                f"{data.log.name} has {data.num_items} items to recommend, a session recommends {longest} different "
                "ones",
                where=data.log.source,
                do=f"Set env.episode_length and evaluation.long (and .short) to at most {data.num_items}.",
            )
    return data


def make_problem(config: RunConfig, values: dict[str, Any], data: SessionData, folder: RunFolder) -> Problem:
    """Takes the simulator from the run folder, or fits it (or finds it fitted) and copies it there.

    Args:
        config: Of the run.
        values: The same as plain values.
        data: The log.
        folder: The run folder.

    Raises:
        UserError: The simulator is damaged or of another log.
    """
    if (folder.path / FILE).exists():
        simulator = load_simulator(config.simulator, folder, data)
    else:
        fitted = {key: values[key] for key in ("data", "env", "simulator")}
        simulator = obtain_simulator(config.fit(), fitted, data, folder)
    return Problem(data, simulator, fixed_rankings(config, data), config.env.users == TRUTH)


def fixed_rankings(config: RunConfig, data: SessionData) -> dict[str, np.ndarray]:
    """Ranks the catalogue by training users' feedback, [I] int32 each, ties to the lower index.

    Returns:
        "popularity": by total external reward in the log; "best_rate": by reward per impression, shrunk towards the
        mean as if every item had been shown 100 times more at the mean rate; "count": by impressions.
    """
    counts = data.training_counts()
    order = config.env.order_reward
    reward = config.env.click_reward * (counts["clicked"] - counts["ordered"]) + order * counts["ordered"]
    prior = 100.0
    rate = (reward + prior * reward.sum() / counts["shown"].sum()) / (counts["shown"] + prior)
    return {
        name: np.argsort(-score, kind="stable").astype(np.int32)
        for name, score in ((POPULARITY, reward), (BEST_RATE, rate), (COUNT, counts["shown"]))
    }


def make_learner(config: RunConfig, problem: Problem) -> tuple[HrlLearner, World]:
    """Builds the learner and the tables that it reads on the device."""
    agent, data = config.learning_agent, problem.data
    size = config.simulator.embedding.size
    goals = agent.goals
    policy = TwoLevelPolicy(
        low=ActorCritic(agent.network, 1, size, goals.directions_seen),
        high=make_high_level(agent.network, goals, size),
        goals=goals,
        action_noise=agent.learner.action_noise,
        history_length=config.env.history_length,
        decides=agent.decides,
        epsilon=agent.learner.epsilon,
    )
    env = make_env(config.env, problem.users, config.env.episode_length)
    learner = HrlLearner(env, policy, agent.learner)
    embedding = np.asarray(problem.simulator.params.embedding)
    longest = max(config.env.episode_length, config.evaluation.long)
    popularity = problem.rankings["popularity"]
    index = make_item_index(agent.retrieval, embedding, data.num_items, popularity, longest)
    shown = np.cumsum(data.training_counts()["shown"], dtype=np.float64)
    frequency = jnp.asarray(shown / shown[-1], jnp.float32)
    return learner, World(problem.env_params(data.first_rows("train")), index, frequency)


def true_env_params(data: SessionData, rows: np.ndarray) -> SessionParams:
    """Returns the tables of sessions with the users who wrote a generated log, that begin at rows of it."""
    users = truth_of_sessions(data.log, data.log.user[rows])
    return SessionParams(data.table, jnp.asarray(rows, jnp.int32), None, users)


def make_env(settings: SessionConfig, model: FeedbackModel, episode_length: int) -> SessionEnv:
    """Builds the static part of the environment for users of some kind and sessions of a length."""
    return SessionEnv(model, episode_length, settings.history_length, settings.click_reward, settings.order_reward)


def record_origin(data: SessionData, folder: RunFolder) -> None:
    """Writes into a new run folder what it is made from.

    Raises:
        UserError: The folder cannot be written, or its record is missing although training has begun.
    """
    log = data.log
    ids = {
        "user_ids": np.asarray(log.user_ids),
        "item_ids": np.asarray(log.item_ids),
        "held_out_users": np.asarray(log.user_ids[data.held_out]),
        "catalogue_size": np.asarray(data.num_items),
        "synthetic": np.asarray(log.synthetic),
    }
    began = folder.checkpoints.exists() or (folder.path / FILE).exists()
    provenance.record_origin(folder, describe_log(data), ids, began)


def check_same_origin(data: SessionData, folder: RunFolder) -> dict[str, Any]:
    """Compares log and split with what the run was trained on, and returns the run's record.

    Raises:
        UserError: Another log, another version or split of it, or a missing or damaged record.
    """
    settings = "simulator.held_out_fraction, simulator.seed"
    held_out = ("held_out_users", data.log.user_ids[data.held_out], settings)
    return provenance.check_same_origin(folder, describe_log(data), data.log.source, held_out)

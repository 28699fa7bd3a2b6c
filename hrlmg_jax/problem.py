"""What the agents of a run are compared on: log, learned user, environment; and the record of where they came from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.runs.composition import unlike_composed
from harness.runs.provenance import Origin
from harness.runs.run_folder import RunFolder
from hrlmg_jax.baselines.fixed_lists import fixed_rankings
from hrlmg_jax.earlier_run import EarlierRun
from hrlmg_jax.sessions import describe_log
from hrlmg_jax.user_model.settings import FitConfig
from hrlmg_jax.user_model.store import FILE, SECOND, Simulator, load_simulator, obtain_simulator
from sim.datasets.sessions import SessionData, load_sessions
from sim.envs.matrix_users import MatrixParams, MatrixUsers, matrix_of_sessions
from sim.envs.session_env import TRUTH, FeedbackModel, SessionConfig, SessionEnv, SessionParams
from sim.generators.funnel_truth import true_users, truth_of_sessions
from sim.generators.funnel_users import FunnelParams

_SESSION_LENGTHS = (("env", "episode_length"), ("evaluation", "short"), ("evaluation", "long"))


@dataclass(frozen=True)
class Problem:
    """Log, learned user and session beginnings of a run: what every method is compared on.

    Attributes:
        data: The log and its parts.
        env: Settings of the sessions; who answers (`env.users`) is the generator's own users for generated logs only.
        simulator: The learned user.
        rankings: [I] int32 fixed lists by name, best item first.
        longest_session: Recommendations of the longest session to be played.
        earlier: The run whose parameters training starts from; None: it starts anew.
        second: Learned users of another kind, who say how far a value depends on the kind; None: there are none.
    """

    data: SessionData
    env: SessionConfig
    simulator: Simulator
    rankings: dict[str, np.ndarray]
    longest_session: int
    earlier: EarlierRun | None = None
    second: Simulator | None = None

    @property
    def truth(self) -> bool:
        """Whether the users who wrote a generated log answer in place of the learned one."""
        return self.env.users == TRUTH

    @property
    def users(self) -> FeedbackModel:
        """Who answers."""
        return true_users_of(self.data) if self.truth else self.simulator.model

    @property
    def training_users(self) -> FeedbackModel:
        """Who answers while an agent trains and its checkpoints are compared: learned users may be pessimistic."""
        return self.users if self.truth else self.simulator.training_model or self.simulator.model

    def env_params(self, rows: np.ndarray) -> SessionParams:
        """Returns the environment's tables for sessions that begin at rows of the log."""
        if self.truth:
            return true_env_params(self.data, rows)
        users = self.simulator.model.in_sessions(self.simulator.params, self.data, rows)
        return SessionParams(self.data.table, jnp.asarray(rows, jnp.int32), None, users)

    def with_truth(self) -> Problem:
        """Returns the same with the users who wrote the log."""
        return dataclasses.replace(self, env=dataclasses.replace(self.env, users="truth"))

    def with_second(self) -> Problem:
        """Returns the same with the second kind of learned users, of which there must be one."""
        assert self.second is not None
        return dataclasses.replace(self, simulator=self.second, second=None)


def load_data(config: FitConfig, longest_session: int = 0) -> SessionData:
    """Loads and splits the log; checks that its catalogue suffices for a session without repeats.

    Args:
        config: Which log, whose users, and who is held out.
        longest_session: Recommendations of the longest session to be played.

    Raises:
        UserError: Log missing or damaged, or too small; or users are wanted that it does not know.
    """
    data = load_sessions(config.data, config.simulator.held_out_fraction, config.simulator.seed)
    if config.env.users == TRUTH and not data.log.knows_users:
        raise UserError(
            f"{data.log.name} was not generated: its true users are unknown",
            where="env.users=truth",
            do="Let learned users answer (env.users=learned), or take data=synthetic_funnel or kuairec_small.",
        )
    check_catalogue(data, longest_session)
    return data


def check_catalogue(data: SessionData, longest_session: int) -> None:
    """Raises UserError unless the catalogue suffices for a session without repeats of so many recommendations."""
    if data.num_items < longest_session:
        raise UserError(
            f"{data.log.name} has {data.num_items} items to recommend, a session recommends {longest_session} "
            "different ones",
            where=data.log.source,
            do=f"Set env.episode_length and evaluation.long (and .short) to half of that, at most {data.num_items}.",
        )


def shortened_sessions(values: dict[str, Any], num_items: int) -> dict[str, int]:
    """Returns the lengths of sessions, by dotted key, for which a small catalogue has no room by default, as it has.

    If a session recommended most of the catalogue, all methods would recommend the same: it gets at most half of it.

    Args:
        values: A run's settings; lengths that are not the default are the user's, and kept.
        num_items: I, size of the catalogue.
    """
    lengths = {f"{group}.{key}": values[group][key] for group, key in _SESSION_LENGTHS}
    chosen = unlike_composed("train_hrl_mg", [], lengths)
    most = num_items // 2
    return {key: most for key, length in lengths.items() if length > most and key not in chosen}


def make_problem(
    config: FitConfig,
    values: dict[str, Any],
    data: SessionData,
    folder: RunFolder,
    longest_session: int,
    earlier: EarlierRun | None = None,
    second: FitConfig | None = None,
) -> Problem:
    """Takes the simulator from the run folder, or fits it (or finds it fitted) and copies it there.

    Args:
        config: Log, sessions and simulator.
        values: The run's settings as plain values.
        folder: The run folder.
        longest_session: Recommendations of the longest session to be played.
        earlier: The run that training starts from.
        second: The same as `config` with users of a second kind, who are treated alike; None: there are none.

    Raises:
        UserError: The simulator is damaged or of another log.
    """

    def kept(config: FitConfig, of: str, prefix: str = "") -> Simulator:
        if (folder.path / f"{prefix}{FILE}").exists():
            return load_simulator(config.simulator, folder, data, prefix)
        fitted = {"data": values["data"], "env": values["env"], "simulator": values[of]}
        return obtain_simulator(config, fitted, data, folder, earlier, prefix)

    # The first kind last: its file says that a run has its users.
    other = None if second is None else kept(second, "second_simulator", SECOND)
    simulator = kept(config, "simulator")
    return Problem(data, config.env, simulator, fixed_rankings(config.env, data), longest_session, earlier, other)


def true_users_of(data: SessionData) -> FeedbackModel:
    """Returns the users who wrote a log that knows them: its generator's, or those who were shown everything."""
    return MatrixUsers() if data.log.complete else true_users(data.log)


def true_env_params(data: SessionData, rows: np.ndarray) -> SessionParams:
    """Returns the tables of sessions with the users who wrote such a log, that begin at rows of it."""
    log = data.log
    users: FunnelParams | MatrixParams = matrix_of_sessions(log, rows) if log.complete else truth_of_sessions(log, rows)
    return SessionParams(data.table, jnp.asarray(rows, jnp.int32), None, users)


def make_env(settings: SessionConfig, model: FeedbackModel, episode_length: int) -> SessionEnv:
    """Builds the static part of the environment for users of some kind and sessions of a length."""
    return SessionEnv(model, episode_length, settings.history_length, settings.click_reward, settings.order_reward)


def origin_of(data: SessionData) -> Origin:
    """Returns what a run on a log is made from."""
    log = data.log
    ids = {
        "user_ids": np.asarray(log.user_ids),
        "item_ids": np.asarray(log.item_ids),
        "held_out_users": np.asarray(log.user_ids[data.held_out]),
        "catalogue_size": np.asarray(data.num_items),
        "synthetic": np.asarray(log.synthetic),
    }
    settings = "simulator.held_out_fraction, simulator.seed"
    return Origin(describe_log(data), log.source, ids, "held_out_users", settings, FILE)

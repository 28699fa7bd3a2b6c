"""The settings of the system's commands: what `conf/fit_simulator.yaml` and `conf/train_hrl_mg.yaml` compose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from harness.compute.devices import AUTOMATIC, DevicesConfig
from harness.runs.seeds import SeedsConfig
from harness.runs.tracking import FILES, LoggerConfig
from harness.settings import Count
from harness.training.loop import ScheduleConfig
from harness.training.stored_run import StoredRunConfig
from harness.tuning.study import StudyConfig
from hrlmg_jax.evaluation.off_policy import AS_COMPOSED, OffPolicyConfig
from hrlmg_jax.methods import AgentSettings
from hrlmg_jax.problem import Problem, load_data, make_problem, origin_of
from hrlmg_jax.registry import ANY_AGENT
from hrlmg_jax.user_model.settings import AnySimulator, FitConfig, check_second
from hrlmg_jax.user_model.store import FILE
from sim.datasets.items import NO_ITEMS, ItemsConfig
from sim.datasets.log_settings import LogConfig
from sim.envs.session_env import SessionConfig


@dataclass(frozen=True)
class EvaluationConfig:
    """The online and offline tests (`conf/evaluation/sessions.yaml`)."""

    short: Count
    long: Count
    sessions: Count
    validation_sessions: Count
    offline_sessions: Count
    sessions_at_a_time: Count
    final: bool = True
    off_policy: OffPolicyConfig = AS_COMPOSED


@dataclass(frozen=True)
class RunConfig(SeedsConfig):
    """Everything that decides a run's numbers (`conf/train_hrl_mg.yaml`)."""

    data: LogConfig
    env: SessionConfig
    simulator: AnySimulator
    agent: Annotated[AgentSettings, ANY_AGENT]
    train: ScheduleConfig
    evaluation: EvaluationConfig
    second_simulator: AnySimulator | None = None
    items: ItemsConfig = NO_ITEMS
    init_from: str | None = None
    devices: DevicesConfig = AUTOMATIC
    logger: LoggerConfig = FILES

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        self.agent.check(self.env)
        self.agent.check_warm_up(self.train.steps)
        if self.second_simulator is not None:
            check_second(self.simulator, self.second_simulator)

    @property
    def longest_session(self) -> int:
        """Recommendations of the longest session to be played."""
        return max(self.env.episode_length, self.evaluation.long)

    def fit(self) -> FitConfig:
        """Returns the part that decides the simulator."""
        return FitConfig(self.data, self.env, self.simulator)

    def second_fit(self) -> FitConfig | None:
        """Returns the part that decides the second kind of users, if there is one."""
        return None if self.second_simulator is None else FitConfig(self.data, self.env, self.second_simulator)


def stored_problem(stored: StoredRunConfig, config: RunConfig, values: dict[str, Any]) -> Problem:
    """Returns the problem of a stored run, made again.

    Args:
        stored: The run.
        config: Its settings.
        values: The same as plain values.

    Raises:
        UserError: It stopped before its users were learned; log missing, or other than the run was trained on.
    """
    stored.check_began(stored.folder.path / FILE, "simulator")
    data = load_data(config.fit(), config.longest_session)
    origin_of(data).check(stored.folder)
    return make_problem(config.fit(), values, data, stored.folder, config.longest_session, second=config.second_fit())


@dataclass(frozen=True, kw_only=True)
class TuneConfig(RunConfig, StudyConfig):
    """A study, and the run that its trials vary (`conf/tune_hrl_mg.yaml`)."""

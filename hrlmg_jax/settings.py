"""The settings of the system's commands: what `conf/fit_simulator.yaml` and `conf/train_hrl_mg.yaml` compose."""

from __future__ import annotations

from dataclasses import dataclass

from harness.devices import AUTOMATIC, DevicesConfig
from harness.loop import ScheduleConfig
from harness.seeds import SeedsConfig
from harness.tracking import FILES, LoggerConfig
from hrlmg_jax.feedback import FeedbackNetworkConfig
from hrlmg_jax.item_embedding import EmbeddingConfig
from hrlmg_jax.learner import LearnerConfig
from hrlmg_jax.networks import NetworkConfig
from hrlmg_jax.policy import GoalConfig
from hrlmg_jax.retrieval import RetrievalConfig
from sim.errors import UserError
from sim.event_datasets import LogConfig
from sim.session_env import SessionConfig
from sim.settings import Count, NotNegative, Positive, ProperShare, Seed


@dataclass(frozen=True)
class SimulatorConfig:
    """How the user-feedback simulator is learned, and where it is kept (`conf/simulator/learned.yaml`)."""

    embedding: EmbeddingConfig
    network: FeedbackNetworkConfig
    train: ScheduleConfig
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    held_out_fraction: ProperShare
    patience: Count
    seed: Seed
    root: str


@dataclass(frozen=True)
class EvaluationConfig:
    """The online and offline tests (`conf/evaluation/sessions.yaml`)."""

    short: Count
    long: Count
    sessions: Count
    validation_sessions: Count
    offline_sessions: Count
    sessions_at_a_time: Count


@dataclass(frozen=True)
class AgentConfig:
    """Which agent, and its parts (`conf/agent/hrl_mg.yaml`)."""

    name: str
    network: NetworkConfig
    goals: GoalConfig
    learner: LearnerConfig
    retrieval: RetrievalConfig

    def __post_init__(self) -> None:
        """Checks the name."""
        if not self.name.strip():
            raise UserError("agent.name is empty", do="Name the agent, for its row in the tables.")
        if self.name in ("random", "popularity", "best_rate"):
            raise UserError(f"agent.name is {self.name!r}, which an opponent has", do="Choose another.")


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a simulator (`conf/fit_simulator.yaml`)."""

    data: LogConfig
    env: SessionConfig
    simulator: SimulatorConfig


@dataclass(frozen=True)
class RunConfig(SeedsConfig):
    """Everything that decides a run's numbers (`conf/train_hrl_mg.yaml`)."""

    data: LogConfig
    env: SessionConfig
    simulator: SimulatorConfig
    agent: AgentConfig
    train: ScheduleConfig
    evaluation: EvaluationConfig
    devices: DevicesConfig = AUTOMATIC
    logger: LoggerConfig = FILES

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        if self.agent.goals.enabled and self.env.episode_length < self.agent.goals.period:
            raise UserError(
                f"env.episode_length is {self.env.episode_length}, less than a window of goals "
                f"(agent.goals.period={self.agent.goals.period})",
                do="Lengthen the session or shorten the period.",
            )

    def fit(self) -> FitConfig:
        """Returns the part that decides the simulator."""
        return FitConfig(self.data, self.env, self.simulator)

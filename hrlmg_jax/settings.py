"""The settings of the system's commands: what `conf/fit_simulator.yaml` and `conf/train_hrl_mg.yaml` compose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.devices import AUTOMATIC, DevicesConfig
from harness.errors import UserError
from harness.runs.seeds import SeedsConfig
from harness.runs.tracking import FILES, LoggerConfig
from harness.settings import ByName, Count, NotNegative
from harness.training.loop import ScheduleConfig
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.learner import LearnerConfig
from hrlmg_jax.agent.networks import NetworkConfig
from hrlmg_jax.agent.policy import CRITIC
from hrlmg_jax.retrieval.index import RetrievalConfig
from hrlmg_jax.user_model.fit import FitConfig, SimulatorConfig
from sim.datasets.events import LogConfig
from sim.envs.session_env import TRUTH, SessionConfig

POPULARITY, BEST_RATE, COUNT = "popularity", "best_rate", "count"
"""Fixed lists: by total reward in the log, by reward per impression, by impressions."""


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
class TwoLevelAgent:
    """An agent that learns, and its parts (`conf/agent/hrl_mg.yaml`)."""

    name: str
    network: NetworkConfig
    goals: GoalConfig
    learner: LearnerConfig
    retrieval: RetrievalConfig
    decides: Literal["actor", "critic"] = "actor"

    def __post_init__(self) -> None:
        """Checks the name, and settings against each other; raises UserError naming the keys."""
        if not self.name.strip():
            raise UserError("agent.name is empty", do="Name the agent, for its row in the tables.")
        if self.name == BEST_RATE:
            raise UserError(f"agent.name is {self.name!r}, which an opponent has", do="Choose another.")
        if self.decides == CRITIC and (self.goals.enabled or self.goals.memory or self.learner.gamma > 0):
            raise UserError(
                "agent.decides=critic takes the item of the highest immediate reward: it knows no goals, no memory and "
                "no future",
                do="Set agent.goals.enabled=false, agent.goals.memory=0 and agent.learner.gamma=0, as agent=dnn does.",
            )


@dataclass(frozen=True)
class RandomAgent:
    """Random items (`conf/agent/random.yaml`)."""

    name: str


@dataclass(frozen=True)
class RankingConfig:
    """What the items are ranked by (`conf/agent/popularity.yaml`)."""

    by: Literal["average", "count", "reward"] | None


@dataclass(frozen=True)
class PopularityAgent:
    """A fixed list (`conf/agent/popularity.yaml`)."""

    name: str
    policy: RankingConfig

    @property
    def ranking(self) -> str:
        """The name of the list."""
        return {"average": BEST_RATE, "count": COUNT}.get(self.policy.by or "reward", POPULARITY)


@dataclass(frozen=True)
class OracleAgent:
    """A ceiling that knows the users (`conf/agent/greedy_oracle.yaml`, `conf/agent/planner.yaml`)."""

    name: str
    trust_weight: NotNegative


AGENTS = {
    "random": RandomAgent,
    "popularity": PopularityAgent,
    "greedy_oracle": OracleAgent,
    "planner": OracleAgent,
}
"""Agents with nothing to train, by name; all other names are of agents that learn."""
AgentSettings = TwoLevelAgent | RandomAgent | PopularityAgent | OracleAgent


@dataclass(frozen=True)
class RunConfig(SeedsConfig):
    """Everything that decides a run's numbers (`conf/train_hrl_mg.yaml`)."""

    data: LogConfig
    env: SessionConfig
    simulator: SimulatorConfig
    agent: Annotated[AgentSettings, ByName(AGENTS, otherwise=TwoLevelAgent)]
    train: ScheduleConfig
    evaluation: EvaluationConfig
    devices: DevicesConfig = AUTOMATIC
    logger: LoggerConfig = FILES

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        agent = self.agent
        if isinstance(agent, OracleAgent) and agent.trust_weight and self.env.users != TRUTH:
            raise UserError(
                "agent.trust_weight counts the trust of the users of a generated log; learned users have none",
                do="Set env.users=truth (of a generated log).",
            )
        if not isinstance(agent, TwoLevelAgent):
            return
        if agent.goals.enabled and self.env.episode_length < agent.goals.period:
            raise UserError(
                f"env.episode_length is {self.env.episode_length}, less than a window of goals "
                f"(agent.goals.period={agent.goals.period})",
                do="Lengthen the session or shorten the period.",
            )

    @property
    def result_name(self) -> str:
        """The agent's name in results; a fixed list has the name that it has beside other agents."""
        return self.agent.ranking if isinstance(self.agent, PopularityAgent) else self.agent.name

    @property
    def learning_agent(self) -> TwoLevelAgent:
        """The agent, where it is known to be one that learns."""
        assert isinstance(self.agent, TwoLevelAgent)
        return self.agent

    def fit(self) -> FitConfig:
        """Returns the part that decides the simulator."""
        return FitConfig(self.data, self.env, self.simulator)

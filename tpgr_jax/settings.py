"""The settings of a training run: what `conf/train.yaml` composes, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.devices import ONE_DEVICE, DevicesConfig
from harness.loop import ScheduleConfig
from harness.seeds import SeedsConfig
from sim.datasets import DataConfig
from sim.errors import UserError
from sim.rating_env import EnvConfig
from sim.settings import Count, OneOf
from tpgr_jax.policy import PolicyConfig
from tpgr_jax.reinforce import LearnerConfig
from tpgr_jax.tree import TreeConfig


@dataclass(frozen=True)
class AgentConfig:
    """Which agent, and its parts (`conf/agent/*.yaml`)."""

    name: Annotated[str, OneOf("tpgr")]
    policy: PolicyConfig
    learner: LearnerConfig


@dataclass(frozen=True)
class TrainConfig(ScheduleConfig):
    """The schedule, and how many episodes a training step plays (`conf/train/default.yaml`)."""

    episodes_per_step: Count


@dataclass(frozen=True)
class RunConfig(SeedsConfig):
    """Everything that decides a run's numbers."""

    data: DataConfig
    env: EnvConfig
    tree: TreeConfig
    agent: AgentConfig
    train: TrainConfig
    devices: DevicesConfig = ONE_DEVICE

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        group = self.agent.learner.episodes_per_user
        if self.train.episodes_per_step % group:
            raise UserError(
                f"train.episodes_per_step is {self.train.episodes_per_step}, not a multiple of "
                f"agent.learner.episodes_per_user ({group})",
                do=f"Use for instance {max(1, self.train.episodes_per_step // group) * group}.",
            )

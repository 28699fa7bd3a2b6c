"""The settings of a training run: what `conf/train.yaml` composes, checked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Literal

from harness.devices import AUTOMATIC, DevicesConfig, device_mesh
from harness.errors import UserError
from harness.runs.seeds import SeedsConfig
from harness.runs.tracking import FILES, LoggerConfig
from harness.settings import ByName, Count
from harness.training.loop import ScheduleConfig
from sim.datasets.ratings import DataConfig
from sim.envs.rating_env import EnvConfig
from tpgr_jax.agents.reinforce import LearnerConfig
from tpgr_jax.agents.tree_policy import PolicyConfig
from tpgr_jax.agents.value_learner import ValueLearnerConfig
from tpgr_jax.agents.value_tree import ValueTreeConfig
from tpgr_jax.baselines.dqn_r import DqnConfig, QPolicyConfig
from tpgr_jax.baselines.gaussian_posterior import GaussianPosteriorConfig
from tpgr_jax.baselines.greedy_svd import GreedySVDConfig
from tpgr_jax.baselines.hlinear_ucb import HLinearUCBConfig
from tpgr_jax.baselines.item_ddpg import DdpgKnnPolicyConfig, ItemDdpgConfig, ItemDdpgPolicyConfig
from tpgr_jax.baselines.linear_ucb import LinearUCBConfig
from tpgr_jax.tree.item_tree import TreeConfig


@dataclass(frozen=True)
class TpgrAgent:
    """The paper's agent (`conf/agent/tpgr.yaml`)."""

    name: str
    policy: PolicyConfig
    learner: LearnerConfig


@dataclass(frozen=True)
class ValueTreeAgent:
    """Beyond the paper: a tree of values on a filter of the user (`conf/agent/tpgr_plus.yaml`)."""

    name: str
    policy: ValueTreeConfig
    learner: ValueLearnerConfig


@dataclass(frozen=True)
class DqnRAgent:
    """A Q-network with an output per item (`conf/agent/dqn_r.yaml`)."""

    name: str
    policy: QPolicyConfig
    learner: DqnConfig


@dataclass(frozen=True)
class DdpgKnnAgent:
    """A continuous action and its nearest items (`conf/agent/ddpg_knn.yaml`)."""

    name: str
    policy: DdpgKnnPolicyConfig
    learner: ItemDdpgConfig


@dataclass(frozen=True)
class DdpgRAgent:
    """A continuous action that ranks the items (`conf/agent/ddpg_r.yaml`)."""

    name: str
    policy: ItemDdpgPolicyConfig
    learner: ItemDdpgConfig


@dataclass(frozen=True)
class PopularityConfig:
    """What the items are ranked by (`conf/agent/popularity.yaml`)."""

    by: Literal["average", "count", "reward"] | None

    @property
    def measure(self) -> str:
        """The paper's where none is named."""
        return self.by or "average"


@dataclass(frozen=True)
class PopularityAgent:
    """A fixed list."""

    name: str
    policy: PopularityConfig

    @property
    def result_name(self) -> str:
        """Its name in results: what everybody is compared with by average is just "popularity"."""
        return self.name if self.policy.measure == "average" else f"{self.name}_{self.policy.measure}"


@dataclass(frozen=True)
class GreedySVDAgent:
    """Greedy on ratings predicted by matrix factorisation (`conf/agent/greedy_svd.yaml`)."""

    name: str
    policy: GreedySVDConfig


@dataclass(frozen=True)
class LinearUCBAgent:
    """A linear bandit (`conf/agent/linear_ucb.yaml`)."""

    name: str
    policy: LinearUCBConfig


@dataclass(frozen=True)
class HLinearUCBAgent:
    """A linear bandit with hidden features (`conf/agent/hlinear_ucb.yaml`)."""

    name: str
    policy: HLinearUCBConfig


@dataclass(frozen=True)
class GaussianPosteriorAgent:
    """Conditioning of a Gaussian (`conf/agent/gaussian_posterior.yaml`)."""

    name: str
    policy: GaussianPosteriorConfig


ReplayAgent = DqnRAgent | DdpgKnnAgent | DdpgRAgent
FittedAgent = PopularityAgent | GreedySVDAgent | LinearUCBAgent | HLinearUCBAgent | GaussianPosteriorAgent
TreeAgent = TpgrAgent | ValueTreeAgent
AgentSettings = TreeAgent | ReplayAgent | FittedAgent
AGENTS: dict[str, type] = {
    "tpgr": TpgrAgent,
    "tpgr_plus": ValueTreeAgent,
    "dqn_r": DqnRAgent,
    "ddpg_knn": DdpgKnnAgent,
    "ddpg_r": DdpgRAgent,
    "popularity": PopularityAgent,
    "greedy_svd": GreedySVDAgent,
    "linear_ucb": LinearUCBAgent,
    "hlinear_ucb": HLinearUCBAgent,
    "gaussian_posterior": GaussianPosteriorAgent,
}


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
    agent: Annotated[AgentSettings, ByName(AGENTS)]
    train: TrainConfig
    devices: DevicesConfig = AUTOMATIC
    logger: LoggerConfig = FILES

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        if not isinstance(self.agent, TpgrAgent):
            return
        group = self.agent.learner.episodes_per_user
        if self.train.episodes_per_step % group:
            raise UserError(
                f"train.episodes_per_step is {self.train.episodes_per_step}, not a multiple of "
                f"agent.learner.episodes_per_user ({group})",
                do=f"Use for instance {max(1, self.train.episodes_per_step // group) * group}.",
            )

    @property
    def node_shards(self) -> int:
        """Devices that hold different nodes' networks."""
        return self.agent.policy.head_shards if isinstance(self.agent, TpgrAgent) else 1


_ITEMS_ON_EVERY_CORE = 100_000  # of more items the networks are too large to keep one copy for each core of a CPU


def devices_of(config: RunConfig, num_items: int) -> AbstractContextManager[None]:
    """Spreads what is computed within over a run's devices (see `harness.devices`).

    Raises:
        UserError: Too few devices, or numbers that do not divide.
    """
    batch = config.train.episodes_per_step
    small = isinstance(config.agent, TreeAgent) and num_items <= _ITEMS_ON_EVERY_CORE
    return device_mesh(config.devices, batch, "train.episodes_per_step", config.node_shards, small)

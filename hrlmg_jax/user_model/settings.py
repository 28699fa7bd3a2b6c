"""The settings of users learned from a log: what every kind has, and what each adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from harness.settings import ByName, Count, CountOrZero, NotNegative, Positive, ProperShare, Seed, SettingError
from harness.training.loop import ScheduleConfig
from hrlmg_jax.user_model.item_embedding import EmbeddingConfig
from hrlmg_jax.user_model.network import FeedbackNetworkConfig
from sim.datasets.log_settings import LogConfig
from sim.envs.session_env import SessionConfig

AUTO: Final = "auto"
IGNORED: Final = "ignored"
EVIDENCE: Final = "evidence"
"""What becomes of what was shown (`simulator.exposures`)."""


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """What every kind of learned users has: item embeddings, and where they are kept (`conf/simulator/base.yaml`)."""

    name: str
    embedding: EmbeddingConfig
    held_out_fraction: ProperShare
    seed: Seed
    root: str
    trial_sessions: CountOrZero = 0  # runs before there was a trial had none


@dataclass(frozen=True, kw_only=True)
class FittedConfig(SimulatorConfig):
    """What those have that are fitted by gradient descent (`conf/simulator/fitted_base.yaml`)."""

    train: ScheduleConfig
    batch_size: Count
    learning_rate: Positive
    patience: Count
    members: Count = 1  # runs before there were ensembles had one
    pessimism: NotNegative = 0.0

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.pessimism and self.members == 1:
            raise SettingError(
                f".pessimism is {self.pessimism:g}, but a single member has nobody to disagree with",
                do="Set .members to 2 at least (4 is usual), or .pessimism to 0.",
            )


@dataclass(frozen=True, kw_only=True)
class RatesConfig(SimulatorConfig):
    """Users to whom an item is what it is to everybody (`conf/simulator/rates.yaml`)."""

    name: Literal["rates"]
    prior_events: Positive


@dataclass(frozen=True, kw_only=True)
class PaperConfig(FittedConfig):
    """The paper's network of histories (`conf/simulator/paper.yaml`)."""

    network: FeedbackNetworkConfig
    weight_decay: NotNegative
    name: Literal["paper"] = "paper"  # runs before there were other kinds do not say so


@dataclass(frozen=True, kw_only=True)
class LatentConfig(FittedConfig):
    """Users with a held taste and interest (`conf/simulator/latent.yaml` explains each)."""

    name: Literal["latent"]
    size: Count
    interests: Count
    tastes: Count
    posterior_tastes: Count
    posterior_interests: Count
    item_decay: NotNegative
    appeal_decay: NotNegative
    weight_decay: NotNegative
    dynamics_rate: Positive
    exposures: Literal["auto", "ignored", "evidence"] = IGNORED  # runs before they could be evidence


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a simulator (`conf/fit_simulator.yaml`)."""

    data: LogConfig
    env: SessionConfig
    simulator: AnySimulator


_KINDS = {"paper": PaperConfig, "latent": LatentConfig, "rates": RatesConfig}
AnySimulator = Annotated[SimulatorConfig, ByName(_KINDS, PaperConfig)]


def check_second(first: SimulatorConfig, second: SimulatorConfig) -> None:
    """Raises UserError unless two kinds of users differ, and were fitted to the same users of the log."""
    if second.name == first.name:
        raise SettingError(f".second_simulator is {second.name!r}, as .simulator is", do="Choose the other kind.")
    for key in ("held_out_fraction", "seed"):
        if getattr(second, key) != getattr(first, key):
            do = "Leave it out: it decides which users are held out, of both."
            raise SettingError(f".second_simulator.{key} differs from .simulator.{key}", do=do)

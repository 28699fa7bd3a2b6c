"""The settings of users learned from a log: what every kind has, and what each adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.settings import ByName, Count, CountOrZero, NotNegative, Positive, ProperShare, Seed, SettingError
from harness.training.loop import ScheduleConfig
from hrlmg_jax.user_model.item_embedding import EmbeddingConfig
from hrlmg_jax.user_model.network import FeedbackNetworkConfig
from sim.datasets.log_settings import LogConfig
from sim.envs.session_env import SessionConfig


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """What every kind of learned users has: item embeddings, the fit, and where it is kept (`conf/simulator`)."""

    name: str
    embedding: EmbeddingConfig
    train: ScheduleConfig
    batch_size: Count
    learning_rate: Positive
    held_out_fraction: ProperShare
    patience: Count
    seed: Seed
    root: str
    trial_sessions: CountOrZero = 0  # runs before there was a trial had none


@dataclass(frozen=True, kw_only=True)
class PaperConfig(SimulatorConfig):
    """The paper's network of histories (`conf/simulator/paper.yaml`)."""

    network: FeedbackNetworkConfig
    weight_decay: NotNegative
    name: Literal["paper"] = "paper"  # runs before there were other kinds do not say so


@dataclass(frozen=True, kw_only=True)
class LatentConfig(SimulatorConfig):
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


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a simulator (`conf/fit_simulator.yaml`)."""

    data: LogConfig
    env: SessionConfig
    simulator: AnySimulator


AnySimulator = Annotated[SimulatorConfig, ByName({"paper": PaperConfig, "latent": LatentConfig}, PaperConfig)]


def check_second(first: SimulatorConfig, second: SimulatorConfig) -> None:
    """Raises UserError unless two kinds of users differ, and were fitted to the same users of the log."""
    if second.name == first.name:
        raise SettingError(f".second_simulator is {second.name!r}, as .simulator is", do="Choose the other kind.")
    for key in ("held_out_fraction", "seed"):
        if getattr(second, key) != getattr(first, key):
            do = "Leave it out: it decides which users are held out, of both."
            raise SettingError(f".second_simulator.{key} differs from .simulator.{key}", do=do)

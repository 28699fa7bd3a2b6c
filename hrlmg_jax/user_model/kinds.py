"""The kinds of learned users by their settings."""

from __future__ import annotations

from hrlmg_jax.user_model.ensemble import Ensemble
from hrlmg_jax.user_model.latent.users import LatentUsers
from hrlmg_jax.user_model.network import FeedbackNetwork
from hrlmg_jax.user_model.paper import PaperUsers
from hrlmg_jax.user_model.rates import RatesUsers
from hrlmg_jax.user_model.settings import FittedConfig, LatentConfig, PaperConfig, RatesConfig, SimulatorConfig
from hrlmg_jax.user_model.user_model import UserModel


def make_user_model(config: SimulatorConfig, pessimism: float = 0.0) -> UserModel:
    """Returns the users that the settings name.

    Args:
        config: Which kind, and how many members.
        pessimism: Standard deviations over members that are taken off their answers.
    """
    if isinstance(config, FittedConfig) and config.members > 1:
        return Ensemble(_single(config), config.members, pessimism)
    return _single(config)


def training_model(config: SimulatorConfig) -> UserModel:
    """Returns the users that agents train with: as pessimistic as the settings say."""
    return make_user_model(config, config.pessimism if isinstance(config, FittedConfig) else 0.0)


def _single(config: SimulatorConfig) -> UserModel:
    if isinstance(config, LatentConfig):
        return LatentUsers(config)
    if isinstance(config, RatesConfig):
        return RatesUsers(config)
    assert isinstance(config, PaperConfig)
    return PaperUsers(FeedbackNetwork(config.network))

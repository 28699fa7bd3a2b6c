"""The kinds of learned users by their settings."""

from __future__ import annotations

from hrlmg_jax.user_model.latent import LatentUsers
from hrlmg_jax.user_model.network import FeedbackNetwork
from hrlmg_jax.user_model.paper import PaperUsers
from hrlmg_jax.user_model.settings import LatentConfig, PaperConfig, SimulatorConfig
from hrlmg_jax.user_model.user_model import UserModel


def make_user_model(config: SimulatorConfig) -> UserModel:
    """Returns the users that the settings name."""
    if isinstance(config, LatentConfig):
        return LatentUsers(config)
    assert isinstance(config, PaperConfig)
    return PaperUsers(FeedbackNetwork(config.network))

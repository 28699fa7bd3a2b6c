"""What `gymnasium.make` and `gymnasium.make_vec` call; `sim.gym.worlds.make_world` describes the keyword arguments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from sim.gym.environment import RecommendationEnv
from sim.gym.vector_environment import RecommendationVectorEnv
from sim.gym.worlds import Split, make_world


def single_env(
    configuration: str,
    *,
    split: Split = "train",
    alpha: float | None = None,
    horizon: int | None = None,
    masks: bool = True,
    render_mode: str | None = None,
    **settings: Any,
) -> RecommendationEnv:
    """Returns a simulator."""
    return RecommendationEnv(make_world(configuration, settings, split, alpha, horizon), masks, render_mode)


def vector_env(
    num_envs: int,
    configuration: str,
    *,
    split: Split = "train",
    alpha: float | None = None,
    horizon: int | None = None,
    masks: bool = True,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **settings: Any,
) -> RecommendationVectorEnv:
    """Returns a vector of simulators."""
    world = make_world(configuration, settings, split, alpha, horizon)
    return RecommendationVectorEnv(world, num_envs, masks, autoreset_mode, render_mode)

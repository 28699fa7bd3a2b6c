"""What `gymnasium.make` and `gymnasium.make_vec` call; `sim.gym.worlds.make_world` describes the keyword arguments."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from sim.gym.environment import RecommendationEnv
from sim.gym.vector_environment import RecommendationVectorEnv
from sim.gym.worlds import RATINGS, SESSIONS, Split, make_world


def ratings_env(
    *,
    split: Split = "train",
    alpha: float | None = None,
    horizon: int | None = None,
    masks: bool = True,
    render_mode: str | None = None,
    **settings: Any,
) -> RecommendationEnv:
    """Returns the rating simulator."""
    return RecommendationEnv(make_world(RATINGS, settings, split, alpha, horizon), masks, render_mode)


def ratings_vector_env(
    num_envs: int,
    *,
    split: Split = "train",
    alpha: float | None = None,
    horizon: int | None = None,
    masks: bool = True,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **settings: Any,
) -> RecommendationVectorEnv:
    """Returns a vector of rating simulators."""
    world = make_world(RATINGS, settings, split, alpha, horizon)
    return RecommendationVectorEnv(world, num_envs, masks, autoreset_mode, render_mode)


def sessions_env(
    *,
    split: Split = "train",
    horizon: int | None = None,
    masks: bool = True,
    render_mode: str | None = None,
    **settings: Any,
) -> RecommendationEnv:
    """Returns the session simulator."""
    return RecommendationEnv(make_world(SESSIONS, settings, split, None, horizon), masks, render_mode)


def sessions_vector_env(
    num_envs: int,
    *,
    split: Split = "train",
    horizon: int | None = None,
    masks: bool = True,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **settings: Any,
) -> RecommendationVectorEnv:
    """Returns a vector of session simulators."""
    world = make_world(SESSIONS, settings, split, None, horizon)
    return RecommendationVectorEnv(world, num_envs, masks, autoreset_mode, render_mode)

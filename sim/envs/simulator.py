"""Which simulator a run plays in: the paper's (`sim.envs.rating_env`), or one from outside that the settings name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from harness.extensions import ByModule
from sim.envs.rollout import TrainingEnvironment
from sim.tables.ratings import RatingData

RATING_SIMULATOR = "sim.envs.rating_env"


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """What the settings of every simulator have.

    Attributes:
        module: Dotted path of the module of a simulator from outside; None for the paper's.
    """

    module: str | None = None

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings that decide results, as `eval.json` keeps them."""
        return dataclasses.asdict(self)

    @property
    def description(self) -> str:
        """What tells this simulator from others, in the titles of tables and plots."""
        return self.module or RATING_SIMULATOR


ANY_SIMULATOR = ByModule("env", EnvSettings, ("build",), default=RATING_SIMULATOR)
"""For the annotation of a field that holds a simulator's settings.

A simulator's module defines `Settings` and `build(settings, data, train_users, relevant_above) -> Simulator`.
"""


class Simulator(NamedTuple):
    """A simulator that is ready to play.

    Attributes:
        env: Pure functions, static settings.
        params: Its tables (traced); `env.draw_starts` draws training users.
        reward_of_code: [V + 1] float64 empirical reward of each rating code (0 for "not rated"), for what is fitted to
            ratings instead of episodes.
    """

    env: TrainingEnvironment
    params: Any
    reward_of_code: np.ndarray


def make_simulator(
    settings: EnvSettings, data: RatingData, train_users: np.ndarray, relevant_above: float
) -> Simulator:
    """Builds the simulator that the settings name.

    Args:
        settings: Of the simulator's module.
        data: Ratings of all users.
        train_users: [n] users that episodes begin with in training.
        relevant_above: Ratings above this are relevant.

    Raises:
        UserError: The module cannot be used, or the data do not fit.
    """
    simulator: Simulator = ANY_SIMULATOR.module_of(settings).build(settings, data, train_users, relevant_above)
    return simulator

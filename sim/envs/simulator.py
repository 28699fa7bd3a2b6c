"""Which simulator a run uses: the paper's (`sim.envs.rating_env`), or one from a module that the settings name."""

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
    """Base class of the settings of every simulator.

    Attributes:
        module: Dotted path of a simulator's module outside these packages; None for the paper's simulator.
    """

    module: str | None = None

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings that determine results, as stored in `eval.json`."""
        return dataclasses.asdict(self)

    @property
    def description(self) -> str:
        """What distinguishes this simulator from others, for titles of tables and plots."""
        return self.module or RATING_SIMULATOR


ANY_SIMULATOR = ByModule("env", EnvSettings, ("build",), default=RATING_SIMULATOR)
"""For the annotation of a field with the settings of a simulator.

A simulator's module defines `Settings` and `build(settings, data, train_users, relevant_above) -> Simulator`.
"""


class Simulator(NamedTuple):
    """A simulator, ready for rollouts.

    Attributes:
        env: The environment: pure functions and static settings.
        params: The tables (traced); `env.draw_starts` draws training users.
        reward_of_code: [V + 1] float64 empirical reward of each rating code (0 for "not rated"), for methods that are
            fitted to ratings instead of episodes.
    """

    env: TrainingEnvironment
    params: Any
    reward_of_code: np.ndarray


def make_simulator(
    settings: EnvSettings, data: RatingData, train_users: np.ndarray, relevant_above: float
) -> Simulator:
    """Builds the simulator that the settings name.

    Args:
        settings: The simulator's settings.
        data: Ratings of all users.
        train_users: [n] users to train on.
        relevant_above: Ratings above this value are relevant.

    Raises:
        UserError: The module cannot be used, or the data do not fit.
    """
    simulator: Simulator = ANY_SIMULATOR.module_of(settings).build(settings, data, train_users, relevant_above)
    return simulator

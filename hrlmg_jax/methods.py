"""What an agent's module offers the commands: settings, and a method made from them that is trained and tested.

`hrlmg_jax.registry` says which modules there are, and what each defines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.training.agent import Agent, NamedSettings
from hrlmg_jax.baselines.fixed_lists import BEST_RATE
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from sim.envs.session_env import SessionConfig


@dataclass(frozen=True, kw_only=True)
class AgentSettings(NamedSettings):
    """What the settings of every agent have."""

    def __post_init__(self) -> None:
        """Checks the name; raises UserError."""
        if not self.name.strip():
            raise UserError("agent.name is empty", do="Name the agent, for its row in the tables.")
        if self.name == BEST_RATE:
            raise UserError(f"agent.name is {self.name!r}, the name of a baseline", do="Choose another.")

    @property
    def parallel_sessions(self) -> tuple[int, str] | None:
        """Training sessions that devices can share, and the setting that says so; None without training."""
        return None

    def check(self, env: SessionConfig) -> None:
        """Checks the settings against those of the sessions; raises UserError naming the keys."""


class Method(NamedTuple):
    """An agent, ready to be trained and tested.

    Attributes:
        agent: What the outer loop trains; None if there is nothing to train.
        best: `state -> evaluation policy`, with the best networks of a state so far (the state is None without an
            agent).
        newest: The same with the newest networks.
        step_of_best: `state -> training steps` that the best networks have had.
        describe: `state -> one line about its size`; shapes will do.
        function: The user's function that decides, if one does (`UserFunction.record`).
    """

    agent: Agent | None
    best: Callable[[Any], EvaluationPolicy]
    newest: Callable[[Any], EvaluationPolicy]
    step_of_best: Callable[[Any], int]
    describe: Callable[[Any], str]
    function: dict[str, str] | None = None


def untrained(name: str, policy: EvaluationPolicy) -> Method:
    """Returns a method that always recommends by the same policy."""
    return Method(None, lambda _: policy, lambda _: policy, lambda _: 0, lambda _: f"{name}: nothing to train")

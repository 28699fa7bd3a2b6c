"""What an agent's module offers the commands: settings, and a method made from them that trains and recommends.

`tpgr_jax.registry` says which modules there are, and what each defines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.training.agent import Agent, NamedSettings
from sim.envs.policy import Policy
from tpgr_jax.earlier_run import EarlierRun
from tpgr_jax.tree.item_tree import ItemTree


@dataclass(frozen=True, kw_only=True)
class AgentSettings(NamedSettings):
    """What the settings of every agent have."""

    @property
    def on_a_tree(self) -> bool:
        """Whether the agent decides on the run's item tree, so that no operation is over all items."""
        return False

    @property
    def node_shards(self) -> int:
        """Devices that hold different nodes' networks."""
        return 1

    def check(self, episodes_per_step: int) -> None:
        """Checks these settings against the episodes of a training step; raises UserError naming the keys."""


@dataclass(frozen=True)
class RunContext:
    """What an agent may use of its run beside its own settings.

    Attributes:
        seed: Of the run.
        episodes_per_step: B, episodes that a training step plays.
        tree: Returns the run's item tree.
        earlier: The run whose parameters training starts from (`init_from`); None: it starts anew.
    """

    seed: int
    episodes_per_step: int
    tree: Callable[[], ItemTree]
    earlier: EarlierRun | None = None


def unchanged(state: Any) -> Any:
    """Returns it as it is."""
    return state


class Method(NamedTuple):
    """A method, ready to be trained and evaluated.

    Attributes:
        name: In tables and results.
        agent: What the outer loop trains; None if there is nothing to train.
        policy: Recommends.
        policy_params: `state -> parameters of the policy`, for a state of the agent (None without one).
        samples: Whether the policy has a second way of deciding, by sampling.
        description: One line about its size.
        function: The user's function that decides, if one does (`UserFunction.record`).
        finished: `state -> state`, for one that is only read from now on.
    """

    name: str
    agent: Agent | None
    policy: Policy
    policy_params: Callable[[Any], Any]
    samples: bool
    description: str
    function: dict[str, str] | None = None
    finished: Callable[[Any], Any] = unchanged


def fitted_method(name: str, policy: Policy, params: Any) -> Method:
    """Returns a method that is fitted to the training users' ratings at once; within episodes it may learn."""
    return Method(name, None, policy, lambda state: params, False, f"{name}: fitted, nothing to train")

"""What the outer loop needs of anything that trains: a tuple of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from harness.compute.quick_compilation import quick_compilation
from harness.compute.sharding import EVERYWHERE
from harness.errors import UserError


def _unchanged(state: Any, metrics: dict[str, float]) -> Any:
    return state


def _never(state: Any) -> bool:
    return False


def _everywhere(state: Any) -> Any:
    return jax.tree.map(lambda _: EVERYWHERE, state)


@dataclass(frozen=True, kw_only=True)
class NamedSettings:
    """What the settings of every agent have.

    Attributes:
        name: Of the agent, in the registry and in results.
        module: Dotted path of the module of an agent from outside; None for those of the system's own package.
    """

    name: str
    module: str | None = None

    @property
    def result_name(self) -> str:
        """The name in tables and results."""
        return self.name

    @property
    def warm_up(self) -> tuple[int, str]:
        """Training steps before the first that learns, and the setting that says so."""
        return 0, ""

    def check_warm_up(self, steps: int) -> None:
        """Checks that something is learned in so many training steps; raises UserError naming the keys."""
        warm_up, key = self.warm_up
        if warm_up >= steps:
            raise UserError(
                f"{key} is {warm_up} and train.steps is {steps}: training would end before anything is learned",
                do=f"Give train.steps more than {warm_up}, or lower {key}.",
            )


class Agent(NamedTuple):
    """A learner, a bandit or a fixed list.

    Attributes:
        init: `(key, world) -> state`, pure; also gives the shapes that a checkpoint is restored into.
        pretrain: `state -> state`; called once, at the start of a new run (may work on the host).
        train_step: `(state, world) -> (state, metrics)`, pure; metrics are scalars by name, the headline among them.
        world: Tables that training reads (environment, tree). They are arguments of the compiled step; closed over,
            they would become constants of the program.
        episodes_per_step: Episodes per training step; a fraction where each step advances many episodes a little.
        headline: The metric that the progress bar shows.
        after_evaluation: `(state, metrics) -> state`; called with the metrics of each evaluation, before the
            checkpoint, so that a learner can keep its best parameters.
        finished: `state -> bool`; called after each evaluation, True ends training early.
        partition: `state -> tree of PartitionSpec`; how a state is sharded over many devices.
        few_steps: Whether compiling a step takes longer than all steps do: it is then optimised less.
    """

    init: Callable[[jax.Array, Any], Any]
    pretrain: Callable[[Any], Any]
    train_step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    world: Any
    episodes_per_step: float
    headline: str = "reward"
    after_evaluation: Callable[[Any, dict[str, float]], Any] = _unchanged
    finished: Callable[[Any], bool] = _never
    partition: Callable[[Any], Any] = _everywhere
    few_steps: bool = False

    def initial_state(self, key: jax.Array) -> Any:
        """Returns the state that `init` makes, compiled for this one call."""
        return jax.jit(self.init, compiler_options=quick_compilation())(key, self.world)

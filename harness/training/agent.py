"""What the outer loop needs of anything that trains: a record of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from harness.sharding import EVERYWHERE


def _unchanged(state: Any, metrics: dict[str, float]) -> Any:
    return state


def _never(state: Any) -> bool:
    return False


def _everywhere(state: Any) -> Any:
    return jax.tree.map(lambda _: EVERYWHERE, state)


class Agent(NamedTuple):
    """A learner, a bandit or a fixed list.

    Attributes:
        init: `(key, world) -> state`, pure; also gives the shapes that a checkpoint is restored into.
        pretrain: `state -> state`; called once, at the start of a new run (may work on the host).
        train_step: `(state, world) -> (state, metrics)`, pure; metrics are scalars by name, the headline among them.
        world: Tables that training reads (environment, tree); passed to the compiled step as arguments, because
            closing over them would bake them into the program.
        episodes_per_step: Episodes that one training step plays; a fraction where it advances many by a step.
        headline: The metric that the progress bar shows.
        after_evaluation: `(state, metrics) -> state`; called with what an evaluation found, before the checkpoint, so
            that a learner can keep its best parameters.
        finished: `state -> bool`; asked after each evaluation, True ends the training early.
        partition: `state -> tree of PartitionSpec`; how a state lies on many devices.
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

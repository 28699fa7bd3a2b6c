"""Members: runs that train side by side in one compiled program, alike but for their seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.runs.run_folder import RunFolder
from harness.training.agent import Agent


class Member(NamedTuple):
    """One of the runs that train together.

    Attributes:
        agent: What trains. The `init` and `train_step` of the first member are used for all: only worlds and what
            works on the host (`pretrain`, `after_evaluation`, `finished`) may differ.
        folder: Where its metrics and checkpoints go.
        key: Of a new run; a restored run keeps its own.
        evaluate: `state -> metrics` on held-out users, under names such as `test_reward`.
    """

    agent: Agent
    folder: RunFolder
    key: jax.Array
    evaluate: Callable[[Any], dict[str, float]]


def split_worlds(worlds: Sequence[Any]) -> tuple[Any, Any]:
    """Separates the tables that all members share from those that each has for itself.

    Args:
        worlds: Of K members; pytrees of one structure.

    Returns:
        Two pytrees of that structure: the arrays that are the same object in all worlds, and the others stacked,
        [K, ...]. Each has None where the other has an array.
    """

    def same(leaves: tuple[Any, ...]) -> bool:
        return all(leaf is leaves[0] for leaf in leaves)

    shared = jax.tree.map(lambda *leaves: leaves[0] if same(leaves) else None, *worlds)
    own = jax.tree.map(lambda *leaves: None if same(leaves) else jnp.stack(leaves), *worlds)
    return shared, own


def call_for_each(function: Callable[[Any, Any], Any], states: Sequence[Any], shared: Any, own: Any) -> list[Any]:
    """Returns `function(state, world)` of every member; to be called inside a compiled function.

    Args:
        function: Pure; returns a pytree of arrays.
        states: Of K members.
        shared: From `split_worlds`.
        own: From `split_worlds`.
    """

    def call(state: Any, own: Any) -> Any:
        world = jax.tree.map(lambda one, two: two if one is None else one, shared, own, is_leaf=lambda x: x is None)
        return function(state, world)

    if len(states) == 1:
        return [call(states[0], own)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    if _one_after_another():
        results = jax.lax.map(lambda member: call(*member), (stacked, own))
    else:
        results = jax.vmap(call)(stacked, own)
    return [jax.tree.map(lambda leaf, number=number: leaf[number], results) for number in range(len(states))]


def _one_after_another() -> bool:
    """Whether members take turns inside the program, or compute side by side as one more array axis.

    On CPU they take turns: each computes what a single run does, and that is not slower. TPGR, 8 seeds, 2 busy CPU
    cores, seconds per step of all seeds: 4.9 in turns and 5.7 side by side on ratings of MovieLens-1M's size, 3.8 and
    3.9 on `data.size=small`. Accelerators, which have room for all at once, have not been measured.
    """
    return jax.default_backend() == "cpu"

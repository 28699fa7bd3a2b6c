"""Updating only the nodes that a batch has visited, where a tree has many more: what dense Adam computes, to rounding.

Dense Adam passes over the networks of all nodes in every training step. Here those of a lazy level are kept by
`harness.training.lazy_adam`; a step gathers the visited nodes' networks, differentiates with respect to these alone,
and writes them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax

from harness.training.lazy_adam import Rows, Stale, distinct, outlook_after, start_rows, step_rows
from tpgr_jax.agents.tree_ops import TreeTables, head_of, step_to_leaf
from tpgr_jax.agents.tree_policy import PolicyParams, TreePolicy, head_name
from tpgr_jax.networks.node_heads import SOME, STALE, as_layers


class LazyState(NamedTuple):
    """What Adam keeps.

    Attributes:
        dense: optax's state for the parameters that every step changes.
        rows: By name, what it keeps for the networks of each lazy level.
    """

    dense: Any
    rows: dict[str, Rows]


@dataclass(frozen=True)
class LazyNodes:
    """Adam on clipped gradients, lazy at some levels, as pure functions.

    The network parameters of these levels are points of rest, except where said otherwise.

    Attributes:
        policy: Whose networks.
        levels: The lazy ones.
        learning_rate: Adam's.
        clip_norm: Largest norm of the whole gradient.
    """

    policy: TreePolicy
    levels: tuple[int, ...]
    learning_rate: float
    clip_norm: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of the lazy levels' parameters."""
        return tuple(map(head_name, self.levels))

    def start(self, trainable: Any) -> LazyState:
        """Returns the state before the first step."""
        dense, lazy = self._split(trainable)
        return LazyState(optax.adam(self.learning_rate).init(dense), {name: start_rows(lazy[name]) for name in lazy})

    def up_to_date(self, network: Any, state: LazyState, count: jax.Array) -> Any:
        """Returns network parameters with those of the lazy levels where they are after `count` training steps."""
        return {**network, **{name: stale.at() for name, stale in self._stale(network, state, count).items()}}

    def reading(self, network: Any, state: LazyState, count: jax.Array, tree: TreeTables) -> PolicyParams:
        """Returns what the policy reads in a rollout: nodes are brought up to date as they are visited."""

        def by_layer(stale: Stale) -> Stale:
            rows = Rows(as_layers(stale.rows.mu), as_layers(stale.rows.nu), stale.rows.last)
            return stale._replace(rest=None, rows=rows)

        stale = self._stale(network, state, count)
        return PolicyParams(network, tree, {STALE: {name: {"layers": by_layer(stale[name])} for name in stale}})

    def update(
        self,
        network: Any,
        state: LazyState,
        count: jax.Array,
        tree: TreeTables,
        item: jax.Array,
        gradient_of: Callable[[PolicyParams], tuple[Any, dict[str, jax.Array]]],
    ) -> tuple[Any, LazyState, dict[str, jax.Array]]:
        """Takes one step.

        Args:
            network: Parameters.
            state: Adam's.
            count: int32 steps done.
            tree: Of the items.
            item: [T, B] the episodes' items, whose paths were visited.
            gradient_of: From the policy's parameters, which have only the visited nodes of lazy levels, to the gradient
                for those that are trained, and metrics.

        Returns:
            Parameters and state after the step, and the metrics with the gradient's norm.
        """
        # The visited nodes' networks.
        stale = self._stale(network, state, count)
        visited = {
            name: self._visited(tree, level, item, stale[name].rows.last.shape[0])
            for level, name in zip(self.levels, self.names, strict=True)
        }
        positions = {name: stale[name].at(visited[name]) for name in stale}
        some = {SOME: {name: {"nodes": nodes} for name, nodes in visited.items()}}

        # Their gradient, clipped with that of everything else.
        gradient, metrics = gradient_of(PolicyParams({**network, **positions}, tree, some))
        metrics = {**metrics, "gradient_norm": optax.tree.norm(gradient)}
        gradient, _ = optax.clip_by_global_norm(self.clip_norm).update(gradient, optax.EmptyState())
        dense_gradient, lazy_gradient = self._split(gradient)

        # One step of Adam.
        dense, _ = self._split(self.policy.trainable(network))
        updates, dense_state = optax.adam(self.learning_rate).update(dense_gradient, state.dense)
        stepped = {name: step_rows(stale[name], visited[name], positions[name], lazy_gradient[name]) for name in stale}
        trainable = {**optax.apply_updates(dense, updates), **{name: rest for name, (rest, _) in stepped.items()}}
        rows = {name: rows for name, (_, rows) in stepped.items()}
        return self.policy.with_trainable(network, trainable), LazyState(dense_state, rows), metrics

    def _stale(self, network: Any, state: LazyState, count: jax.Array) -> dict[str, Stale]:
        outlook = outlook_after(count)
        return {name: Stale(network[name], state.rows[name], outlook, self.learning_rate) for name in self.names}

    def _visited(self, tree: TreeTables, level: int, item: jax.Array, stored: int) -> jax.Array:
        node, _ = step_to_leaf(tree, level, tree.item_leaf[item])
        return distinct(head_of(tree, level, node), stored)

    def _split(self, trainable: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns what every step changes, and the lazy levels'."""
        return (
            {name: value for name, value in trainable.items() if name not in self.names},
            {name: trainable[name] for name in self.names},
        )

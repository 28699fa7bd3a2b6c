"""Updating only the nodes that a batch has visited, where a tree has many more: what dense Adam computes, to rounding.

Dense Adam passes over the networks of all nodes in every training step. Here those of a lazy level are kept by
`harness.training.lazy_adam`: a rollout and a gradient bring what they read up to date, and a step reads and writes what
was visited, some nodes at a time. Gradients of all nodes are never in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from harness.compute.sharding import on_every_device
from harness.training.lazy_adam import Rows, Stale, outlook_after, start_rows, step_rows
from tpgr_jax.agents.tree_ops import TreeTables, head_of, step_to_leaf
from tpgr_jax.agents.tree_policy import PolicyParams, TreePolicy, head_name
from tpgr_jax.networks import stale_heads
from tpgr_jax.networks.node_heads import STALE, as_layers, by_name
from tpgr_jax.networks.stale_heads import Factors
from tpgr_jax.networks.visited_nodes import Visits, group_by_node, over_visited, sum_of_squares


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
        dense = {name: value for name, value in trainable.items() if name not in self.names}
        rows = {name: start_rows(trainable[name]) for name in self.names}
        return LazyState(optax.adam(self.learning_rate).init(dense), rows)

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

    def descend(
        self, gradient: Any, params: PolicyParams, state: LazyState, count: jax.Array, item: jax.Array
    ) -> tuple[Any, LazyState, jax.Array]:
        """Takes one step.

        Args:
            gradient: For the parameters that every step changes; of lazy levels [n, B, ...] `Factors`.
            params: What the policy reads (`reading`).
            state: Adam's.
            count: int32 steps done.
            item: [n, B] the items that led to the nodes visited.

        Returns:
            Network parameters and state after the step, and the gradient's norm before clipping.
        """
        # The gradient's norm, to clip it.
        stale = self._stale(params.network, state, count)
        visits = {
            name: self._visits(params.tables, level, item, gradient[name], stale[name])
            for level, name in zip(self.levels, self.names, strict=True)
        }
        dense_gradient = {name: value for name, value in gradient.items() if name not in self.names}
        squares = optax.tree.norm(dense_gradient, squared=True)
        norm = jnp.sqrt(squares + sum(map(sum_of_squares, visits.values())))
        scale = jnp.where(norm < self.clip_norm, 1.0, self.clip_norm / norm)

        def clipped(gradient: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf * scale, gradient)

        # One step of Adam.
        dense = {name: value for name, value in self.policy.trainable(params.network).items() if name in dense_gradient}
        updates, dense_state = optax.adam(self.learning_rate).update(clipped(dense_gradient), state.dense)
        network = self.policy.with_trainable(params.network, optax.apply_updates(dense, updates))
        rows, after = {}, outlook_after(count + 1)
        for name, before in stale.items():

            def step(tables: Any, nodes: jax.Array, gradient: Any, before: Stale = before) -> Any:
                now = before._replace(rest=tables[0], rows=tables[1])
                return step_rows(now, after, nodes, by_name(clipped(gradient)))

            network[name], rows[name] = over_visited(visits[name], step, (before.rest, before.rows))
        return network, LazyState(dense_state, rows), norm

    def _stale(self, network: Any, state: LazyState, count: jax.Array) -> dict[str, Stale]:
        outlook = outlook_after(count)
        return {name: Stale(network[name], state.rows[name], outlook, self.learning_rate) for name in self.names}

    def _visits(self, tree: TreeTables, level: int, item: jax.Array, factors: Factors, stale: Stale) -> Visits:
        node, _ = step_to_leaf(tree, level, tree.item_leaf[item.reshape(-1)])
        # On many devices each steps all nodes, with the factors of all.
        node, factors = on_every_device((head_of(tree, level, node), factors))
        factors = jax.tree.map(lambda values: values.reshape(-1, values.shape[-1]), factors)
        return group_by_node(node, stale.rows.last.shape[0], factors)


def stored_params(state: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """Returns up-to-date network parameters from a checkpoint's state, in nested dictionaries."""
    params, opt_state = dict(state["params"]), state["opt_state"]
    rows: Mapping[str, Any] = opt_state.get("rows", {}) if isinstance(opt_state, Mapping) else {}

    @jax.jit
    def position(rest: Any, kept: Rows, count: jax.Array) -> Any:
        return Stale(rest, kept, outlook_after(count), learning_rate).at()

    for name, kept in rows.items():
        # From the host, since they were restored to one device whatever devices a run uses.
        stored = jax.device_get((params[name], Rows(kept["mu"], kept["nu"], kept["last"]), state["step"]))
        params[name] = position(*stored)
    return params


def no_factors(params: PolicyParams, samples: int) -> dict[str, Factors]:
    """Returns zeros in the place of the factors of so many samples, by the name of each lazy level."""
    stale = params.collections.get(STALE, {})
    return {name: stale_heads.no_factors(as_layers(params.network[name]), samples) for name in stale}


def with_factors(params: PolicyParams, factors: Mapping[str, Factors]) -> PolicyParams:
    """Returns the policy's parameters with zeros with respect to which it is differentiated."""
    if not factors:
        return params
    stale = {name: {**read, "factors": factors[name]} for name, read in params.collections[STALE].items()}
    return replace(params, collections={**params.collections, STALE: stale})

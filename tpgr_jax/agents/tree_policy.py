"""The tree-structured policy: a softmax over the children at every internal node, masked to what is available."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from harness.settings import Count, CountOrZero
from harness.sharding import EVERYWHERE, NODES
from sim.envs.policy import Decision, Policy
from sim.envs.rating_env import STATUS_SIZE, Observation, Trajectory
from sim.envs.rollout import TrainingEnvironment
from tpgr_jax.agents.tree_ops import (
    MASKED_LOGIT,
    TreeTables,
    available_items,
    chosen,
    past_leaves_of,
    place_of_largest,
    sample_child,
)
from tpgr_jax.networks.encoder import Encoder, EncoderConfig, make_encoder
from tpgr_jax.networks.node_heads import NodeHeads


@dataclass(frozen=True)
class PolicyConfig(EncoderConfig):
    """Networks of the tree policy (`conf/agent/tpgr.yaml`)."""

    hidden: list[Count]
    count_prior: bool
    encoder_pretrain_steps: CountOrZero
    head_shards: Count = 1


@flax.struct.dataclass
class PolicyParams:
    """What the tree policy reads: `network` is learned, `tables` is the tree."""

    network: Any
    tables: TreeTables


class TreePolicyNetwork(nn.Module):
    """The encoder and the heads of every level.

    Attributes:
        encoder: Turns interactions into states.
        hidden: Widths of the heads' hidden layers.
        num_children: C.
        depth: D.
        head_shards: Devices that the heads of a level can be spread over.
    """

    encoder: Encoder
    hidden: Sequence[int]
    num_children: int
    depth: int
    head_shards: int = 1

    def setup(self) -> None:
        """Declares the heads of each level."""
        self.heads = [
            NodeHeads(self.num_children**level, self.hidden, self.num_children, self.head_shards)
            for level in range(self.depth)
        ]

    def encode_step(
        self, cell: jax.Array, item: jax.Array, reward: jax.Array, status: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `Encoder.step`."""
        return self.encoder.step(cell, item, reward, status)

    def encode(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> jax.Array:
        """See `Encoder.__call__`."""
        return self.encoder(item, reward, status)

    def logits(self, level: int, state: jax.Array, node: jax.Array) -> jax.Array:
        """Returns [S, C] logits of nodes [S] of a level at states [S, F]."""
        return self.heads[level](state, node)

    def __call__(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> list[jax.Array]:
        """Touches every parameter (for initialisation)."""
        state = self.encode(item, reward, status).reshape(-1, self.encoder.state_size)
        node = jnp.zeros(state.shape[:1], jnp.int32)
        return [self.logits(level, state, node) for level in range(self.depth)]


@dataclass(frozen=True)
class TreePolicy:
    """The tree policy as pure functions of `PolicyParams`.

    Attributes:
        network: The Linen module.
        count_prior: Whether log(number of available items) is added to each child's logit, which makes the untrained
            policy uniform over items (official code).
    """

    network: TreePolicyNetwork
    count_prior: bool

    def init(self, key: jax.Array) -> Any:
        """Draws initial network parameters."""
        item, reward = jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1))
        return self.network.init(key, item, reward, jnp.zeros((2, 1, STATUS_SIZE)))["params"]

    def trainable(self, network: Any) -> Any:
        """Returns the network parameters that gradients reach (without a frozen item embedding)."""
        if self.network.encoder.train_embedding:
            return network
        encoder = {name: value for name, value in network["encoder"].items() if name != "item_embedding"}
        return {**network, "encoder": encoder}

    def with_trainable(self, network: Any, trainable: Any) -> Any:
        """Returns network parameters with those that gradients reach replaced; the inverse of `trainable`."""
        return {**trainable, "encoder": {**network["encoder"], **trainable["encoder"]}}

    def partition(self, tree: Any) -> Any:
        """Says how parameters, or a learner's state with them, lie on many devices: a tree of `PartitionSpec`."""
        spread = {f"heads_{level}" for level in range(1, self.network.depth)} if self.network.head_shards > 1 else set()

        def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
            names = {key.key for key in path if isinstance(key, jax.tree_util.DictKey)}
            return PartitionSpec(NODES) if names & spread else EVERYWHERE

        return jax.tree_util.tree_map_with_path(spec, tree)

    def as_policy(self) -> Policy:
        """Returns the two functions that the rollout needs; the carry is the SRU's cell [B, H]."""
        return Policy(self._initial_cell, self._act)

    def _initial_cell(self, params: PolicyParams, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, self.network.encoder.hidden_size))

    def _act(
        self, params: PolicyParams, cell: jax.Array, observation: Observation, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        tables = params.tables
        branching, depth = self.network.num_children, self.network.depth
        cell, state = self._apply(
            TreePolicyNetwork.encode_step,
            params,
            cell,
            observation.last_item,
            observation.last_reward,
            observation.status,
        )
        batch_size = state.shape[0]
        uniform = jax.random.uniform(key, (depth, batch_size))
        past_leaves = past_leaves_of(tables, observation.recommended)
        node = jnp.zeros((batch_size,), jnp.int32)
        log_prob = jnp.zeros((batch_size,))
        for level in range(depth):
            logits = self._apply(TreePolicyNetwork.logits, params, level, state, node)
            masked = self._mask(logits, available_items(tables, level, node, past_leaves))
            choice = sample_child(masked, uniform[level]) if explore else place_of_largest(masked)
            log_prob += chosen(jax.nn.log_softmax(masked), choice)
            node = node * branching + choice
        return cell, Decision(tables.leaf_items[node], log_prob)

    def path_log_probs(
        self, params: PolicyParams, env: TrainingEnvironment, trajectory: Trajectory, steps: jax.Array | None = None
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Recomputes log pi of recommendations and the masked distributions on their paths, for the update.

        Args:
            params: Parameters; `params.network` is what the update differentiates.
            env: Where the episodes were played.
            trajectory: [T, B] episodes.
            steps: [n] int32 time steps to recompute; None for all T.

        Returns:
            [n, B] log-probability of each item and, per level, [n * B, C] log-probabilities of the visited node's
            children (about `MASKED_LOGIT` where unavailable).
        """
        tables = params.tables
        branching, depth = self.network.num_children, self.network.depth
        state = self._apply(TreePolicyNetwork.encode, params, trajectory.item, trajectory.reward, trajectory.status)
        leaf = tables.item_leaf[trajectory.item]
        past_leaves = env.recommended_before(leaf, steps)
        if steps is not None:
            state, leaf = state[steps], leaf[steps]
        samples, batch_size = leaf.size, leaf.shape[1]
        state, leaf = state.reshape(samples, -1), leaf.reshape(samples)
        past_leaves = past_leaves.reshape(samples, past_leaves.shape[-1])
        total = jnp.zeros((samples,))
        levels = []
        for level in range(depth):
            node, below = leaf // branching ** (depth - level), leaf // branching ** (depth - level - 1)
            logits = self._apply(TreePolicyNetwork.logits, params, level, state, node)
            log_probs = jax.nn.log_softmax(self._mask(logits, available_items(tables, level, node, past_leaves)))
            total += chosen(log_probs, below % branching)
            levels.append(log_probs)
        return total.reshape(-1, batch_size), levels

    def _apply(self, method: Callable[..., Any], params: PolicyParams, *arguments: Any) -> Any:
        return self.network.apply({"params": params.network}, *arguments, method=method)

    def _mask(self, logits: jax.Array, available: jax.Array) -> jax.Array:
        if self.count_prior:
            logits = logits + jnp.log(jnp.maximum(available, 1).astype(jnp.float32))
        return jnp.where(available > 0, logits, MASKED_LOGIT)


def make_tree_policy(config: PolicyConfig, num_items: int, num_children: int, depth: int) -> TreePolicy:
    """Builds the policy for a tree of the given shape.

    Args:
        config: Networks.
        num_items: I.
        num_children: C.
        depth: D.
    """
    encoder = make_encoder(config, num_items)
    network = TreePolicyNetwork(encoder, tuple(config.hidden), num_children, depth, config.head_shards)
    return TreePolicy(network, config.count_prior)

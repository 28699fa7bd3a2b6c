"""The tree-structured policy: a softmax over the children at every internal node, masked to what is available."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import chex
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from harness.compute.sharding import EVERYWHERE, NODES
from harness.settings import Count, CountOrZero
from sim.envs.fast_argmax import fast_argmax
from sim.envs.policy import Decision, Path, Policy, Ranking
from sim.envs.rating_env import STATUS_SIZE, Observation, Trajectory
from sim.envs.rollout import TrainingEnvironment
from tpgr_jax.agents.tree_ops import (
    MASKED_LOGIT,
    TreeTables,
    allowed_only,
    available_items,
    available_leaves,
    chosen,
    head_of,
    merge_best,
    next_node,
    no_ranking,
    past_leaves_of,
    sample_child,
    step_to_leaf,
)
from tpgr_jax.networks.encoder import Encoder, EncoderConfig, make_encoder
from tpgr_jax.networks.node_heads import NodeHeads
from tpgr_jax.tree.item_tree import ItemTree

_ITEMS_AT_A_TIME = 2**17
"""Items that a search looks at together, those of all episodes."""
_PARTS = 4
"""In which it looks at the children of a node, at least."""


@dataclass(frozen=True)
class PolicyConfig(EncoderConfig):
    """Networks of the tree policy (`conf/agent/tpgr.yaml`)."""

    hidden: list[Count]
    count_prior: bool
    encoder_pretrain_steps: CountOrZero
    head_shards: Count = 1


@flax.struct.dataclass
class PolicyParams:
    """What the tree policy reads: `network` is learned, `tables` is the tree.

    Attributes:
        network: Parameters.
        tables: Of the tree.
        collections: What else the networks read, by Flax's collections (see `NodeHeads`).
    """

    network: Any
    tables: TreeTables
    collections: Mapping[str, Any] = field(default_factory=dict)


class TreePolicyNetwork(nn.Module):
    """The encoder and the heads of every level.

    Attributes:
        encoder: Turns interactions into states.
        hidden: Widths of the heads' hidden layers.
        num_children: C.
        level_nodes: Number of internal nodes of each of the D levels.
        head_shards: Devices that the heads of a level can be spread over.
    """

    encoder: Encoder
    hidden: Sequence[int]
    num_children: int
    level_nodes: Sequence[int]
    head_shards: int = 1

    @property
    def depth(self) -> int:
        """D."""
        return len(self.level_nodes)

    def setup(self) -> None:
        """Declares the heads of each level."""
        self.heads = [
            NodeHeads(num_nodes, self.hidden, self.num_children, self.head_shards) for num_nodes in self.level_nodes
        ]

    def logits(self, level: int, state: jax.Array, node: jax.Array) -> jax.Array:
        """Returns [S, C] logits of nodes [S] of a level at states [S, F]."""
        return self.heads[level](state, node)

    def __call__(self, item: jax.Array, reward: jax.Array, status: jax.Array) -> list[jax.Array]:
        """Touches every parameter (for initialisation)."""
        state = self.encoder(item, reward, status).reshape(-1, self.encoder.state_size)
        node = jnp.zeros(state.shape[:1], jnp.int32)
        return [self.logits(level, state, node) for level in range(self.depth)]


def head_name(level: int) -> str:
    """Returns the name of the parameters of a level's networks."""
    return f"heads_{level}"


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
        return {**network, **trainable, "encoder": {**network["encoder"], **trainable["encoder"]}}

    def partition(self, tree: Any) -> Any:
        """Says how parameters, or a learner's state with them, lie on many devices: a tree of `PartitionSpec`."""
        levels = enumerate(self.network.level_nodes) if self.network.head_shards > 1 else ()
        spread = {head_name(level) for level, num_nodes in levels if num_nodes > 1}

        def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
            names = {key.key for key in path if isinstance(key, jax.tree_util.DictKey)}
            return PartitionSpec(NODES) if names & spread else EVERYWHERE

        return jax.tree_util.tree_map_with_path(spec, tree)

    def as_policy(self) -> Policy:
        """Returns the functions that the rollout needs; the carry is the SRU's cell [B, H]."""
        return Policy(
            self._initial_cell,
            self._act,
            self._rank,
            self._path,
            "log-probability of the item among those allowed (nats)",
            "probability of the child among its siblings",
        )

    def _initial_cell(self, params: PolicyParams, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, self.network.encoder.hidden_size))

    def _act(
        self, params: PolicyParams, cell: jax.Array, observation: Observation, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        cell, state = self._encode(params, cell, observation)
        uniform = jax.random.uniform(key, (self.network.depth, state.shape[0])) if explore else None
        past_leaves = past_leaves_of(params.tables, observation.recommended)
        return cell, self._descend(params, state, past_leaves, uniform)

    def _descend(
        self, params: PolicyParams, state: jax.Array, past_leaves: jax.Array, uniform: jax.Array | None
    ) -> Decision:
        """Walks from the root to a leaf: by sampling with uniform numbers [D, B], or always to the likeliest child."""
        tables, batch_size = params.tables, state.shape[0]
        node = jnp.zeros((batch_size,), jnp.int32)
        log_prob = jnp.zeros((batch_size,))
        for level in range(self.network.depth):
            masked, _ = self._masked_logits(params, level, state, node, past_leaves)
            choice = fast_argmax(masked) if uniform is None else sample_child(masked, uniform[level])
            log_prob += chosen(jax.nn.log_softmax(masked), choice)
            node = next_node(tables, level, node, choice)
        return Decision(tables.leaf_items[node], log_prob)

    def _rank(
        self, params: PolicyParams, cell: jax.Array, observation: Observation, k: int, available: jax.Array
    ) -> Ranking:
        """The greedy decision, then the k - 1 likeliest of the other items, exactly; scores are log pi.

        log pi of an item is the sum of the log-probabilities along its path, of the policy that is masked to what is
        allowed and was not recommended; exp of it sums to one over these items. The greedy walk need not end at the
        likeliest item, so the first score may be below the second.
        """
        _, state = self._encode(params, cell, observation)
        tables, past_leaves = allowed_only(params.tables, available, observation.recommended)
        params = replace(params, tables=tables)
        first = self._descend(params, state, past_leaves, None)
        root, start = jnp.zeros(first.action.shape, jnp.int32), jnp.zeros(first.log_prob.shape)
        best = no_ranking(len(root), k - 1)
        if k > 1:
            best = self._search(params, 0, state, past_leaves, root, start, first.action, best)

        # The greedy walk ends somewhere even if nothing is left.
        left = jnp.any(self._masked_logits(params, 0, state, root, past_leaves)[1] > 0, -1, keepdims=True)
        items = jnp.concatenate([jnp.where(left, first.action[:, None], -1), best.items], 1)
        return Ranking(items, jnp.concatenate([jnp.where(left, first.log_prob[:, None], -jnp.inf), best.scores], 1))

    def _search(
        self,
        params: PolicyParams,
        level: int,
        state: jax.Array,
        past_leaves: jax.Array,
        node: jax.Array,
        log_prob: jax.Array,
        leave_out: jax.Array,
        best: Ranking,
    ) -> Ranking:
        """Looks below one node of each episode for items that are likelier than the k-th best so far.

        Branch and bound: a path's log-probability only falls on the way down, so that a node whose own is not above
        the k-th best needs no look. (The k best nodes of a level are not enough: many small leaves may make a node
        likely.) Of a node's children the likeliest are entered first.

        Args:
            params: With the tables of what is allowed.
            state: [B, F].
            past_leaves: [B, T].
            node: [B] where to look.
            log_prob: [B] of the paths to the nodes, -inf where an episode does not look.
            leave_out: [B] items that are not looked for.
            best: The k best so far.

        Returns:
            The k best with those below the nodes.
        """
        last, children = self.network.depth - 1, self.network.num_children
        if level == last:  # the only one
            return self._merge_items(params, state, past_leaves, node[:, None], log_prob[:, None], leave_out, best)
        masked, available = self._masked_logits(params, level, state, node, past_leaves)
        path = jnp.where(available > 0, log_prob[:, None] + jax.nn.log_softmax(masked), -jnp.inf)
        # Several of the deepest nodes are entered at a time: an operation on few numbers is not much faster.
        width = min(-(-children // _PARTS), _ITEMS_AT_A_TIME // (len(node) * children)) if level == last - 1 else 1
        width = max(width, 1)

        def promising(carry: tuple[jax.Array, Ranking]) -> jax.Array:
            unseen, best = carry
            return jnp.any(jnp.max(unseen, -1) > best.scores[:, -1])

        def enter_likeliest(carry: tuple[jax.Array, Ranking]) -> tuple[jax.Array, Ranking]:
            unseen, best = carry
            path, choice = jax.lax.top_k(unseen, width)
            path = jnp.where(path > best.scores[:, -1:], path, -jnp.inf)
            below = next_node(params.tables, level, node[:, None], choice)
            if level == last - 1:
                best = self._merge_items(params, state, past_leaves, below, path, leave_out, best)
            else:
                best = self._search(params, level + 1, state, past_leaves, below[:, 0], path[:, 0], leave_out, best)
            return unseen.at[jnp.arange(len(node))[:, None], choice].set(-jnp.inf), best

        return jax.lax.while_loop(promising, enter_likeliest, (path, best))[1]

    def _merge_items(
        self,
        params: PolicyParams,
        state: jax.Array,
        past_leaves: jax.Array,
        node: jax.Array,
        log_prob: jax.Array,
        leave_out: jax.Array,
        best: Ranking,
    ) -> Ranking:
        """Returns the k best with the items below W of the deepest nodes, [B, W] with their log-probabilities."""
        last, (batch_size, width) = self.network.depth - 1, node.shape
        available = available_leaves(params.tables, node, past_leaves)
        of_each = jnp.repeat(state, width, 0), node.reshape(-1), available.reshape(batch_size * width, -1)
        masked = self._masked(params, last, *of_each).reshape(available.shape)
        path = log_prob[..., None] + jax.nn.log_softmax(masked)
        leaf = next_node(params.tables, last, node[..., None], jnp.arange(self.network.num_children))
        items = params.tables.leaf_items[leaf]
        path = jnp.where((available > 0) & (items != leave_out[:, None, None]), path, -jnp.inf)
        return merge_best(best, items.reshape(batch_size, -1), path.reshape(batch_size, -1))

    def _path(
        self, params: PolicyParams, cell: jax.Array, observation: Observation, items: jax.Array, available: jax.Array
    ) -> Path:
        """Scores are the probabilities whose product is that of the item; see `Policy.path`."""
        # Every item is a sample of its own.
        number = items.shape[1]
        _, state = self._encode(params, cell, observation)
        tables, past_leaves = allowed_only(params.tables, available, observation.recommended)
        params = replace(params, tables=tables)
        state, past_leaves = (jnp.repeat(rows, number, 0) for rows in (state, past_leaves))
        leaf = tables.item_leaf[jnp.maximum(items, 0)].reshape(-1)

        # From the root down, until the item is reached.
        score, child, below = [], [], []
        on_the_way = (items >= 0).reshape(-1)
        for level in range(self.network.depth):
            node, choice = step_to_leaf(tables, level, leaf)
            on_the_way &= node < self.network.level_nodes[level]
            masked, left = self._masked_logits(params, level, state, node, past_leaves)
            score.append(jnp.where(on_the_way, jnp.exp(chosen(jax.nn.log_softmax(masked), choice)), 1))
            child.append(jnp.where(on_the_way, next_node(tables, level, node, choice), -1))
            below.append(jnp.where(on_the_way, chosen(left, choice), 0))
        shape = (*items.shape, self.network.depth)
        return Path(*(jnp.stack(levels, -1).reshape(shape) for levels in (score, child, below)))

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
        chex.assert_equal_shape([trajectory.item, trajectory.reward])
        tables = params.tables
        episodes = trajectory.item, trajectory.reward, trajectory.status
        state = self._apply(lambda network, *episodes: network.encoder(*episodes), params, *episodes)
        leaf = tables.item_leaf[trajectory.item]
        past_leaves = env.recommended_before(leaf, steps)
        if steps is not None:
            state, leaf = state[steps], leaf[steps]
        samples, batch_size = leaf.size, leaf.shape[1]
        state, leaf = state.reshape(samples, -1), leaf.reshape(samples)
        past_leaves = past_leaves.reshape(samples, past_leaves.shape[-1])

        # log pi is the sum over the path's nodes.
        total = jnp.zeros((samples,))
        levels = []
        for level in range(self.network.depth):
            node, choice = step_to_leaf(tables, level, leaf)
            masked, _ = self._masked_logits(params, level, state, node, past_leaves)
            log_probs = jax.nn.log_softmax(masked)
            total += chosen(log_probs, choice)
            levels.append(log_probs)
        return total.reshape(-1, batch_size), levels

    def _encode(self, params: PolicyParams, cell: jax.Array, observation: Observation) -> tuple[jax.Array, jax.Array]:
        last = observation.last_item, observation.last_reward, observation.status
        return self._apply(lambda network, *last: network.encoder.step(*last), params, cell, *last)

    def _apply(self, method: Callable[..., Any], params: PolicyParams, *arguments: Any) -> Any:
        return self.network.apply({"params": params.network, **params.collections}, *arguments, method=method)

    def _masked_logits(
        self, params: PolicyParams, level: int, state: jax.Array, node: jax.Array, past_leaves: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns [S, C] logits of nodes [S], masked to what is available, and [S, C] how many items that is."""
        available = available_items(params.tables, level, node, past_leaves)
        return self._masked(params, level, state, node, available), available

    def _masked(
        self, params: PolicyParams, level: int, state: jax.Array, node: jax.Array, available: jax.Array
    ) -> jax.Array:
        """Returns [S, C] logits of nodes [S] where [S, C] items are available."""
        logits = self._apply(TreePolicyNetwork.logits, params, level, state, head_of(params.tables, level, node))
        if self.count_prior:
            logits = logits + jnp.log(jnp.maximum(available, 1).astype(jnp.float32))
        return jnp.where(available > 0, logits, MASKED_LOGIT)


def make_tree_policy(config: PolicyConfig, tree: ItemTree) -> TreePolicy:
    """Builds the policy for a tree of any shape.

    Args:
        config: Networks.
        tree: Its shape decides the networks' sizes; where its items are, the policy reads from its parameters.
    """
    encoder = make_encoder(config, tree.num_items)
    network = TreePolicyNetwork(encoder, tuple(config.hidden), tree.num_children, tree.level_nodes, config.head_shards)
    return TreePolicy(network, config.count_prior)

"""A tree policy whose heads estimate values: decides by a beam over the tree, reading a Kalman filter of the user.

The heads of the deepest internal nodes predict, for each item, the reward and the chance that it is positive; they are
linear in the user's factors and known in closed form (`tpgr_jax.models.value_rows`). The head of every other node
estimates the best value that each child's subtree still offers. A decision follows the b best nodes of each level down:
O(b d C) for C = I^(1/d) children, and no array over all items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from harness.compute.sharding import EPISODES, EVERYWHERE, per_device
from harness.settings import Count, Positive, SettingError
from sim.envs.fast_argmax import fast_argmax
from sim.envs.policy import Decision, Path, Policy, Ranking
from sim.envs.rating_env import CONSECUTIVE_POSITIVE, STATUS_SIZE, Observation
from tpgr_jax.agents.tree_ops import (
    MASKED_LOGIT,
    NO_LEAF,
    TreeTables,
    allowed_only,
    available_items,
    chosen,
    merge_best,
    next_node,
    no_ranking,
    past_leaves_of,
    sample_child,
    step_to_leaf,
)
from tpgr_jax.models.kalman import KalmanState
from tpgr_jax.models.user_response_model import (
    POSITIVE,
    REWARD,
    FittedResponses,
    UserResponseModel,
    UserResponseModelConfig,
    empty_response_model,
)
from tpgr_jax.models.value_rows import compressed, value_inputs, value_rows
from tpgr_jax.networks.node_heads import NodeHeads, node_logits
from tpgr_jax.tree.item_tree import ItemTree

_LARGEST_PERSISTENCE = 0.97  # beyond it, the worth of an unbroken streak would be infinite


@dataclass(frozen=True)
class ValueTreeConfig(UserResponseModelConfig):
    """The policy's parts (`conf/agent/tpgr_plus.yaml`)."""

    hidden: list[Count]
    value_rank: Count | None
    streak: bool
    beam: Count
    temperature: Positive

    def __post_init__(self) -> None:
        """Checks settings against each other; raises SettingError naming the keys."""
        if self.value_rank is not None and self.value_rank > 2 * (self.factors + 1):
            everything = 2 * (self.factors + 1)
            raise SettingError(
                f".value_rank is {self.value_rank}, above the {everything} numbers that {self.factors} .factors give",
                do="Set it to null to keep them all, or give fewer.",
            )


class UserState(NamedTuple):
    """What the heads read of S users.

    Attributes:
        factors: [S, K] the filter's estimate of the user's factors.
        features: [S, F] input of the internal heads.
        streak_weight: [S] what a positive answer is worth beyond its own reward, lambda >= 0.
        persistence_logit: [S] of the chance that a later answer is positive.
    """

    factors: jax.Array
    features: jax.Array
    streak_weight: jax.Array
    persistence_logit: jax.Array


class ValueTreeNetwork(nn.Module):
    """What is learned by descent: the heads of all but the deepest internal nodes, and how long streaks last.

    Attributes:
        hidden: Widths of the hidden layers.
        num_children: C.
        depth: D.
    """

    hidden: Sequence[int]
    num_children: int
    depth: int

    def setup(self) -> None:
        """Declares the layers."""
        self.persistence_layers = [nn.Dense(width) for width in self.hidden]
        self.persistence_output = nn.Dense(1, kernel_init=nn.initializers.zeros)
        self.heads = [
            NodeHeads(self.num_children**level, self.hidden, self.num_children) for level in range(self.depth - 1)
        ]

    def persistence(self, estimate: jax.Array) -> jax.Array:
        """Returns [S] logits of the chance that a later answer is positive, from [S, E] estimates."""
        for layer in self.persistence_layers:
            estimate = nn.relu(layer(estimate))
        return self.persistence_output(estimate)[:, 0]

    def values(self, level: int, features: jax.Array, node: jax.Array) -> jax.Array:
        """Returns [S, C] estimated values of the children of nodes [S] of a level."""
        return self.heads[level](features, node)

    def __call__(self, estimate: jax.Array, features: jax.Array) -> Any:
        """Touches every parameter (for initialisation)."""
        node = jnp.zeros(features.shape[:1], jnp.int32)
        return self.persistence(estimate), [self.values(level, features, node) for level in range(self.depth - 1)]


@flax.struct.dataclass
class Learned:
    """Everything that a run finds out.

    Attributes:
        network: Parameters of the `ValueTreeNetwork`, learned by gradient descent.
        answers: The filter, fitted.
        leaf_kernel: [C^(D-1), R, C] float32 of the deepest internal nodes, fitted: for each of their C items what a
            user's R numbers say about its value. Without `mixing` these are the R = 2 (K + 1) of `value_inputs`.
        mixing: [2 (K + 1), R] float32, makes R = `value_rank` numbers of those; None if all are kept.
    """

    network: Any
    answers: UserResponseModel
    leaf_kernel: jax.Array
    mixing: jax.Array | None = None


@flax.struct.dataclass
class ValueTreeParams:
    """What the policy reads: `learned`, and the tree."""

    learned: Learned
    tables: TreeTables


@dataclass(frozen=True)
class ValueTree:
    """The policy as pure functions of `ValueTreeParams`.

    Attributes:
        network: The Linen module.
        num_items: I.
        config: Settings.
        episode_length: T.
        alpha: Weight of the sequential reward (Eq. 6).
    """

    network: ValueTreeNetwork
    num_items: int
    config: ValueTreeConfig
    episode_length: int
    alpha: float

    def init(self, key: jax.Array) -> Learned:
        """Draws initial network parameters; the fitted parts are zeros (see `with_fitted`)."""
        children, factors = self.network.num_children, self.config.factors
        estimate_size = factors + 1 + STATUS_SIZE
        network = self.network.init(key, jnp.zeros((1, estimate_size)), jnp.zeros((1, estimate_size + 1 + children)))
        rank, inputs = self.config.value_rank, 2 * (factors + 1)
        kernel = jnp.zeros((children ** (self.network.depth - 1), rank or inputs, children))
        mixing = None if rank is None else jnp.zeros((inputs, rank))
        return Learned(network["params"], empty_response_model(self.num_items, self.config), kernel, mixing)

    def with_fitted(self, learned: Learned, fitted: FittedResponses, leaf_items: np.ndarray) -> Learned:
        """Puts a fitted model into the filter and the deepest heads, and the best mean rewards into the other heads.

        Args:
            learned: Parameters.
            leaf_items: [C^D] item of each leaf slot, -1 = empty.
        """
        # The deepest heads: each item's row of its value.
        item, empty = np.maximum(leaf_items, 0), leaf_items < 0
        rows, mixing = value_rows(fitted), None
        if self.config.value_rank is not None:
            # Decisions are among the items that people like: an error matters there.
            mixing, rows = compressed(rows, self.config.value_rank, np.maximum(fitted.mean[:, REWARD], 0))
        kernel = np.where(empty, 0, rows.T[:, item]).reshape(rows.shape[1], -1, self.network.num_children)

        # The other heads begin with the best mean reward below each child.
        best = np.where(empty, -1, fitted.mean[item, REWARD])
        network, last = learned.network, f"bias_{len(self.network.hidden)}"
        for level in range(self.network.depth - 1):
            head = network[f"heads_{level}"]
            below = best.reshape(*head[last].shape, -1).max(-1)
            network = {**network, f"heads_{level}": {**head, last: jnp.asarray(below, jnp.float32)}}

        # Persistence begins with the share of positive answers that the most liked items get.
        listed = np.clip(-np.sort(-fitted.mean[:, POSITIVE])[: self.episode_length].mean(), 0.01, 0.99)
        start = np.log(listed / (1 - listed))
        output = network["persistence_output"]
        network = {**network, "persistence_output": {**output, "bias": output["bias"].at[0].set(start)}}
        leaf_kernel = jnp.asarray(kernel.swapaxes(0, 1), jnp.float32)
        return Learned(network, fitted.model, leaf_kernel, None if mixing is None else jnp.asarray(mixing, jnp.float32))

    def as_policy(self) -> Policy:
        """Returns the functions that the rollout needs; the carry is the filter's `KalmanState`."""
        return Policy(
            lambda params, batch_size: params.learned.answers.initial(batch_size),
            self._act,
            self._rank,
            self._path,
            "expected reward of the answer, weighed with the chance of a positive one where streaks pay (alpha > 0)",
            "the child's value: the best that its items still offer",
        )

    def _act(
        self, params: ValueTreeParams, posterior: KalmanState, observation: Observation, key: jax.Array, explore: bool
    ) -> tuple[KalmanState, Decision]:
        posterior, state = self._observe(params, posterior, observation)
        past_leaves = past_leaves_of(params.tables, observation.recommended)
        node = self.follow_beam(params, state, past_leaves)
        value = self.item_values(params, state, node, past_leaves).reshape(node.shape[0], -1)
        if explore:
            logits = value / self.config.temperature
            choice = sample_child(logits, jax.random.uniform(key, logits.shape[:1]))
            log_prob = chosen(jax.nn.log_softmax(logits), choice)
        else:
            choice = fast_argmax(value)
            log_prob = jnp.zeros(choice.shape)
        children = self.network.num_children
        leaf = chosen(node, choice // children) * children + choice % children
        return posterior, Decision(params.tables.leaf_items[leaf], log_prob)

    def _rank(
        self, params: ValueTreeParams, posterior: KalmanState, observation: Observation, k: int, available: jax.Array
    ) -> Ranking:
        """The greedy decision, then the k - 1 most valuable other items below a beam of at least k nodes.

        Scores are values (see `item_values`). Every node that is not masked leads to an item: k nodes have k items. A
        wider beam may find better items than the greedy decision, so the first score may be below the second.
        """
        _, state = self._observe(params, posterior, observation)
        past_leaves = self._episode_leaves(params, observation)
        allowed = allowed_only(params.tables, available, observation.recommended)

        def below_beam(width: int) -> tuple[jax.Array, jax.Array]:
            """Items [B, width * C] and their values, -inf where an item is not allowed."""
            node = self.follow_beam(params, state, past_leaves, width, allowed)
            leaf = node[:, :, None] * self.network.num_children + jnp.arange(self.network.num_children)
            value = _mask_children(self.item_values(params, state, node, past_leaves), *allowed, node)
            value = jnp.where(value > MASKED_LOGIT / 2, value, -jnp.inf)
            return params.tables.leaf_items[leaf].reshape(node.shape[0], -1), value.reshape(node.shape[0], -1)

        # The configured beam decides for the first, a wider one orders the others.
        first = merge_best(no_ranking(past_leaves.shape[0], 1), *below_beam(self.config.beam))
        if k == 1:
            return first
        items, value = below_beam(max(k, self.config.beam))
        others = merge_best(no_ranking(len(items), k - 1), items, jnp.where(items == first.items, -jnp.inf, value))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), first, others)

    def _path(
        self,
        params: ValueTreeParams,
        posterior: KalmanState,
        observation: Observation,
        items: jax.Array,
        available: jax.Array,
    ) -> Path:
        """Scores are values, of the last level those of the items; see `Policy.path`."""
        _, state = self._observe(params, posterior, observation)
        past_leaves = self._episode_leaves(params, observation)
        tables, gone = allowed_only(params.tables, available, observation.recommended)
        leaf = tables.item_leaf[jnp.maximum(items, 0)]
        score, child, below = [], [], []
        for level in range(self.network.depth):
            node, choice = step_to_leaf(tables, level, leaf)
            if level < self.network.depth - 1:
                value = self.child_values(params, level, state, node, past_leaves)
            else:  # items of the same node: one at a time, since a node may stand only once in `item_values`
                each = [self.item_values(params, state, node[:, i : i + 1], past_leaves) for i in range(node.shape[1])]
                value = jnp.concatenate(each, 1)
            left = available_items(tables, level, node.reshape(-1), for_each(gone, node)).reshape(value.shape)
            score.append(jnp.take_along_axis(value, choice[..., None], -1)[..., 0])
            child.append(next_node(tables, level, node, choice))
            below.append(jnp.take_along_axis(left, choice[..., None], -1)[..., 0])
        exists = (items >= 0)[..., None]
        return Path(
            jnp.where(exists, jnp.stack(score, -1), -jnp.inf),
            jnp.where(exists, jnp.stack(child, -1), -1),
            jnp.where(exists, jnp.stack(below, -1), 0),
        )

    def _episode_leaves(self, params: ValueTreeParams, observation: Observation) -> jax.Array:
        """Returns [S, T] the leaves of the episode's own items: heads know no others that a caller excludes."""
        return past_leaves_of(params.tables, observation.recommended[:, : self.episode_length])

    def _observe(
        self, params: ValueTreeParams, posterior: KalmanState, observation: Observation
    ) -> tuple[KalmanState, UserState]:
        """Tells the filter the last answer; returns it and what the heads read."""
        posterior = params.learned.answers.after_last(posterior, observation)
        return posterior, self.user_state(params.learned, *filter_estimate(posterior), observation.status)

    def user_state(self, learned: Learned, mean: jax.Array, spread: jax.Array, status: jax.Array) -> UserState:
        """Puts together what the heads read.

        Args:
            learned: Parameters.
            mean: [S, K] of the filter.
            spread: [S] mean variance of the factors.
            status: [S, 9] user status.
        """
        chex.assert_rank([mean, spread, status], [2, 1, 2])
        estimate = jnp.concatenate([mean, spread[:, None], status], -1)
        logit = self._apply(ValueTreeNetwork.persistence, learned, estimate)
        weight = self._streak_weight(logit, status)
        features = jnp.concatenate([estimate, (weight / (1 + weight))[:, None]], -1)
        return UserState(mean, features, weight, logit)

    def _streak_weight(self, persistence_logit: jax.Array, status: jax.Array) -> jax.Array:
        """Returns [S] lambda: what a positive answer adds to the sequential rewards (Eq. 6) of the steps after it.

        A positive answer after c of them makes the streak c + 1 long; any other ends it. If each later answer is
        positive with chance p, the streak earns alpha (c + 1) more than a new one at each of the h steps left that it
        lives to see: alpha (c + 1) (1 - p^h) / (1 - p).
        """
        if not self.config.streak or self.alpha == 0:
            return jnp.zeros(status.shape[:1])
        persistence = jnp.minimum(jax.nn.sigmoid(jax.lax.stop_gradient(persistence_logit)), _LARGEST_PERSISTENCE)
        steps_left = self.episode_length * (1 - status[:, 3]) - 1
        length = self.episode_length * status[:, CONSECUTIVE_POSITIVE] + 1
        return self.alpha * length * (1 - persistence**steps_left) / (1 - persistence)

    def follow_beam(
        self,
        params: ValueTreeParams,
        state: UserState,
        past_leaves: jax.Array,
        width: int | None = None,
        allowed: tuple[TreeTables, jax.Array] | None = None,
    ) -> jax.Array:
        """Returns [S, b] int32 the deepest internal nodes that the beam reaches, the most valuable first.

        Args:
            params: Parameters.
            past_leaves: [S, T] leaves recommended so far.
            width: Of the beam, b where the levels are wide enough; None for the configured one.
            allowed: A caller's mask of items, see `allowed_only`; None for all.
        """
        chex.assert_rank(past_leaves, 2)
        node = jnp.zeros((past_leaves.shape[0], 1), jnp.int32)
        for level in range(self.network.depth - 1):
            value = self.child_values(params, level, state, node, past_leaves)
            value = value if allowed is None else _mask_children(value, *allowed, node, level)
            value = value.reshape(len(value), -1)
            number = min(width or self.config.beam, value.shape[1])
            best = _best(value, number) if width is None else jax.lax.top_k(value, number)[1]
            child = best % self.network.num_children
            node = jnp.take_along_axis(node, best // self.network.num_children, 1) * self.network.num_children + child
        return node

    def child_values(
        self, params: ValueTreeParams, level: int, state: UserState, node: jax.Array, past_leaves: jax.Array
    ) -> jax.Array:
        """Returns [S, P, C] values of the children of nodes [S, P] of a level, masked where nothing is available."""
        available, flat = self._available(params.tables, level, node, past_leaves), node.reshape(-1)
        used = (params.tables.sizes[level][flat] - available).astype(jnp.float32)
        features = jnp.concatenate([for_each(state.features, node), used / self.episode_length], -1)
        value = self._apply(ValueTreeNetwork.values, params.learned, level, features, flat)
        return jnp.where(available > 0, value, MASKED_LOGIT).reshape(*node.shape, -1)

    def item_values(
        self, params: ValueTreeParams, state: UserState, node: jax.Array, past_leaves: jax.Array
    ) -> jax.Array:
        """Returns [S, P, C] values of the items below deepest internal nodes [S, P], masked where not available.

        The value of an item with predicted reward r and chance p of a positive one is (r + lambda p) / (1 + lambda).
        Dividing changes no decision and keeps what the other heads have to estimate within [-1, 1].

        Args:
            params: Parameters.
            node: Nodes, none of them twice for a user: a recommended item is looked for once.
            past_leaves: [S, T] leaf slots that may not be taken again.
        """
        chex.assert_rank([node, past_leaves], 2)
        chex.assert_equal_shape_prefix([state.factors, node, past_leaves], 1)
        rows = value_inputs(state.factors, state.streak_weight / (1 + state.streak_weight))
        kernel, mixing = params.learned.leaf_kernel, params.learned.mixing
        rows = rows if mixing is None else rows @ mixing
        empty = jnp.where(params.tables.sizes[-1] > 0, 0.0, MASKED_LOGIT)

        def values(head: tuple[jax.Array, jax.Array], rows: jax.Array, node: jax.Array, past: jax.Array) -> jax.Array:
            return _mask_items(node_logits([head], rows, node), node, past)

        episodes = PartitionSpec(EPISODES)
        on_devices = per_device(values, (EVERYWHERE, episodes, episodes, episodes), episodes, rows.shape[0])
        return on_devices((kernel, empty), rows, node, past_leaves)

    def _available(self, tables: TreeTables, level: int, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
        return available_items(tables, level, node.reshape(-1), for_each(past_leaves, node))

    def _apply(self, method: Callable[..., Any], learned: Learned, *arguments: Any) -> Any:
        return self.network.apply({"params": learned.network}, *arguments, method=method)


def filter_estimate(posterior: KalmanState) -> tuple[jax.Array, jax.Array]:
    """Returns the filter's [S, K] mean and [S] mean variance."""
    samples, size = posterior.mean.shape
    diagonal = posterior.covariance.reshape(samples, -1)[:, :: size + 1]
    return posterior.mean, jnp.sum(diagonal, 1) / size


def for_each(rows: jax.Array, node: jax.Array) -> jax.Array:
    """Returns [S * P, ...]: each of [S, ...] rows once for every one of its nodes [S, P]."""
    return jnp.repeat(rows, node.shape[1], axis=0, total_repeat_length=node.size)


def _mask_children(
    value: jax.Array, tables: TreeTables, past_leaves: jax.Array, node: jax.Array, level: int = -1
) -> jax.Array:
    """Masks children of nodes [S, P] in their values [S, P, C] where the tables have nothing available."""
    level %= tables.depth
    available = available_items(tables, level, node.reshape(-1), for_each(past_leaves, node))
    return jnp.where(available.reshape(value.shape) > 0, value, MASKED_LOGIT)


def _mask_items(values: jax.Array, node: jax.Array, past_leaves: jax.Array) -> jax.Array:
    """Masks past leaves [S, T] in the values [S, P, C] of the items below nodes [S, P] that differ."""
    samples, paths, children = values.shape
    below = node[:, :, None] == jnp.where(past_leaves >= 0, past_leaves // children, NO_LEAF)[:, None]
    path = jnp.sum(jnp.where(below, jnp.arange(paths)[:, None] - paths, 0), 1) + paths  # there is at most one
    index = path * children + past_leaves % children
    flat, rows = values.reshape(samples, -1), jnp.arange(samples)[:, None]
    return flat.at[rows, index].set(MASKED_LOGIT, mode="drop").reshape(values.shape)


def _best(values: jax.Array, number: int) -> jax.Array:
    """Returns [S, number] int32 indices of the largest of values [S, n], the largest first.

    A few passes are faster on CPU than a sort.
    """
    indices = []
    for _ in range(number):
        indices.append(fast_argmax(values))
        values = jnp.where(jnp.arange(values.shape[1]) == indices[-1][:, None], 2 * MASKED_LOGIT, values)
    return jnp.stack(indices, 1)


def make_value_tree(config: ValueTreeConfig, tree: ItemTree, episode_length: int, alpha: float) -> ValueTree:
    """Builds the policy for a regular tree.

    Args:
        tree: Its shape decides the networks' sizes; where its items are, the policy reads from its parameters.
        episode_length: T.
        alpha: Weight of the sequential reward.
    """
    network = ValueTreeNetwork(tuple(config.hidden), tree.num_children, tree.depth)
    return ValueTree(network, tree.num_items, config, episode_length, alpha)

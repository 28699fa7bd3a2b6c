"""The tree policy on trees of any shape, and its ranking, against a walk over `children` in NumPy."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from intermediate_shapes import intermediate_shapes

from hand_made import hand_made_tree
from harness.compute.devices import DevicesConfig, device_mesh
from sim.envs.policy import Decision, Policy, Ranking
from sim.envs.rating_env import Observation, RatingEnv, Trajectory
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.tree_policy import PolicyConfig, PolicyParams, TreePolicy, make_tree_policy
from tpgr_jax.networks.encoder import Encoder
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import ItemTree, tree_from_children

BATCH, LENGTH = 6, 5
CONFIG = PolicyConfig(
    embedding_size=3,
    state_hidden=4,
    embedding="random",
    embedding_epochs=1,
    train_embedding=True,
    status_in_rnn=True,
    hidden=[4],
    count_prior=True,
    encoder_pretrain_steps=0,
)


def deep_tree() -> ItemTree:
    """Thirty items down to level 5: node i of a chain has the next one and up to four leaves, and one has a bush."""
    children = [[1, 6, 7, 8, -1], [2, 9, -1, -1, -1], [3, 4, 10, 11, 12], [5, 13, 14, 15, 16]]
    children += [[17, 18, 19, 20, 21], [22, 23, 24, 25, 26]]
    return tree_from_children(np.array(children), np.random.default_rng(1).permutation(21))


TREES = {
    "flat": lambda: build_tree(6, 1, make_clustering("random", None, 0)),
    "regular with short paths": lambda: build_tree(7, 3, make_clustering("random", None, 1)),
    "regular with missing children": lambda: build_tree(10, 2, make_clustering("random", None, 1)),
    "several nodes at a time": lambda: build_tree(50, 2, make_clustering("random", None, 1)),
    "irregular": hand_made_tree,
    "deep": deep_tree,
    "one item": lambda: build_tree(1, 2, make_clustering("random", None, 0)),
}


class Case(NamedTuple):
    """A policy with drawn parameters, and episodes that have come to different steps."""

    tree: ItemTree
    policy: TreePolicy
    params: PolicyParams
    cell: jax.Array
    observation: Observation
    state: np.ndarray

    @property
    def as_policy(self) -> Policy:
        """Its functions."""
        return self.policy.as_policy()


@functools.cache
def make_case(name: str) -> Case:
    tree = TREES[name]()
    policy = make_tree_policy(CONFIG, tree)
    generator = np.random.default_rng(2)
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    network = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.8, leaf.shape), jnp.float32), shapes)
    params = PolicyParams(network, make_tree_tables(tree))
    recommended = np.full((BATCH, LENGTH), -1, np.int32)
    step = np.minimum(np.arange(BATCH), [min(LENGTH, tree.num_items) - 1]).astype(np.int32)
    for episode, count in enumerate(step):
        recommended[episode, :count] = generator.permutation(tree.num_items)[:count]
    status = generator.random((BATCH, 9)).astype(np.float32)
    last_item = np.where(step > 0, recommended[np.arange(BATCH), step - 1], -1)
    reward = generator.uniform(-1, 1, BATCH).astype(np.float32)
    observation = Observation(*map(jnp.asarray, (step, recommended, last_item, reward, reward, status)))
    cell = jnp.asarray(generator.normal(size=(BATCH, 4)), jnp.float32)
    arguments = cell, observation.last_item, observation.last_reward, observation.status
    state = policy.network.encoder.apply({"params": network["encoder"]}, *arguments, method=Encoder.step)[1]
    return Case(tree, policy, params, cell, observation, np.asarray(state, np.float64))


@pytest.fixture(params=list(TREES))
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


def head_log_probs(case: Case, level: int, node: int, state: np.ndarray, counts: list[int]) -> np.ndarray:
    """Masked log-probabilities of a node's children with so many items left below each."""
    heads, values = case.params.network[f"heads_{level}"], state
    index = node - sum(case.tree.level_nodes[:level])
    for layer in range(len(heads) // 2):
        values = values if layer == 0 else np.maximum(values, 0)
        kernel, bias = (np.asarray(heads[f"{kind}_{layer}"], np.float64)[index] for kind in ("kernel", "bias"))
        values = values @ kernel + bias
    values = values + np.log(np.maximum(counts, 1)) if case.policy.count_prior else values
    values = np.where(np.array(counts) > 0, values, -np.inf)
    with np.errstate(divide="ignore"):
        return values - np.log(np.sum(np.exp(values - values.max()))) - values.max()


def walk(case: Case, state: np.ndarray, left: np.ndarray) -> tuple[dict[int, float], int]:
    """Log-probability of every item left, and the item that the greedy walk comes to (-1: none)."""
    tree = case.tree

    def count(node: int) -> int:
        if node >= tree.num_internal:
            return int(left[tree.leaf_items[node - tree.num_internal]])
        return sum(count(child) for child in tree.children[node] if child >= 0)

    def descend(node: int, level: int, log_prob: float) -> tuple[dict[int, float], int]:
        if node >= tree.num_internal:
            item = int(tree.leaf_items[node - tree.num_internal])
            return {item: log_prob}, item
        counts = [count(child) if child >= 0 else 0 for child in tree.children[node]]
        log_probs = head_log_probs(case, level, node, state, counts)
        below = {
            k: descend(tree.children[node, k], level + 1, log_prob + log_probs[k])
            for k in range(len(counts))
            if counts[k]
        }
        items = {item: value for found, _ in below.values() for item, value in found.items()}
        return items, below[int(np.argmax(log_probs))][1]

    return descend(0, 0, 0.0) if left.any() else ({}, -1)


def items_left(case: Case, available: np.ndarray) -> np.ndarray:
    """[B, I] what may be recommended."""
    left = np.broadcast_to(available, (BATCH, case.tree.num_items)).copy()
    for episode, items in enumerate(np.asarray(case.observation.recommended)):
        left[episode, items[items >= 0]] = False
    return left


def make_mask(kind: str, items: int) -> np.ndarray:
    generator = np.random.default_rng(7)
    return {
        "all": np.ones(items, bool),
        "of all episodes": generator.random(items) < 0.6,
        "of each": generator.random((BATCH, items)) < 0.6,
        "two items": np.isin(np.arange(items), [1, 4]),
        "none": np.zeros(items, bool),
    }[kind]


@functools.cache
def compiled_rank(policy: TreePolicy) -> Any:
    return jax.jit(lambda *arguments: policy.as_policy().rank(*arguments), static_argnums=3)  # type: ignore[misc]


@functools.cache
def compiled_act(policy: TreePolicy) -> Any:
    return jax.jit(lambda *arguments: policy.as_policy().act(*arguments)[1], static_argnums=4)


def decide(case: Case, key: int, explore: bool) -> Decision:
    return compiled_act(case.policy)(case.params, case.cell, case.observation, jax.random.key(key), explore)


def rank(case: Case, k: int, available: np.ndarray) -> Ranking:
    arguments = case.params, case.cell, case.observation, k, jnp.asarray(available)
    return jax.device_get(compiled_rank(case.policy)(*arguments))


def test_log_probs_of_all_items_are_those_of_the_walk_and_sum_to_one(case: Case) -> None:
    """Each item as the last one of an episode; the policy's parallel computation, in which nothing is looked for."""
    items, tree = case.tree.num_items, case.tree
    before = np.random.default_rng(5).permutation(items)[: min(2, items - 1)]
    left = np.setdiff1d(np.arange(items), before)
    item = np.concatenate([np.repeat(before[:, None], len(left), 1), left[None]]).astype(np.int32)
    zeros = jnp.zeros(item.shape)
    trajectory = Trajectory(
        item=jnp.asarray(item),
        reward=zeros,
        hit=zeros,
        repeated=zeros,
        log_prob=zeros,
        status=jnp.zeros((*item.shape, 9)),
    )
    env = RatingEnv(items, len(item))
    log_prob, levels = jax.jit(case.policy.path_log_probs, static_argnums=1)(case.params, env, trajectory)
    encoder = {"params": case.params.network["encoder"]}
    state = case.policy.network.encoder.apply(encoder, trajectory.item, zeros, trajectory.status)
    assert np.exp(np.asarray(log_prob[-1], np.float64)).sum() == pytest.approx(1, abs=1e-5)
    expected, _ = walk(case, np.asarray(state[-1, 0], np.float64), np.isin(np.arange(items), left))
    chex.assert_trees_all_close(np.asarray(log_prob[-1]), np.array([expected[i] for i in left.tolist()]), atol=1e-4)
    for level, log_probs in enumerate(levels):  # a leaf that was reached has one child, itself
        reached = (tree.item_nodes[item, level] >= tree.num_internal).ravel()
        assert np.all(np.asarray(log_probs)[reached, 0] == 0)


def test_the_greedy_walk_and_samples_have_the_log_probs_of_the_walk(case: Case) -> None:
    left = items_left(case, np.ones(case.tree.num_items, bool))
    greedy, samples = decide(case, 0, False), [decide(case, n, True) for n in range(8)]
    for episode in range(BATCH):
        expected, item = walk(case, case.state[episode], left[episode])
        assert int(greedy.action[episode]) == item
        for decision in (greedy, *samples):
            assert float(decision.log_prob[episode]) == pytest.approx(expected[int(decision.action[episode])], abs=1e-4)


@pytest.mark.parametrize("mask", ["all", "of all episodes", "of each", "two items", "none"])
def test_rank_is_the_order_of_all_items(case: Case, mask: str) -> None:
    available = make_mask(mask, case.tree.num_items)
    left = items_left(case, available)
    most = case.tree.num_items + 4
    for k in (2, most) if available.ndim == 1 else (most,):
        ranking = rank(case, k, available)
        chex.assert_shape([ranking.items, ranking.scores], (BATCH, k))
        for episode in range(BATCH):
            expected, greedy = walk(case, case.state[episode], left[episode])
            number = min(k, len(expected))
            others = sorted((value for item, value in expected.items() if item != greedy), reverse=True)
            order = [expected[greedy], *others][:number] if expected else []
            items = ranking.items[episode].tolist()
            assert items[number:] == [-1] * (k - number)
            assert np.all(ranking.scores[episode, number:] == -np.inf)
            assert items[:1] == [greedy]
            assert len(set(items[:number])) == number
            chex.assert_trees_all_close(ranking.scores[episode, :number], np.array(order), atol=1e-4)
            named = np.array([expected[item] for item in items[:number]])
            chex.assert_trees_all_close(ranking.scores[episode, :number], named, atol=1e-4)


def test_rank_begins_with_what_act_decides(case: Case) -> None:
    available = np.ones(case.tree.num_items, bool)
    decision = decide(case, 0, False)
    for k in (1, 2):
        ranking = rank(case, k, available)
        np.testing.assert_array_equal(ranking.items[:, 0], decision.action)
        chex.assert_trees_all_close(ranking.scores[:, 0], np.asarray(decision.log_prob), atol=1e-5)


@pytest.mark.long
def test_rank_with_and_without_jit() -> None:
    case = make_case("irregular")
    available = make_mask("of all episodes", case.tree.num_items)
    with jax.disable_jit():
        eager = jax.device_get(case.as_policy.rank(case.params, case.cell, case.observation, 2, available))  # type: ignore[misc]
    chex.assert_trees_all_close(eager, rank(case, 2, available), atol=1e-5)


def test_one_mask_for_all_is_that_mask_for_each(case: Case) -> None:
    available = make_mask("of all episodes", case.tree.num_items)
    each = np.broadcast_to(available, (BATCH, case.tree.num_items))
    k = case.tree.num_items + 4
    chex.assert_trees_all_close(rank(case, k, available), rank(case, k, each), atol=1e-6)


def test_the_best_leaf_need_not_lie_below_the_best_nodes() -> None:
    """Two nodes of 0.35 with three leaves each, and one leaf of 0.3 right below the root, which is the likeliest."""
    tree = tree_from_children(np.array([[3, 1, 2], [4, 5, 6], [7, 8, 9]]), np.arange(7))
    policy = TreePolicy(make_tree_policy(CONFIG, tree).network, count_prior=False)
    network = jax.tree.map(jnp.zeros_like, jax.eval_shape(policy.init, jax.random.key(0)))
    network["heads_0"]["bias_1"] = jnp.log(jnp.array([[0.3, 0.35, 0.35]]))
    case = make_case("irregular")._replace(tree=tree, policy=policy)
    case = case._replace(params=PolicyParams(network, make_tree_tables(tree)))
    nothing = jnp.full((BATCH, LENGTH), -1)
    case = case._replace(observation=dataclasses.replace(case.observation, recommended=nothing))
    ranking = rank(case, 3, np.ones(7, bool))
    np.testing.assert_array_equal(ranking.items[:, :2], [[1, 0]] * BATCH)
    np.testing.assert_allclose(np.exp(ranking.scores), [[0.35 / 3, 0.3, 0.35 / 3]] * BATCH, rtol=1e-5)


@pytest.mark.parametrize("name", ["regular with short paths", "irregular"])
@pytest.mark.parametrize("mask", ["of all episodes", "of each"])
def test_rank_on_many_devices(name: str, mask: str) -> None:
    case = make_case(name)
    available = make_mask(mask, case.tree.num_items)
    expected = rank(case, 2, available)
    with device_mesh(DevicesConfig(count=2), BATCH, "episodes", 1):
        compiled = compiled_rank.__wrapped__(case.policy)  # anew, for these devices
        ranking = compiled(case.params, case.cell, case.observation, 2, jnp.asarray(available))
        chex.assert_trees_all_close(jax.device_get(ranking), expected, atol=1e-5)


@pytest.mark.parametrize("regular", [True, False])
def test_a_mask_of_items_makes_no_array_of_episodes_by_items(regular: bool) -> None:
    items, batch = 1_009, 13
    tree = build_tree(items, 2, make_clustering("random", None, 0))
    if not regular:
        tree = tree_from_children(tree.children[:, ::-1], tree.leaf_items)
    assert tree.regular == regular
    policy = make_tree_policy(CONFIG, tree)
    params = PolicyParams(jax.eval_shape(policy.init, jax.random.key(0)), make_tree_tables(tree))
    state = jnp.zeros(batch)
    observation = Observation(
        state, jnp.full((batch, LENGTH), -1), jnp.full(batch, -1), state, state, jnp.zeros((batch, 9))
    )
    function = functools.partial(policy.as_policy().rank, k=10)  # type: ignore[arg-type]
    jaxpr = jax.make_jaxpr(lambda *arguments: function(*arguments[:3], available=arguments[3]))(
        params, jnp.zeros((batch, 4)), observation, jnp.ones(items, bool)
    )
    sizes = [math.prod(shape) for shape in intermediate_shapes(jaxpr.jaxpr)]
    assert len(sizes) > 100
    assert items <= max(sizes) < batch * items


def test_networks_of_a_level_are_spread_over_devices_only_where_there_are_several() -> None:
    config = PolicyConfig(**{**vars(CONFIG), "head_shards": 2})
    policy = make_tree_policy(config, hand_made_tree())
    specs: Any = policy.partition(jax.eval_shape(policy.init, jax.random.key(0)))
    assert [bool(specs[f"heads_{level}"]["kernel_0"]) for level in range(3)] == [False, True, False]

"""The tree policy against an independent walk down the tree in NumPy."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from intermediate_shapes import intermediate_shapes

from hand_made import hand_made_ratings
from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.rating_env import EnvConfig, EnvParams, RatingEnv, Trajectory, make_env_params, make_rating_env
from sim.envs.rollout import rollout
from sim.tables.ratings import RatingData
from tpgr_jax.agents.reinforce import LearnerConfig, LearnerState, Reinforce, World
from tpgr_jax.agents.tree_ops import MASKED_LOGIT, make_tree_tables, sample_child
from tpgr_jax.agents.tree_policy import PolicyConfig, PolicyParams, TreePolicy, make_tree_policy
from tpgr_jax.networks.encoder import with_item_embedding
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import ItemTree

BATCH = 12


def policy_config(**changes: Any) -> PolicyConfig:
    settings: dict[str, Any] = {
        "hidden": [],
        "embedding_size": 3,
        "state_hidden": 4,
        "embedding": "random",
        "embedding_epochs": 1,
        "train_embedding": True,
        "status_in_rnn": True,
        "count_prior": True,
        "encoder_pretrain_steps": 0,
    }
    return read_settings(PolicyConfig, {**settings, **changes}, "agent.policy")


def env_config(**changes: Any) -> EnvConfig:
    settings: dict[str, Any] = {
        "alpha": 0.1,
        "episode_length": 4,
        "reward_scale": "half_open",
        "cold_start": "policy",
        "allow_repeats": False,
        "rating_layout": "dense",
        "dense_limit_mb": 1.0,
    }
    return EnvConfig(**{**settings, **changes})


def make_data(num_items: int, num_users: int = 4, seed: int = 0) -> RatingData:
    """Users who rate about half of the items; the last one rates all."""
    generator = np.random.default_rng(seed)
    rated = generator.random((num_users, num_items)) < 0.5
    rated[-1] = True
    users, items = np.nonzero(rated)
    return hand_made_ratings(users, items, generator.integers(1, 6, len(users)), 1, 5)


def randomised(params: Any, seed: int, scale: float = 0.8) -> Any:
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, scale, leaf.shape), jnp.float32), params)


def node_probabilities(
    tree: ItemTree, policy: TreePolicy, network: Any, state: np.ndarray, recommended: list[int], prefix: list[int]
) -> np.ndarray:
    """Probabilities of the children of the node that the path `prefix` leads to, from its own weights."""
    level, paths = len(prefix), tree.item_paths
    node = 0
    for child in prefix:
        node = node * tree.num_children + child
    below = np.all(paths[:, :level] == prefix, axis=1)
    below[recommended] = False
    available = np.bincount(paths[below, level], minlength=tree.num_children)
    values, heads = state, network[f"heads_{level}"]
    for layer in range(len(heads) // 2):
        values = values if layer == 0 else np.maximum(values, 0)
        kernel = np.asarray(heads[f"kernel_{layer}"], np.float64)[node]
        values = values @ kernel + np.asarray(heads[f"bias_{layer}"], np.float64)[node]
    if policy.count_prior:
        values = values + np.log(np.maximum(available, 1))
    weights = np.where(available > 0, np.exp(values - np.max(values[available > 0])), 0.0)
    return weights / weights.sum()


def item_probabilities(
    tree: ItemTree, policy: TreePolicy, network: Any, state: np.ndarray, recommended: list[int]
) -> np.ndarray:
    """Probability of every item: the product over its path of the probabilities at the nodes."""
    probabilities = np.zeros(tree.num_items)
    for item in range(tree.num_items):
        if item not in recommended:
            probabilities[item] = 1.0
            for level in range(tree.depth):
                path = list(tree.item_paths[item])
                at_node = node_probabilities(tree, policy, network, state, recommended, path[:level])
                probabilities[item] *= at_node[path[level]]
    return probabilities


@dataclass(frozen=True)
class Shape:
    """A catalogue, a tree over it, networks and an episode length."""

    items: int
    depth: int
    length: int
    hidden: tuple[int, ...]
    count_prior: bool
    status_in_rnn: bool = True


SHAPES = {
    "flat, whole catalogue": Shape(6, 1, 6, (), True),
    "full two levels": Shape(9, 2, 5, (5, 4), False),
    "padded three levels, whole catalogue": Shape(7, 3, 7, (4,), True),
    "missing children, whole catalogue": Shape(10, 2, 10, (), True, status_in_rnn=False),
    "one item": Shape(1, 2, 1, (), True),
}


class Case:
    """A policy with random parameters, and episodes of it."""

    def __init__(self, shape: Shape) -> None:
        """Samples BATCH episodes, plays as many greedily, and computes the log-probabilities of both again."""
        self.shape = shape
        data = make_data(shape.items)
        self.tree = build_tree(shape.items, shape.depth, make_clustering("random", None, 1))
        self.env: RatingEnv = make_rating_env(env_config(episode_length=shape.length), data)
        self.env_params: EnvParams = make_env_params(env_config(), data, np.arange(data.num_users), 3)
        config = policy_config(
            hidden=list(shape.hidden), count_prior=shape.count_prior, status_in_rnn=shape.status_in_rnn
        )
        self.policy = make_tree_policy(config, self.tree)
        self.tables = make_tree_tables(self.tree)
        self.untrained = jax.jit(self.policy.init)(jax.random.key(0))
        self.network = randomised(self.untrained, seed=2)
        self.users = jnp.arange(BATCH) % data.num_users
        self.rollout: Callable[..., Trajectory] = jax.jit(
            lambda network, users, key, explore: rollout(
                self.env,
                self.env_params,
                self.policy.as_policy(),
                PolicyParams(network, self.tables),
                users,
                key,
                explore,
            ),
            static_argnums=3,
        )
        self._replay = jax.jit(self._log_probs_and_states)
        self.sampled = self.rollout(self.network, self.users, jax.random.key(5), True)
        self.greedy = self.rollout(self.network, self.users, jax.random.key(6), False)

    def _log_probs_and_states(self, network: Any, trajectory: Trajectory) -> tuple[Any, jax.Array]:
        inputs = (trajectory.item, trajectory.reward, trajectory.status)
        states = self.policy.network.encoder.apply({"params": network["encoder"]}, *inputs)
        return self.policy.path_log_probs(PolicyParams(network, self.tables), self.env, trajectory), states

    def path_log_probs(self, network: Any, trajectory: Trajectory) -> tuple[np.ndarray, list[np.ndarray]]:
        """[T, B] log-probabilities of the items and, per level, those of the children."""
        return jax.device_get(self._replay(network, trajectory)[0])

    def states(self, network: Any, trajectory: Trajectory) -> np.ndarray:
        """[T, B, F] states of an episode."""
        return np.asarray(self._replay(network, trajectory)[1], np.float64)


@functools.cache
def make_case(name: str) -> Case:
    return Case(SHAPES[name])


@pytest.fixture(scope="module", params=list(SHAPES))
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="module")
def padded() -> Case:
    return make_case("padded three levels, whole catalogue")


def test_no_item_repeats_and_a_whole_catalogue_is_recommended_once(case: Case) -> None:
    for trajectory in (case.sampled, case.greedy):
        items = np.asarray(trajectory.item)
        assert items.min() >= 0
        assert items.max() < case.shape.items
        assert not np.any(trajectory.repeated)
        for episode in items.T:
            assert len(set(episode)) == case.shape.length
            if case.shape.length == case.shape.items:
                assert sorted(episode) == list(range(case.shape.items))


def test_log_probs_of_the_rollout_are_those_computed_in_parallel(case: Case) -> None:
    for trajectory in (case.sampled, case.greedy):
        log_prob, _ = case.path_log_probs(case.network, trajectory)
        np.testing.assert_allclose(log_prob, trajectory.log_prob, atol=1e-5)


def test_log_probs_are_the_product_over_the_path(case: Case) -> None:
    states, items = case.states(case.network, case.sampled), np.asarray(case.sampled.item)
    for episode in range(4):
        for t in range(case.shape.length):
            before = list(items[:t, episode])
            probabilities = item_probabilities(case.tree, case.policy, case.network, states[t, episode], before)
            expected = math.log(probabilities[items[t, episode]])
            assert float(case.sampled.log_prob[t, episode]) == pytest.approx(expected, abs=1e-4)


def test_every_node_has_a_distribution_over_its_available_children(case: Case) -> None:
    items = np.asarray(case.sampled.item)
    _, levels = case.path_log_probs(case.network, case.sampled)
    paths = case.tree.item_paths
    assert len(levels) == case.tree.depth
    for level, log_probs in enumerate(levels):
        probabilities = np.exp(np.asarray(log_probs)).reshape(*items.shape, case.tree.num_children)
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
        for episode in range(BATCH):
            for t in range(case.shape.length):
                below = np.all(paths[:, :level] == paths[items[t, episode], :level], axis=1)
                below[items[:t, episode]] = False
                available = np.bincount(paths[below, level], minlength=case.tree.num_children) > 0
                np.testing.assert_array_equal(probabilities[t, episode] > 0, available)


def test_probabilities_of_all_items_sum_to_one_whatever_was_recommended(case: Case) -> None:
    """BATCH episodes share their first t items and differ in the next one."""
    generator = np.random.default_rng(7)
    size, length = case.shape.items, case.shape.length
    for t in {0, length // 2, length - 1}:
        before = generator.choice(size, t, replace=False)
        left = np.setdiff1d(np.arange(size), before)
        items = np.zeros((length, BATCH), np.int32)
        items[:t] = before[:, None]
        items[t] = left[np.arange(BATCH) % len(left)]
        reward = np.repeat(generator.uniform(-1, 1, (length, 1)), BATCH, 1).astype(np.float32)
        status = np.repeat(generator.uniform(0, 1, (length, 1, 9)), BATCH, 1).astype(np.float32)
        trajectory = case.sampled.replace(item=jnp.asarray(items), reward=reward, status=status)  # type: ignore[attr-defined]
        log_prob, _ = case.path_log_probs(case.network, trajectory)
        probabilities = np.exp(np.asarray(log_prob)[t, : len(left)])
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        state = case.states(case.network, trajectory)[t, 0]
        expected = item_probabilities(case.tree, case.policy, case.network, state, list(before))
        assert expected.sum() == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(probabilities, expected[left], atol=1e-5)


def test_greedy_takes_the_most_likely_child_at_each_node(case: Case) -> None:
    states, items = case.states(case.network, case.greedy), np.asarray(case.greedy.item)
    for episode in range(4):
        for t in range(case.shape.length):
            path: list[int] = []
            for _ in range(case.tree.depth):
                before = list(items[:t, episode])
                at_node = node_probabilities(case.tree, case.policy, case.network, states[t, episode], before, path)
                path.append(int(np.argmax(at_node)))
            assert path == list(case.tree.item_paths[items[t, episode]])


def test_greedy_does_not_depend_on_the_key_and_sampling_does(padded: Case) -> None:
    again = padded.rollout(padded.network, padded.users, jax.random.key(99), False)
    np.testing.assert_array_equal(again.item, padded.greedy.item)
    other = padded.rollout(padded.network, padded.users, jax.random.key(99), True)
    assert np.any(np.asarray(other.item) != np.asarray(padded.sampled.item))
    same = padded.rollout(padded.network, padded.users, jax.random.key(5), True)
    np.testing.assert_array_equal(same.item, padded.sampled.item)


def test_untrained_policy_with_count_prior_is_uniform_over_the_items_left(case: Case) -> None:
    log_prob, _ = case.path_log_probs(case.untrained, case.sampled)
    left = case.shape.items - np.arange(case.shape.length)
    uniform = np.broadcast_to(-np.log(left)[:, None], log_prob.shape)
    if case.shape.count_prior:
        np.testing.assert_allclose(log_prob, uniform, atol=1e-5)
    else:
        assert np.max(np.abs(log_prob - uniform)) > 0.1


def test_untrained_policy_without_count_prior_is_uniform_over_the_children_left(padded: Case) -> None:
    policy = TreePolicy(padded.policy.network, count_prior=False)
    log_prob, _ = jax.jit(
        lambda trajectory: policy.path_log_probs(PolicyParams(padded.untrained, padded.tables), padded.env, trajectory)
    )(padded.sampled)
    items, paths = np.asarray(padded.sampled.item), padded.tree.item_paths
    expected = np.zeros(items.shape)
    for t, episode in np.ndindex(items.shape):
        for level in range(padded.tree.depth):
            below = np.all(paths[:, :level] == paths[items[t, episode], :level], axis=1)
            below[items[:t, episode]] = False
            expected[t, episode] -= math.log(len(set(paths[below, level])))
    np.testing.assert_allclose(log_prob, expected, atol=1e-5)
    assert np.max(np.abs(expected + np.log(7 - np.arange(7))[:, None])) > 0.1  # not uniform over items


def test_sampling_frequencies_match_the_probabilities(padded: Case) -> None:
    size = 6_000
    trajectory = padded.rollout(padded.network, jnp.zeros((size,), jnp.int32), jax.random.key(11), True)
    items = np.asarray(trajectory.item)
    first = item_probabilities(padded.tree, padded.policy, padded.network, np.zeros(4 + 9), [])
    counts = np.bincount(items[0], minlength=padded.shape.items)
    assert scipy.stats.chisquare(counts, size * first).pvalue > 1e-4
    # The second item, given the most frequent first one: all these episodes are in the same state.
    begun = int(np.argmax(counts))
    chosen = items[0] == begun
    few = np.flatnonzero(chosen)[:BATCH]
    episodes = jax.tree.map(lambda leaf: leaf[few] if leaf.ndim == 1 else leaf[:, few], trajectory)
    state = padded.states(padded.network, episodes)[1, 0]
    second = item_probabilities(padded.tree, padded.policy, padded.network, state, [begun])
    left = np.arange(padded.shape.items) != begun
    counts = np.bincount(items[1, chosen], minlength=padded.shape.items)
    assert counts[begun] == 0
    assert scipy.stats.chisquare(counts[left], chosen.sum() * second[left]).pvalue > 1e-4


SAMPLE = jax.jit(sample_child)
EXTREME_DRAWS = [0.0, 2.0**-24, 0.5, 1 - 2.0**-23, 1 - 2.0**-24]


@pytest.mark.parametrize("children", [1, 2, 7, 33, 150, 700])
def test_sample_never_returns_a_masked_child(children: int) -> None:
    generator = np.random.default_rng(children)
    for scale in (0.0, 1.0, 30.0):
        logits = generator.normal(0, scale, (2_000, children)).astype(np.float32)
        masked = generator.random(logits.shape) < generator.random((len(logits), 1))
        masked[np.arange(len(logits)), generator.integers(0, children, len(logits))] = False
        logits = np.where(masked, np.float32(MASKED_LOGIT), logits)
        for draw in EXTREME_DRAWS:
            choice = np.asarray(SAMPLE(logits, np.full(len(logits), draw, np.float32)))
            assert choice.min() >= 0
            assert choice.max() < children
            assert not np.any(masked[np.arange(len(logits)), choice]), (scale, draw)


def test_sample_at_the_ends_takes_the_first_and_the_last_available_child() -> None:
    logits = np.array([[MASKED_LOGIT, 0.3, MASKED_LOGIT, -1, MASKED_LOGIT, 0.2, MASKED_LOGIT]], np.float32)
    assert SAMPLE(logits, np.float32([0.0])).tolist() == [1]
    assert SAMPLE(logits, np.float32([1 - 2.0**-24])).tolist() == [5]


def test_sample_is_the_inverse_of_the_distribution_function() -> None:
    probabilities = np.array([0.1, 0.0, 0.4, 0.2, 0.0, 0.3])
    logits = np.where(probabilities > 0, np.log(np.maximum(probabilities, 1e-9)) + 3, MASKED_LOGIT)
    draws = (np.arange(1_000) + 0.5) / 1_000
    choice = SAMPLE(np.tile(logits.astype(np.float32), (1_000, 1)), draws.astype(np.float32))
    np.testing.assert_allclose(np.bincount(choice, minlength=6) / 1_000, probabilities, atol=1.5e-3)


@pytest.mark.parametrize("children", [5, 61, 700])
def test_sample_finds_what_a_search_in_the_distribution_function_finds(children: int) -> None:
    generator = np.random.default_rng(children)
    logits = generator.normal(0, 2, (5_000, children)).astype(np.float32)
    draws = generator.random(len(logits), np.float32)
    weights = np.exp(logits.astype(np.float64))
    cumulative = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
    expected = (cumulative <= draws[:, None]).sum(-1)
    choice = np.asarray(SAMPLE(logits, draws))
    # Rounding may move the few draws that fall onto an edge between two children.
    assert np.mean(choice != expected) < 2e-3
    np.testing.assert_allclose(choice, expected, atol=1)


def test_where_repeats_are_allowed_nothing_is_masked() -> None:
    tree = build_tree(3, 2, make_clustering("random", None, 0))
    policy = make_tree_policy(policy_config(), tree)
    data = make_data(3)
    env = make_rating_env(env_config(episode_length=8, allow_repeats=True), data)
    params = PolicyParams(randomised(jax.eval_shape(policy.init, jax.random.key(0)), 3), make_tree_tables(tree))

    @jax.jit
    def play(key: jax.Array) -> tuple[Trajectory, jax.Array]:
        env_params = make_env_params(env_config(), data, np.arange(4), 3)
        trajectory = rollout(env, env_params, policy.as_policy(), params, jnp.zeros((BATCH,), jnp.int32), key, True)
        return trajectory, policy.path_log_probs(params, env, trajectory)[0]

    trajectory, log_prob = play(jax.random.key(0))
    assert np.any(trajectory.repeated)
    np.testing.assert_allclose(log_prob, trajectory.log_prob, atol=1e-5)
    assert np.all(np.isfinite(log_prob))
    assert np.min(log_prob) > -50


def training_step(
    items: int, episodes: int, depth: int, layout: str = "dense", length: int = 4
) -> tuple[Callable[..., Any], LearnerState, World]:
    """A training step (rollout and update), the shapes of its state, and its tables."""
    config = env_config(episode_length=length, rating_layout=layout)
    data = make_data(items, num_users=3)
    tree = build_tree(items, depth, make_clustering("random", None, 0))
    policy = make_tree_policy(policy_config(hidden=[4]), tree)
    learner_config = LearnerConfig(
        discount=0.6,
        baseline="per_step",
        episodes_per_user=1,
        update="batch",
        learning_rate=0.01,
        clip_norm=10.0,
        entropy="shannon",
        entropy_weight=0.1,
        entropy_weight_end=0.1,
        entropy_steps=1,
        l2_weight=0.1,
    )
    learner = Reinforce(make_rating_env(config, data), policy, learner_config, episodes)
    world = World(make_env_params(config, data, np.arange(3), 3), make_tree_tables(tree))
    return learner.train_step, jax.eval_shape(learner.init, jax.random.key(0)), world


def largest_intermediates(items: int, episodes: int, depth: int, layout: str) -> Counter[int]:
    """Sizes of everything that one training step computes."""
    train_step, state, world = training_step(items, episodes, depth, layout)
    jaxpr = jax.make_jaxpr(train_step)(state, world)
    return Counter(math.prod(shape) for shape in intermediate_shapes(jaxpr.jaxpr))


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_no_array_of_episodes_by_items_is_ever_made(layout: str) -> None:
    items, episodes = 1_009, 13
    sizes = largest_intermediates(items, episodes, 2, layout)
    assert sum(sizes.values()) > 300  # loops and inner calls were looked into
    assert max(sizes) < episodes * items


def test_the_flat_policy_makes_such_an_array_so_the_search_can_find_it() -> None:
    assert max(largest_intermediates(1_009, 13, 1, "dense")) >= 13 * 1_009


@pytest.mark.long
def test_working_memory_grows_like_the_children_and_not_like_the_items() -> None:
    """16 times the items have 4 times the children per node; at the paper's episode length, as compiled."""

    def working_memory(items: int) -> int:
        train_step, state, world = training_step(items, 256, 2, "csr", 32)
        return jax.jit(train_step).lower(state, world).compile().memory_analysis().temp_size_in_bytes

    assert working_memory(40_000) < 6 * working_memory(2_500)


def test_with_item_embedding_replaces_only_the_table(padded: Case) -> None:
    table = np.random.default_rng(0).normal(size=(7, 3))
    before = np.asarray(padded.untrained["encoder"]["item_embedding"]).copy()
    changed = with_item_embedding(padded.untrained, table)
    np.testing.assert_array_equal(changed["encoder"]["item_embedding"], table.astype(np.float32))
    assert changed["encoder"]["item_embedding"].dtype == jnp.float32
    np.testing.assert_array_equal(padded.untrained["encoder"]["item_embedding"], before)
    for path, leaf in jax.tree_util.tree_leaves_with_path(padded.untrained):
        if "item_embedding" not in jax.tree_util.keystr(path):
            np.testing.assert_array_equal(leaf, dict(jax.tree_util.tree_leaves_with_path(changed))[path])
    assert jax.tree.structure(changed) == jax.tree.structure(padded.untrained)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden", [8, 0]),
        ("embedding_size", 0),
        ("state_hidden", 0),
        ("embedding_epochs", 0),
        ("embedding", "word2vec"),
        ("encoder_pretrain_steps", -1),
    ],
)
def test_wrong_policy_settings_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"agent\.policy\.{key}"):
        policy_config(**{key: value})

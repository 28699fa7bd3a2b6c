"""REINFORCE: returns, baselines and gradients against plain NumPy, and learning on a problem with a known optimum."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_ratings, hand_made_tree
from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.rating_env import EnvConfig, RatingEnv, Trajectory, make_env_params, make_rating_env
from sim.envs.rollout import rollout
from sim.tables.ratings import RatingData
from tpgr_jax.agents.reinforce import (
    LearnerConfig,
    LearnerState,
    Reinforce,
    World,
    advantages,
    discounted_returns,
    exploration_bonus,
)
from tpgr_jax.agents.tree_ops import MASKED_LOGIT, TreeTables, make_tree_tables
from tpgr_jax.agents.tree_policy import PolicyConfig, PolicyParams, TreePolicy, make_tree_policy
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering
from tpgr_jax.tree.item_tree import ItemTree

Params = dict[str, Any]


def learner_config(**changes: Any) -> LearnerConfig:
    settings: dict[str, Any] = {
        "discount": 0.6,
        "baseline": "none",
        "episodes_per_user": 1,
        "update": "batch",
        "learning_rate": 0.01,
        "clip_norm": 1e6,
        "entropy": "shannon",
        "entropy_weight": 0.0,
        "entropy_weight_end": 0.0,
        "entropy_steps": 10,
        "l2_weight": 0.0,
    }
    return read_settings(LearnerConfig, {**settings, **changes}, "agent.learner")


def policy_config(hidden: list[int] | None = None) -> PolicyConfig:
    return PolicyConfig(
        hidden=hidden or [],
        embedding_size=3,
        state_hidden=4,
        embedding="random",
        embedding_epochs=1,
        train_embedding=True,
        status_in_rnn=True,
        count_prior=True,
        encoder_pretrain_steps=0,
    )


def env_config(length: int) -> EnvConfig:
    return EnvConfig(
        alpha=0.1,
        episode_length=length,
        reward_scale="half_open",
        cold_start="policy",
        allow_repeats=False,
        rating_layout="dense",
        dense_limit_mb=1.0,
    )


def make_data(ratings: dict[tuple[int, int], int]) -> RatingData:
    return hand_made_ratings(
        np.array([user for user, _ in ratings]),
        np.array([item for _, item in ratings]),
        np.array(list(ratings.values())),
        1,
        5,
    )


# --- Returns, advantages and bonuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("discount", [0.0, 0.6, 1.0])
def test_discounted_returns_are_the_sums_of_algorithm_1(discount: float) -> None:
    reward = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = np.zeros((5, 3))
    for t in range(5):
        for i in range(t, 5):
            expected[t] += discount ** (i - t) * reward[i]
    np.testing.assert_allclose(discounted_returns(jnp.asarray(reward), discount), expected, atol=1e-5)


@pytest.mark.parametrize("baseline", ["per_user", "per_step", "none"])
def test_advantages_are_standardised_within_their_group(baseline: str) -> None:
    generator = np.random.default_rng(1)
    returns = (generator.normal(size=(4, 6)) * [1, 1, 5, 5, 1, 3] + [0, 0, 9, 9, -4, -4]).astype(np.float32)
    expected = returns.astype(np.float64).copy()
    if baseline == "per_user":  # three users with two consecutive episodes each
        for user in range(3):
            group = returns[:, 2 * user : 2 * user + 2].astype(np.float64)
            expected[:, 2 * user : 2 * user + 2] = (group - group.mean()) / group.std()
    elif baseline == "per_step":
        for t in range(4):
            expected[t] = (returns[t] - returns[t].mean()) / returns[t].std()
    np.testing.assert_allclose(advantages(jnp.asarray(returns), baseline, 2), expected, atol=1e-4)


@pytest.mark.parametrize("baseline", ["per_user", "per_step"])
def test_equal_returns_give_zero_advantages(baseline: str) -> None:
    np.testing.assert_array_equal(advantages(jnp.full((3, 4), 0.75), baseline, 2), 0)


def test_exploration_bonus_by_hand() -> None:
    log_probs = jnp.asarray(
        [
            np.log([0.25, 0.25, 0.25, 0.25]),
            [math.log(0.5), MASKED_LOGIT, math.log(0.25), math.log(0.25)],
            [0.0, MASKED_LOGIT, MASKED_LOGIT, MASKED_LOGIT],
        ],
        jnp.float32,
    )
    shannon = [math.log(4), 0.5 * math.log(2) + 0.5 * math.log(4), 0.0]
    np.testing.assert_allclose(exploration_bonus(log_probs, "shannon"), shannon, atol=1e-6)
    # -1/4 ((1/2 - 1/4)^2 + (0 - 1/4)^2) = -1/32; -1/4 ((3/4)^2 + 3 (1/4)^2) = -3/16
    np.testing.assert_allclose(exploration_bonus(log_probs, "distance_to_uniform"), [0, -1 / 32, -3 / 16], atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("baseline", "mean"),
        ("update", "online"),
        ("entropy", "renyi"),
        ("discount", 1.1),
        ("discount", -0.1),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("clip_norm", -1.0),
        ("entropy_weight", -0.1),
        ("entropy_weight_end", math.nan),
        ("entropy_steps", -1),
        ("l2_weight", -1e-3),
        ("episodes_per_user", 0),
    ],
)
def test_wrong_learner_settings_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"agent\.learner\.{key}"):
        learner_config(**{key: value})


# --- The gradient, by enumeration ------------------------------------------------------------------------------------


def walks(tree: ItemTree) -> tuple[np.ndarray, np.ndarray]:
    """[I, D] children taken and [I, D] nodes visited on the way to each item; 0, and the leaf, beyond its leaf."""
    paths, nodes = np.zeros((2, tree.num_items, tree.depth), int)

    def walk(node: int, path: list[int], visited: list[int]) -> None:
        if node >= tree.num_internal:
            item, missing = tree.leaf_items[node - tree.num_internal], tree.depth - len(path)
            paths[item], nodes[item] = path + [0] * missing, visited + [node] * missing
            return
        for k, child in enumerate(tree.children[node].tolist()):
            if child >= 0:
                walk(child, [*path, k], [*visited, node])

    walk(0, [], [])
    return paths, nodes


class Model:
    """The policy of the paper in float64 NumPy: all episodes of two steps over seven items, one user, alpha = 0.1."""

    items, length, alpha = 7, 2, 0.1
    ratings = (5, 1, 4, 0, 3, 2, 0)  # 0 = not rated

    def __init__(self, tree: ItemTree) -> None:
        """Enumerates the episodes, with Eq. 6 by hand."""
        self.tree, self.paths = tree, walks(tree)
        empirical = [2 * rating / 5 - 1 if rating else 0.0 for rating in self.ratings]
        self.item = np.array(list(itertools.permutations(range(self.items), 2))).T
        self.reward = np.zeros(self.item.shape)
        self.status = np.zeros((*self.item.shape, 9))
        for n, (first, second) in enumerate(self.item.T):
            r = empirical[first]
            self.reward[:, n] = r, empirical[second] + self.alpha * np.sign(r)
            negative, positive, zero = r < 0, r > 0, r == 0
            counts = [negative, positive, zero, 1, negative, positive, zero, not negative, not positive]
            self.status[1, n] = np.array(counts, float) / self.length

    def states(self, theta: Params) -> np.ndarray:
        """[2, N, H + 9] states: zero, then the recurrent unit after one interaction from c_0 = 0."""
        bins = np.clip(10 - np.floor(np.round(5 * (1 - self.reward[0]), 6)), 1, 10).astype(int) - 1
        encoder = theta["encoder"]
        x = np.concatenate([encoder["item_embedding"][self.item[0]], np.eye(10)[bins], self.status[1]], -1)
        candidate, forget, reset, skip = np.split(x @ encoder["gates"]["kernel"] + encoder["gates"]["bias"], 4, -1)
        forget, reset = 1 / (1 + np.exp(-forget)), 1 / (1 + np.exp(-reset))
        hidden = reset * np.tanh((1 - forget) * candidate) + (1 - reset) * skip
        return np.stack([np.zeros((len(x), 13)), np.concatenate([hidden, self.status[1]], -1)])

    def visits(self, theta: Params) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        """Returns [2, N] log pi of the items and, per step and level, [N, C] probabilities at the visited node."""
        states, (paths, nodes), branching = self.states(theta), self.paths, self.tree.num_children
        first = np.cumsum([0, *self.tree.level_nodes])
        log_prob, probabilities = np.zeros(self.item.shape), []
        rows = np.arange(self.item.shape[1])
        for t in range(self.length):
            left = np.ones((len(rows), self.items), bool)
            if t:
                left[rows, self.item[0]] = False
            for level in range(self.tree.depth):
                path = paths[self.item[t]]
                here = left & np.all(paths[None, :, :level] == path[:, None, :level], axis=-1)
                count = np.stack([(here & (paths[None, :, level] == k)).sum(-1) for k in range(branching)], -1)
                heads = theta[f"heads_{level}"]
                node = np.minimum(nodes[self.item[t], level], first[level + 1] - 1) - first[level]
                logits = np.einsum("nf,nfc->nc", states[t], heads["kernel_0"][node]) + heads["bias_0"][node]
                weights = np.where(count > 0, count * np.exp(logits), 0.0)
                probs = weights / weights.sum(-1, keepdims=True)
                probabilities.append(probs)
                log_prob[t] += np.log(probs[rows, path[:, level]])
        depth = self.tree.depth
        return log_prob, [probabilities[t * depth : (t + 1) * depth] for t in range(self.length)]

    def objective(self, theta: Params) -> float:
        """Eq. 3 with discount 1: the expected sum of rewards."""
        return float(np.sum(np.exp(self.visits(theta)[0].sum(0)) * self.reward.sum(0)))

    def bonus(self, theta: Params, kind: str) -> float:
        """Mean over the episodes of the summed bonus of all visited nodes."""
        total = 0.0
        for probs in itertools.chain(*self.visits(theta)[1]):
            if kind == "shannon":
                total += np.mean(-np.sum(probs * np.log(np.where(probs > 0, probs, 1)), -1))
            else:
                total -= np.mean((probs - 1 / self.tree.num_children) ** 2) * 1.0
        return float(total)


class Enumeration(NamedTuple):
    """All episodes of the tiny problem in both worlds."""

    model: Model
    policy: TreePolicy
    tables: TreeTables
    params: Params
    theta: Params
    trajectory: Trajectory
    env: RatingEnv


@pytest.fixture(scope="module", params=["regular", "irregular"])
def tiny(request: pytest.FixtureRequest) -> Enumeration:
    tree = hand_made_tree() if request.param == "irregular" else build_tree(7, 3, make_clustering("random", None, 2))
    model = Model(tree)
    policy = make_tree_policy(policy_config(), tree)
    generator = np.random.default_rng(4)
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.7, leaf.shape), jnp.float32), shapes)
    theta = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    shape = model.item.shape
    trajectory = Trajectory(
        item=jnp.asarray(model.item, jnp.int32),
        reward=jnp.asarray(model.reward, jnp.float32),
        hit=jnp.zeros(shape, bool),
        repeated=jnp.zeros(shape, bool),
        log_prob=jnp.zeros(shape),
        status=jnp.asarray(model.status, jnp.float32),
    )
    return Enumeration(model, policy, make_tree_tables(tree), params, theta, trajectory, RatingEnv(7, 2))


@pytest.fixture(scope="module")
def loss_gradient(tiny: Enumeration) -> Callable[..., Params]:
    """The learner's gradient for given advantages [2, N] and weights; the entropy kind is fixed per compilation."""

    def gradient(advantage: Any, weight: Any, entropy_weight: Any, config: LearnerConfig) -> Params:
        weighted, steps = advantage * weight[:, None], jnp.arange(2)
        learner = Reinforce(tiny.env, tiny.policy, config, 42)
        of_loss = learner.gradient(
            PolicyParams(tiny.params, tiny.tables), tiny.trajectory, weighted, steps, entropy_weight
        )
        return learner.with_penalty(*of_loss, tiny.policy.trainable(tiny.params))[0]

    compiled = jax.jit(gradient, static_argnums=3)

    def call(advantage: np.ndarray, weight: Any, entropy_weight: float, config: LearnerConfig) -> Params:
        result = compiled(
            jnp.asarray(advantage, jnp.float32), jnp.asarray(weight, jnp.float32), jnp.float32(entropy_weight), config
        )
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), result)

    return call


def check_gradient(gradient: Params, function: Callable[[Params], float], theta: Params) -> None:
    """Compares with central differences in random directions, and along every bias of the heads."""
    generator = np.random.default_rng(9)
    leaves, structure = jax.tree.flatten(theta)
    slopes = jax.tree.leaves(gradient)
    directions = [[generator.normal(size=leaf.shape) for leaf in leaves] for _ in range(8)]
    for chosen in range(len(leaves)):  # one direction within each array
        directions.append(
            [
                generator.normal(size=leaf.shape) if number == chosen else np.zeros(leaf.shape)
                for number, leaf in enumerate(leaves)
            ]
        )
    for direction in directions:
        there, back = (
            jax.tree.unflatten(
                structure, [leaf + sign * 1e-5 * step for leaf, step in zip(leaves, direction, strict=True)]
            )
            for sign in (1, -1)
        )
        expected = (function(there) - function(back)) / 2e-5
        actual = sum(float(np.sum(slope * step)) for slope, step in zip(slopes, direction, strict=True))
        assert actual == pytest.approx(expected, rel=2e-4, abs=2e-5)


def test_enumerated_log_probs_agree_and_the_probabilities_sum_to_one(tiny: Enumeration) -> None:
    log_prob, _ = tiny.model.visits(tiny.theta)
    assert np.exp(log_prob.sum(0)).sum() == pytest.approx(1, abs=1e-12)
    path_log_probs = jax.jit(tiny.policy.path_log_probs, static_argnums=1)
    computed, _ = path_log_probs(PolicyParams(tiny.params, tiny.tables), tiny.env, tiny.trajectory)
    np.testing.assert_allclose(computed, log_prob, atol=1e-5)


def test_expected_gradient_is_that_of_the_expected_return(tiny: Enumeration, loss_gradient: Any) -> None:
    probability = np.exp(tiny.model.visits(tiny.theta)[0].sum(0))
    returns = np.asarray(discounted_returns(tiny.trajectory.reward, 1.0), np.float64)
    # The loss averages over the N episodes; each counts with its probability.
    gradient = loss_gradient(returns * probability * len(probability), np.ones(2), 0.0, learner_config())
    check_gradient(gradient, lambda theta: -tiny.model.objective(theta), tiny.theta)


def test_expected_gradient_with_discount_is_that_of_algorithm_1(tiny: Enumeration, loss_gradient: Any) -> None:
    probability, discount = np.exp(tiny.model.visits(tiny.theta)[0].sum(0)), 0.6
    returns = np.asarray(discounted_returns(tiny.trajectory.reward, discount), np.float64)
    gradient = loss_gradient(returns * probability * len(probability), np.ones(2), 0.0, learner_config())
    first, second = tiny.model.reward

    def surrogate(theta: Params) -> float:
        log_prob = tiny.model.visits(theta)[0]
        return -float(np.sum(probability * (log_prob[0] * (first + discount * second) + log_prob[1] * second)))

    check_gradient(gradient, surrogate, tiny.theta)


@pytest.mark.parametrize("kind", ["shannon", "distance_to_uniform"])
def test_regularisers_have_the_gradients_of_their_definitions(tiny: Enumeration, loss_gradient: Any, kind: str) -> None:
    config = learner_config(entropy=kind, l2_weight=0.03)
    gradient = loss_gradient(np.zeros((2, 42)), np.ones(2), 0.7, config)

    def regularisers(theta: Params) -> float:
        squares = sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(theta))
        return -0.7 * tiny.model.bonus(theta, kind) + 0.03 * 0.5 * squares

    check_gradient(gradient, regularisers, tiny.theta)


# --- The update ------------------------------------------------------------------------------------------------------


def start(tiny: Enumeration, learner: Reinforce, step: int = 0) -> LearnerState:
    return LearnerState(
        tiny.params, learner.optimizer.init(learner.policy.trainable(tiny.params)), jnp.int32(step), jax.random.key(0)
    )


def run_update(tiny: Enumeration, config: LearnerConfig, env: RatingEnv | None = None) -> tuple[Params, dict[str, Any]]:
    learner = Reinforce(tiny.env if env is None else env, tiny.policy, config, 42)
    params, _, metrics = jax.jit(learner.update)(start(tiny, learner), tiny.tables, tiny.trajectory)
    return jax.device_get((params, metrics))


def adam(theta: list[np.ndarray], gradients: list[np.ndarray], memory: dict[str, Any], rate: float) -> list[np.ndarray]:
    """One step of Kingma and Ba's Adam."""
    memory["t"] = t = memory.get("t", 0) + 1
    first = memory.get("first", [0.0] * len(theta))
    second = memory.get("second", [0.0] * len(theta))
    memory["first"] = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
    memory["second"] = [0.999 * v + 0.001 * g**2 for v, g in zip(second, gradients, strict=True)]
    return [
        value - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        for value, m, v in zip(theta, memory["first"], memory["second"], strict=True)
    ]


def clipped(gradients: list[np.ndarray], norm: float) -> list[np.ndarray]:
    size = math.sqrt(sum(float(np.sum(g**2)) for g in gradients))
    return [g * min(1.0, norm / size) for g in gradients]


@pytest.mark.parametrize("update", ["batch", "per_timestep", "accumulated"])
def test_update_is_adam_on_the_summed_or_on_each_steps_gradient(tiny: Enumeration, update: str) -> None:
    """The gradients are those of a plain loss written here; clipping is active."""
    rate, norm, discount, decay = 0.01, 0.05, 0.6, 0.02
    config = learner_config(
        update=update, learning_rate=rate, clip_norm=norm, discount=discount, baseline="per_step", l2_weight=decay
    )
    params, metrics = run_update(tiny, config)
    first, second = tiny.model.reward
    returns = np.stack([first + discount * second, second])
    advantage = (returns - returns.mean(1, keepdims=True)) / returns.std(1, keepdims=True)

    @jax.jit
    def gradient(params: Params, weight: jax.Array) -> Params:
        def loss(params: Params) -> jax.Array:
            log_prob, _ = tiny.policy.path_log_probs(PolicyParams(params, tiny.tables), tiny.env, tiny.trajectory)
            return -jnp.sum(jnp.mean(log_prob * jnp.asarray(advantage, jnp.float32), 1) * weight)

        return jax.grad(loss)(params)

    leaves, structure = jax.tree.flatten(tiny.theta)
    memory: dict[str, Any] = {}
    norms, smallest = [], [np.full(leaf.shape, np.inf) for leaf in leaves]
    earlier = [np.zeros(leaf.shape) for leaf in leaves]
    for weight in [np.ones(2)] if update == "batch" else [np.array([1.0, 0]), np.array([0, 1.0])]:
        now = jax.tree.unflatten(structure, [jnp.asarray(leaf, jnp.float32) for leaf in leaves])
        slopes = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient(now, jnp.asarray(weight)))]
        if update == "accumulated":  # line 15 of Algorithm 1, each term with the parameters of its time step
            slopes = earlier = [slope + before for slope, before in zip(slopes, earlier, strict=True)]
        slopes = [slope + decay * leaf for slope, leaf in zip(slopes, leaves, strict=True)]
        norms.append(math.sqrt(sum(float(np.sum(slope**2)) for slope in slopes)))
        smallest = [
            np.minimum(low, np.where(slope == 0, np.inf, np.abs(slope)))
            for low, slope in zip(smallest, slopes, strict=True)
        ]
        leaves = adam(leaves, clipped(slopes, norm), memory, rate)
    assert min(norms) > norm
    assert float(metrics["gradient_norm"]) == pytest.approx(np.mean(norms), rel=1e-3)
    compared = 0
    for actual, expected, low in zip(jax.tree.leaves(params), leaves, smallest, strict=True):
        clear = low > 1e-4  # Adam turns rounding noise around zero into full steps
        compared += int(clear.sum())
        np.testing.assert_allclose(actual[clear], expected[clear], atol=2e-5)
    assert compared > 200


def test_a_random_first_item_is_left_out(tiny: Enumeration, loss_gradient: Any) -> None:
    _, metrics = run_update(tiny, learner_config(), RatingEnv(7, 2, cold_start="random"))
    log_prob, _ = tiny.model.visits(tiny.theta)
    first, second = tiny.model.reward
    assert float(metrics["loss"]) == pytest.approx(-np.mean(log_prob[1] * second), abs=1e-5)
    returns = np.stack([first + 0.6 * second, second])
    norms = [
        math.sqrt(sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(gradient)))
        for gradient in (loss_gradient(returns, weight, 0.0, learner_config()) for weight in ([0, 1], [1, 1]))
    ]
    assert float(metrics["gradient_norm"]) == pytest.approx(norms[0], rel=1e-4)
    assert norms[1] != pytest.approx(norms[0], rel=1e-2)


def test_entropy_weight_is_annealed_linearly_and_then_constant(tiny: Enumeration) -> None:
    config = learner_config(entropy_weight=0.8, entropy_weight_end=0.2, entropy_steps=10)
    learner = Reinforce(tiny.env, tiny.policy, config, 42)
    update = jax.jit(learner.update)
    log_prob, _ = tiny.model.visits(tiny.theta)
    first, second = tiny.model.reward
    plain = -np.mean(log_prob[0] * (first + 0.6 * second) + log_prob[1] * second)
    bonus = tiny.model.bonus(tiny.theta, "shannon")
    for step, weight in [(0, 0.8), (5, 0.5), (10, 0.2), (1_000, 0.2)]:
        _, _, metrics = update(start(tiny, learner, step), tiny.tables, tiny.trajectory)
        assert float(metrics["loss"]) == pytest.approx(plain - weight * bonus, abs=1e-5)
        by_level = [
            np.mean([-np.sum(probs * np.log(np.where(probs > 0, probs, 1)), -1).mean() for probs in level])
            for level in zip(*tiny.model.visits(tiny.theta)[1], strict=True)
        ]
        for level, entropy in enumerate(by_level):
            assert float(metrics[f"entropy_{level}"]) == pytest.approx(entropy, abs=1e-5)


# --- Learning --------------------------------------------------------------------------------------------------------

LIKED = (2, 11, 17, 26)
OPTIMUM = (1 + 1.1 + 1.2 + 1.3) / 4  # four items rated 5, the run of positives adding alpha = 0.1 each time


class Problem(NamedTuple):
    """27 items of which the only training user likes four."""

    learner: Reinforce
    world: World
    init: Callable[[jax.Array], LearnerState]
    train_step: Callable[[LearnerState], tuple[LearnerState, dict[str, jax.Array]]]
    play: Callable[..., jax.Array]


@pytest.fixture(scope="module")
def problem() -> Problem:
    ratings = {(0, item): 5 if item in LIKED else 1 for item in (*LIKED, 5, 14)}
    ratings |= {(1, item): 3 for item in range(27)}  # so that all items exist
    data = make_data(ratings)
    config = env_config(length=4)
    env = make_rating_env(config, data)
    tree = build_tree(27, 3, make_clustering("random", None, 0))
    assert (tree.num_children, tree.depth) == (3, 3)
    policy = make_tree_policy(policy_config(hidden=[8]), tree)
    settings = learner_config(
        baseline="per_user",
        episodes_per_user=16,
        learning_rate=0.02,
        clip_norm=10.0,
        entropy_weight=0.5,  # less, and many seeds stop at three of the four items
        entropy_weight_end=0.02,
        entropy_steps=250,
    )
    learner = Reinforce(env, policy, settings, 64)
    world = World(make_env_params(config, data, np.array([0]), 3), make_tree_tables(tree))

    def play(network: Params, explore: bool) -> jax.Array:
        users = jnp.zeros((64,), jnp.int32)
        params = PolicyParams(network, world.tree)
        return jnp.mean(rollout(env, world.env, policy.as_policy(), params, users, jax.random.key(3), explore).reward)

    return Problem(
        learner,
        world,
        jax.jit(learner.init),
        jax.jit(lambda state: learner.train_step(state, world)),
        jax.jit(play, static_argnums=1),
    )


def train(problem: Problem, seed: int, steps: int) -> tuple[LearnerState, list[dict[str, Any]]]:
    state, history = problem.init(jax.random.key(seed)), []
    for _ in range(steps):
        state, metrics = problem.train_step(state)
        history.append(metrics)
    return state, jax.device_get(history)


def test_training_finds_the_items_that_the_user_likes(problem: Problem) -> None:
    untrained = problem.init(jax.random.key(0))
    assert float(problem.play(untrained.params, True)) < 0.3 * OPTIMUM
    state, history = train(problem, seed=0, steps=400)
    assert float(problem.play(state.params, False)) >= 0.9 * OPTIMUM
    assert history[0]["reward"] < 0.3 * OPTIMUM
    assert np.mean([metrics["reward"] for metrics in history[-5:]]) > 0.8 * OPTIMUM
    assert history[-1]["precision"] > history[0]["precision"]
    assert int(state.step) == 400


def test_training_repeats_exactly_with_the_same_key_and_not_with_another(problem: Problem) -> None:
    first, again, other = (train(problem, seed, steps=4) for seed in (7, 7, 8))
    for metrics, same in zip(first[1], again[1], strict=True):
        assert metrics.keys() == same.keys() >= {"reward", "precision", "loss", "gradient_norm", "entropy_0"}
        for key in metrics:
            assert metrics[key].tobytes() == same[key].tobytes()
    for leaf, same in zip(jax.tree.leaves(first[0].params), jax.tree.leaves(again[0].params), strict=True):
        np.testing.assert_array_equal(leaf, same)
    assert any(metrics["reward"] != changed["reward"] for metrics, changed in zip(first[1], other[1], strict=True))
    # Each step draws new episodes.
    assert len({float(metrics["loss"]) for metrics in first[1]}) == 4


def test_l2_leaves_frozen_embeddings_alone(tiny: Enumeration) -> None:
    config = dataclasses.replace(policy_config(), train_embedding=False)
    policy = make_tree_policy(config, tiny.model.tree)
    params, _ = run_update(tiny._replace(policy=policy), learner_config(l2_weight=0.1))
    np.testing.assert_array_equal(params["encoder"]["item_embedding"], tiny.params["encoder"]["item_embedding"])

"""Goals made from a memory: the actor as a part of a critic that is linear in the goal."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrlmg_jax.agent.ddpg import Batch, LevelConfig, OptimizerConfig, init_level
from hrlmg_jax.agent.memory import REMEMBERED
from hrlmg_jax.agent.memory_critic import MemoryActorCritic, memory_loss, memory_targets, update_memory_level
from hrlmg_jax.agent.networks import NetworkConfig
from sim.envs.nearest_items import unit

B, M, K, E, N, ITEMS = 6, 2, len(REMEMBERED), 4, 3, 9
EMBEDDING = unit(jnp.asarray(np.random.default_rng(0).normal(size=(ITEMS, E)), jnp.float32))
NETWORKS = MemoryActorCritic(
    NetworkConfig(
        hidden_size=3,
        state_size=4,
        critic_width=6,
        action_norm="unit",
        action_bound=1.0,
        q_output="linear",
        critics="twin",
    ),
    M,
    E,
)


def random_params(seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(NETWORKS.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.5, leaf.shape), jnp.float32), shapes)


def make_batch(rows: int = B, seed: int = 1) -> Batch:
    """The second transition ends a session; the third lacks a stage; of the fourth's user nothing is remembered."""
    generator = np.random.default_rng(seed)
    histories = jnp.asarray(generator.integers(-1, ITEMS, (4, rows, N)), jnp.int32)
    active, discount = np.ones((rows, M)), np.full(rows, 0.9)
    active[2, -1], discount[1] = 0, 0

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    known = jnp.ones((rows, 1, 1)).at[3].set(0)
    return Batch(
        state=(histories[0], histories[1]),
        action=normal(rows, M, E),
        reward=normal(rows, M),
        active=jnp.asarray(active, jnp.float32),
        discount=jnp.asarray(discount, jnp.float32),
        next_state=(histories[2], histories[3]),
        directions=known * normal(rows, K, E),
        next_directions=known * normal(rows, K, E),
    )


def slope_by_hand(params: dict[str, Any], directions: Any) -> np.ndarray:
    """[B, M, E]: the parameters count eight times."""
    weights = 8 * np.asarray(params["actor"]["weights"], np.float64)
    found = np.zeros((len(directions), M, E))
    for b, goal, kind in np.ndindex(len(directions), M, K):
        found[b, goal] += weights[goal, kind] * np.asarray(directions)[b, kind]
    return found


def value(params: dict[str, Any], state: tuple[jax.Array, jax.Array], directions: Any) -> np.ndarray:
    return np.asarray(NETWORKS.value(params["critic"], state, EMBEDDING, directions), np.float64)


def test_goals_are_the_directions_of_weighted_sums() -> None:
    params, directions = random_params(2), make_batch().directions
    slope = slope_by_hand(params, directions)
    np.testing.assert_allclose(NETWORKS.slope(params["actor"], directions), slope, atol=1e-4)
    goals = np.asarray(NETWORKS.act(params["actor"], directions))
    np.testing.assert_allclose(
        goals, slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-9), atol=1e-5
    )


def test_no_other_goal_of_norm_one_is_valued_more() -> None:
    params, batch = random_params(3), make_batch()
    slope = slope_by_hand(params, batch.directions)
    goals = np.asarray(NETWORKS.act(params["actor"], batch.directions), np.float64)
    others = np.random.default_rng(4).normal(size=(500, B, M, E))
    others /= np.linalg.norm(others, axis=-1, keepdims=True)
    assert (np.sum(others * slope, -1) <= np.sum(goals * slope, -1) + 1e-6).all()


def test_who_is_not_remembered_gets_no_goal_also_with_noise() -> None:
    params, directions = random_params(2), make_batch().directions
    goals = NETWORKS.act(params["actor"], directions)
    noisy = NETWORKS.perturb(goals, 0.3, jax.random.key(0))
    for found in (goals, noisy):
        lengths = np.where(np.arange(B) == 3, 0.0, 1.0)[:, None]
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.broadcast_to(lengths, (B, M)), atol=1e-6)
    assert (np.abs(noisy - goals).max(-1) > 1e-3)[np.arange(B) != 3].all()


def test_untrained_weights_are_small_and_differ() -> None:
    weights = np.asarray(NETWORKS.weights(NETWORKS.init(jax.random.key(0))["actor"]))
    assert weights.shape == (M, K)
    assert 0 < np.abs(weights).max() < 1
    assert len(np.unique(weights)) == weights.size


def test_the_value_of_a_state_sees_histories_and_how_much_is_remembered_but_not_where() -> None:
    params, batch = random_params(5), make_batch()
    assert batch.directions is not None
    found = value(params, batch.state, batch.directions)
    turned = jnp.roll(batch.directions, 1, axis=-1)  # the same lengths
    np.testing.assert_allclose(value(params, batch.state, turned), found, atol=1e-5)
    longer = np.abs(value(params, batch.state, 2 * batch.directions) - found).max(1)
    np.testing.assert_array_equal(longer > 1e-4, np.arange(B) != 3)
    assert (np.abs(value(params, batch.next_state, batch.directions) - found) > 1e-4).any(1).all()


def test_targets_are_rewards_and_the_primed_value_of_the_best_goal() -> None:
    target, batch = random_params(6), make_batch()
    best = value(target, batch.next_state, batch.next_directions)
    best += np.linalg.norm(slope_by_hand(target, batch.next_directions), axis=-1)
    expected = np.asarray(batch.reward) + np.asarray(batch.discount)[:, None] * best
    found = memory_targets(NETWORKS, target, batch, EMBEDDING)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[1], batch.reward[1])  # discount 0: nothing follows


def test_loss_and_gradient_of_the_weights_are_those_of_a_linear_regression() -> None:
    """Squared errors of V + a . psi, summed over goals; of a weight w_ik the slope is 8 a_i . d_k."""
    params, batch = random_params(7), make_batch()
    targets = np.random.default_rng(8).normal(size=(B, M)).astype(np.float32)
    action, active = np.asarray(batch.action, np.float64), np.asarray(batch.active)
    q = value(params, batch.state, batch.directions)
    q += np.sum(action * slope_by_hand(params, batch.directions), -1)
    gradient, metrics = jax.grad(memory_loss, argnums=1, has_aux=True)(
        NETWORKS, params, batch, jnp.asarray(targets), EMBEDDING
    )
    assert float(metrics["critic_loss"]) == pytest.approx(np.sum(active * (q - targets) ** 2) / B, rel=1e-4)
    assert float(metrics["q"]) == pytest.approx(q.mean(), rel=1e-4)
    expected = np.zeros((M, K))
    for b, goal, kind in np.ndindex(B, M, K):
        along = action[b, goal] @ np.asarray(batch.directions)[b, kind]
        expected[goal, kind] += 2 * active[b, goal] * (q[b, goal] - targets[b, goal]) * 8 * along / B
    np.testing.assert_allclose(gradient["actor"]["weights"], expected, rtol=1e-3, atol=1e-3)


def test_gradients_are_finite_and_targets_follow() -> None:
    """Also for a user of whom nothing is remembered."""
    config = LevelConfig(OptimizerConfig(actor_rate=0.0, critic_rate=1e-2, clip_norm=1.0), 0.25, 0.9, True)
    before = init_level(random_params(9), config.optimizer)
    after, metrics = update_memory_level(NETWORKS, config, before, make_batch(), EMBEDDING)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, metrics)))
    for name in ("actor", "critic"):
        assert float(metrics[f"{name}_gradient_norm"]) > 0
        for new, old, target in zip(
            *(jax.tree.leaves(tree[name]) for tree in (after.params, before.params, after.target)), strict=True
        ):
            np.testing.assert_allclose(target, 0.25 * new + 0.75 * old, atol=1e-6)
            # Adam's first step is the critic's rate, wherever there is a gradient.
            assert np.abs(new - old).max() == pytest.approx(1e-2, rel=1e-2)


def test_regression_finds_what_is_worth_following() -> None:
    """Rewards are a . (2 d_0 - d_1) for one goal and a . d_4 for the other, and noise; nothing follows."""
    rows = 512
    config = LevelConfig(OptimizerConfig(actor_rate=0.0, critic_rate=3e-3, clip_norm=10.0), 0.01, 0.9, True)
    truth = np.zeros((M, K))
    truth[0, :2], truth[1, 4] = (2, -1), 1

    @jax.jit
    def step(level: Any, key: jax.Array) -> tuple[Any, Any]:
        directions_key, action_key, noise_key = jax.random.split(key, 3)
        batch = make_batch(rows)
        directions = jax.random.normal(directions_key, (rows, K, E))
        action = unit(jax.random.normal(action_key, (rows, M, E)))
        psi = jnp.einsum("mk,bke->bme", jnp.asarray(truth, jnp.float32), directions)
        reward = jnp.sum(action * psi, -1) + 0.5 * jax.random.normal(noise_key, (rows, M))
        batch = dataclasses.replace(
            batch,
            directions=directions,
            action=action,
            reward=reward,
            discount=jnp.zeros(rows),
            active=jnp.ones((rows, M)),
        )
        return update_memory_level(NETWORKS, config, level, batch, EMBEDDING)

    level = init_level(NETWORKS.init(jax.random.key(0)), config.optimizer)
    level, metrics = jax.lax.scan(step, level, jax.random.split(jax.random.key(1), 400))
    found = np.asarray(NETWORKS.weights(level.params["actor"]))
    np.testing.assert_allclose(found, truth, atol=0.1)
    assert float(NETWORKS.named_weights(level.params["actor"])["goal_2_ordered_lately"]) == found[1, 4]
    assert float(metrics["critic_loss"][-50:].mean()) < 1.2 * M * 0.5**2

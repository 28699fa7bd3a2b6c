"""TPGR on many devices computes what it computes on one (conftest.py makes eight)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from small_trees import small_networks, small_ratings

from harness.compute.devices import DevicesConfig, device_mesh, place
from harness.compute.sharding import EVERYWHERE, NODES
from sim.envs.rating_env import make_env_params, make_rating_env
from sim.envs.rollout import rollout
from tpgr_jax.agents.reinforce import LearnerConfig, Reinforce, World
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.tree_policy import PolicyParams, make_tree_policy
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering

ITEMS, USERS, BATCH = 30, 12, 16
LAYOUTS = [(4, 2), pytest.param(8, 8, marks=pytest.mark.long)]


def make_learner(head_shards: int, depth: int = 2) -> tuple[Reinforce, World]:
    data, env_config = small_ratings(USERS, ITEMS, 5)
    networks = small_networks(head_shards=head_shards)
    settings = LearnerConfig(
        discount=0.6,
        baseline="per_user",
        episodes_per_user=4,
        update="batch",
        learning_rate=0.05,
        clip_norm=10.0,
        entropy="shannon",
        entropy_weight=0.1,
        entropy_weight_end=0.1,
        entropy_steps=1,
        l2_weight=0.01,
    )
    tree = build_tree(ITEMS, depth, make_clustering("random", None, 0))
    policy = make_tree_policy(networks, tree)
    learner = Reinforce(make_rating_env(env_config, data), policy, settings, BATCH)
    env_params = make_env_params(env_config, data, np.arange(USERS), 3)
    return learner, World(env_params, make_tree_tables(tree))


def mesh_of(count: int, head_shards: int):
    return device_mesh(DevicesConfig(count=count), BATCH, "train.episodes_per_step", head_shards)


def trained(learner: Reinforce, world: World, steps: int = 3):
    """State and metrics of each step, from random output layers: zeros would hide what lies below them."""
    state = jax.jit(learner.init)(jax.random.key(0))
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + noise.normal(0, 0.3, leaf.shape).astype(np.float32), state.params)
    state = dataclasses.replace(state, params=params)
    state = jax.jit(lambda state: place(state, learner.policy.partition(state)))(state)
    step = jax.jit(learner.train_step)
    metrics = []
    for _ in range(steps):
        state, found = step(state, world)
        metrics.append(jax.device_get(found))
    return state, metrics


def assert_close(tree, expected, tolerance):
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=tolerance, atol=tolerance)


def test_training_on_many_devices_is_training_on_one_with_a_share_of_the_heads_each():
    learner, world = make_learner(8)
    alone, expected = trained(learner, world)
    with mesh_of(8, 8):
        state, metrics = trained(learner, world)
    assert_close(metrics, expected, 1e-4)
    assert_close(state.params, alone.params, 1e-4)
    moments = state.opt_state[1][0]
    for leaf in jax.tree.leaves([tree["heads_1"] for tree in (state.params, moments.mu, moments.nu)]):
        assert leaf.shape[0] == 8  # six nodes, and room for a multiple of eight
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
    for leaf in jax.tree.leaves([state.params["heads_0"], state.params["encoder"]]):
        assert leaf.sharding.is_fully_replicated


@pytest.mark.parametrize(("count", "head_shards"), LAYOUTS)
def test_gradient_is_that_of_one_device(count, head_shards):
    learner, world = make_learner(head_shards)
    network = trained(learner, world, steps=0)[0].params
    users = jnp.repeat(jnp.arange(4), 4)
    policy = learner.policy.as_policy()

    def gradient(network, world):
        params = PolicyParams(network, world.tree)
        trajectory = rollout(learner.env, world.env, policy, params, users, jax.random.key(2), True)
        advantage = jnp.cos(trajectory.reward + jnp.arange(BATCH))
        return trajectory.item, learner.gradient(params, trajectory, advantage, None, jnp.float32(0.1))[0]

    items, expected = jax.jit(gradient)(network, world)
    with mesh_of(count, head_shards):
        same_items, found = jax.jit(gradient)(network, world)
    np.testing.assert_array_equal(same_items, items)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected["heads_1"])) > 0.1
    assert_close(found, expected, 2e-6)


def test_spare_heads_change_nothing():
    plain, world = make_learner(1)
    padded, _ = make_learner(4)
    before, _ = trained(plain, world, steps=0)
    params = jax.tree.map(
        lambda leaf, shape: jnp.concatenate([leaf, jnp.zeros((shape.shape[0] - leaf.shape[0], *leaf.shape[1:]))]),
        before.params,
        jax.eval_shape(padded.init, jax.random.key(0)).params,
    )
    users, key = jnp.arange(8), jax.random.key(3)

    def items(learner, network):
        params = PolicyParams(network, world.tree)
        return rollout(learner.env, world.env, learner.policy.as_policy(), params, users, key, True).item

    np.testing.assert_array_equal(items(plain, before.params), items(padded, params))


def test_layout_names_the_levels_below_the_root():
    learner, _ = make_learner(2, depth=3)
    layout = learner.policy.partition(jax.eval_shape(learner.init, jax.random.key(0)))
    assert set(jax.tree.leaves(layout.params["heads_0"])) == {EVERYWHERE}
    for level in ("heads_1", "heads_2"):
        assert set(jax.tree.leaves(layout.params[level])) == {PartitionSpec(NODES)}
    assert set(jax.tree.leaves(layout.params["encoder"])) == {EVERYWHERE}

"""Training that updates visited nodes alone, against dense training, on trees with more nodes than a batch visits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hand_made import hand_made_ratings
from harness.settings import read_settings
from sim.envs.rating_env import EnvConfig, make_env_params, make_rating_env
from sim.envs.rollout import rollout
from tpgr_jax.agents.reinforce import LearnerConfig, Reinforce, World, lazy_levels
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.tree_policy import PolicyConfig, PolicyParams, make_tree_policy
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering

ITEMS, USERS, BATCH, DEPTH, STEPS = 60, 12, 2, 3, 40
SETTINGS = {
    "discount": 0.6,
    "baseline": "none",
    "episodes_per_user": 2,
    "update": "batch",
    "learning_rate": 0.01,
    "clip_norm": 0.5,
    "entropy": "shannon",
    "entropy_weight": 0.1,
    "entropy_weight_end": 0.1,
    "entropy_steps": 1,
    "l2_weight": 0.0,
    "node_updates": "lazy",
}


def make_learner(node_updates: str) -> tuple[Reinforce, World]:
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((USERS, ITEMS)) < 0.4)
    data = hand_made_ratings(users, items, generator.integers(1, 6, len(users)))
    env_config = EnvConfig(
        alpha=0.1,
        episode_length=3,
        reward_scale="half_open",
        cold_start="policy",
        allow_repeats=False,
        rating_layout="dense",
        dense_limit_mb=10,
    )
    networks = PolicyConfig(
        hidden=[4],
        embedding_size=3,
        state_hidden=4,
        embedding="random",
        embedding_epochs=1,
        train_embedding=True,
        status_in_rnn=True,
        count_prior=True,
        encoder_pretrain_steps=0,
    )
    config = read_settings(LearnerConfig, {**SETTINGS, "node_updates": node_updates})
    tree = build_tree(ITEMS, DEPTH, make_clustering("random", None, 0))
    lazy = lazy_levels(config, tree.level_nodes, BATCH * 3)
    learner = Reinforce(make_rating_env(env_config, data), make_tree_policy(networks, tree), config, BATCH, lazy)
    return learner, World(make_env_params(env_config, data, np.arange(USERS), 3), make_tree_tables(tree))


def started(learner: Reinforce):
    """With random output layers: zeros would hide what lies below them."""
    state = jax.jit(learner.init)(jax.random.key(0))
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + noise.normal(0, 0.3, leaf.shape).astype(np.float32), state.params)
    return dataclasses.replace(state, params=params)


def assert_close(tree, expected, tolerance):
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=tolerance)


def test_lazy_training_is_dense_training_on_the_same_episodes():
    (lazy, world), (dense, _) = make_learner("lazy"), make_learner("dense")
    assert (lazy.lazy, dense.lazy) == ((1, 2), ())

    @jax.jit
    def step(states, key):
        params = dense.policy_params(states[1], world.tree)
        starts = jnp.repeat(jax.random.randint(key, (1,), 0, USERS), BATCH)
        trajectory = rollout(dense.env, world.env, dense.policy.as_policy(), params, starts, key, True)
        results = []
        for learner, state in zip((lazy, dense), states, strict=True):
            params, opt_state, metrics = learner.update(state, world.tree, trajectory)
            state = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
            results.append((state, metrics, learner.policy_params(state, world.tree).network))
        return tuple(zip(*results, strict=True))

    states = started(lazy), started(dense)
    for number in range(STEPS):
        states, metrics, networks = step(states, jax.random.key(number))
        assert_close(*metrics, 1e-5)
        assert_close(*networks, 2e-5)
    last = states[0].opt_state.rows["heads_2"].last
    assert len(np.unique(last)) > 5  # nodes were visited at very different times


def test_a_rollout_reads_nodes_as_they_are_now():
    learner, world = make_learner("lazy")
    state = started(learner)
    step = jax.jit(learner.train_step)
    for _ in range(5):
        state, _ = step(state, world)
    policy, starts = learner.policy.as_policy(), jnp.arange(8)
    nodes = learner.lazy_nodes

    @jax.jit
    def played(state, params):
        return rollout(learner.env, world.env, policy, params, starts, jax.random.key(9), True)

    def log_probs(params):
        return jax.jit(learner.policy.path_log_probs, static_argnums=1)(params, learner.env, trajectory)[1]

    reading = nodes.reading(state.params, state.opt_state, state.step, world.tree)
    trajectory = played(state, reading)
    now = learner.policy_params(state, world.tree)
    np.testing.assert_array_equal(trajectory.item, played(state, now).item)
    assert_close(log_probs(reading), log_probs(now), 1e-5)
    stale = log_probs(PolicyParams(state.params, world.tree))
    assert max(float(jnp.abs(one - two).max()) for one, two in zip(stale, log_probs(now), strict=True)) > 1e-3

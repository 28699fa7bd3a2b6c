"""Training that updates visited nodes alone, against dense training, on trees with more nodes than a batch visits."""

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_lines import metrics_without_times
from intermediate_shapes import primitives
from small_trees import small_networks, small_ratings

from harness.compute.devices import DevicesConfig, device_mesh, place
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from harness.training.agent import Agent
from harness.training.loop import Interruption, ScheduleConfig, run_training
from harness.training.parallel_seeds import SeedRun
from sim.envs.rating_env import make_env_params, make_rating_env
from sim.envs.rollout import rollout
from tpgr_jax.agents.lazy_nodes import stored_params
from tpgr_jax.agents.reinforce import LearnerConfig, Reinforce, World, lazy_levels
from tpgr_jax.agents.tree_ops import make_tree_tables
from tpgr_jax.agents.tree_policy import PolicyParams, make_tree_policy
from tpgr_jax.tree.balanced_tree import build_tree, make_clustering

ITEMS, USERS, BATCH, DEPTH, STEPS = 200, 12, 2, 3, 40
SETTINGS = {
    "discount": 0.6,
    "baseline": "none",
    "episodes_per_user": 2,
    "update": "batch",
    "learning_rate": 0.01,
    "clip_norm": 0.2,
    "entropy": "shannon",
    "entropy_weight": 0.1,
    "entropy_weight_end": 0.1,
    "entropy_steps": 1,
    "l2_weight": 0.0,
    "node_updates": "lazy",
}


def make_learner(node_updates: str) -> tuple[Reinforce, World]:
    data, env_config = small_ratings(USERS, ITEMS, 3)
    networks = small_networks()
    config = read_settings(LearnerConfig, {**SETTINGS, "node_updates": node_updates})
    tree = build_tree(ITEMS, DEPTH, make_clustering("random", None, 0))
    lazy = lazy_levels(config, tree.level_nodes, BATCH * 3)
    learner = Reinforce(make_rating_env(env_config, data), make_tree_policy(networks, tree), config, BATCH, lazy)
    return learner, World(make_env_params(env_config, data, np.arange(USERS), 3), make_tree_tables(tree))


@pytest.fixture(scope="module")
def lazy() -> tuple[Reinforce, World]:
    return make_learner("lazy")


@pytest.fixture(scope="module")
def steps(lazy):
    """Returns a compiled function of five training steps."""
    learner = lazy[0]

    def train(state, world):
        return jax.lax.scan(lambda state, _: learner.train_step(state, world), state, None, length=5)

    return jax.jit(train)


@pytest.fixture(scope="module")
def trained(lazy, steps):
    """The states at the start, and after 5 and 10 steps."""
    learner, world = lazy
    states = [started(learner)]
    for _ in range(2):
        states.append(steps(states[-1], world)[0])
    return states


def started(learner: Reinforce):
    """With random output layers: zeros would hide what lies below them."""
    state = jax.jit(learner.init)(jax.random.key(0))
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + noise.normal(0, 0.3, leaf.shape).astype(np.float32), state.params)
    return dataclasses.replace(state, params=params)


def assert_close(tree, expected, tolerance):
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=tolerance)


def test_lazy_training_is_dense_training_on_the_same_episodes(lazy):
    (learner, world), (dense, _) = lazy, make_learner("dense")
    assert (learner.lazy, dense.lazy) == ((1, 2), ())

    @jax.jit
    def step(states, key):
        params = dense.policy_params(states[1], world.tree)
        starts = jnp.repeat(jax.random.randint(key, (1,), 0, USERS), BATCH)
        trajectory = rollout(dense.env, world.env, dense.policy.as_policy(), params, starts, key, True)
        results = []
        for each, state in zip((learner, dense), states, strict=True):
            params, opt_state, metrics = each.update(state, world.tree, trajectory)
            state = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
            results.append((state, metrics, each.finished(state).params))
        return tuple(zip(*results, strict=True))

    states, norms = (started(learner), started(dense)), []
    for number in range(STEPS):
        states, metrics, networks = step(states, jax.random.key(number))
        assert_close(*metrics, 1e-5)
        # Adam turns rounding noise in gradients around zero into steps, in either.
        errors = np.concatenate([np.ravel(one - two) for one, two in zip(*map(jax.tree.leaves, networks), strict=True)])
        assert np.mean(np.abs(errors) > 1e-5) < 0.01
        assert np.abs(errors).max() < 1e-3  # rows have moved by 0.4
        norms.append(float(metrics[0]["gradient_norm"]))
    assert np.mean(np.array(norms) > SETTINGS["clip_norm"]) > 0.5
    last = states[0].opt_state.rows["heads_2"].last
    assert len(np.unique(last)) > 5  # nodes were visited at very different times


def test_rollouts_and_evaluations_read_nodes_as_they_are_now(lazy, trained):
    learner, world = lazy
    state = trained[-1]
    policy, starts = learner.policy.as_policy(), jnp.arange(8)
    played = jax.jit(lambda params: rollout(learner.env, world.env, policy, params, starts, jax.random.key(9), True))
    trajectory = played(learner.policy_params(state, world.tree))
    now = learner.policy_params(learner.finished(state), world.tree)
    np.testing.assert_array_equal(trajectory.item, played(now).item)

    log_probs = jax.jit(lambda params: learner.policy.path_log_probs(params, learner.env, trajectory)[1])
    assert_close(log_probs(learner.policy_params(state, world.tree)), log_probs(now), 1e-5)
    at_rest = log_probs(PolicyParams(state.params, world.tree))
    assert max(float(jnp.abs(one - two).max()) for one, two in zip(at_rest, log_probs(now), strict=True)) > 1e-3


def test_a_step_computes_nothing_for_all_nodes_but_the_tables_that_it_writes_into(lazy):
    learner, world = lazy
    nodes = learner.policy.network.level_nodes[2]
    state = jax.eval_shape(learner.init, jax.random.key(0))
    program = jax.make_jaxpr(learner.train_step)(state, world)
    found = {name for name, shape in primitives(program.jaxpr) if len(shape) == 3 and shape[0] == nodes}
    assert found == {"scatter", "while"}


class Killed(BaseException):
    """In the place of SIGKILL: nothing is saved any more."""


@pytest.mark.long
def test_a_run_that_was_stopped_and_killed_ends_as_one_left_alone(lazy, tmp_path):
    learner, world = lazy
    schedule = ScheduleConfig(steps=8, log_every=2, evaluate_every=2, checkpoint_every=2, max_to_keep=2)

    def init(key, world):
        return learner.init(key)

    def train(name, ending=lambda step: None):
        def evaluate(state):
            ending(int(state.step))
            return {"test_reward": float(jax.tree.reduce(lambda total, leaf: total + leaf.sum(), state.params, 0.0))}

        (tmp_path / name).mkdir(exist_ok=True)
        agent = Agent(init, lambda state: state, learner.train_step, world, BATCH)
        run = SeedRun(agent, RunFolder(tmp_path / name), jax.random.key(4), evaluate)
        [state] = run_training([run], schedule, {})
        return state

    def stop(step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    def kill(step):
        if step == 8:
            raise Killed

    whole = train("whole")
    with pytest.raises(Interruption, match="after step 4"):
        train("parts", stop)
    with pytest.raises(Killed):
        train("parts", kill)
    with Checkpoints(tmp_path / "parts" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [4, 6]
    resumed = train("parts")
    assert whole.opt_state.rows["heads_2"].last.max() == 8
    states = [jax.tree.leaves(dataclasses.replace(state, key=0)) for state in (resumed, whole)]
    for leaf, other in zip(*states, strict=True):
        np.testing.assert_array_equal(leaf, other)
    assert metrics_without_times(tmp_path / "parts") == metrics_without_times(tmp_path / "whole")
    # A run that starts from it reads where its networks are.
    with Checkpoints(tmp_path / "parts" / "checkpoints", read_only=True) as checkpoints:
        found = stored_params(checkpoints.restore_arrays()[1], SETTINGS["learning_rate"])
    assert_close(found, learner.finished(whole).params, 1e-6)


@pytest.mark.long
def test_seeds_that_train_as_one_batch_train_as_each_alone(lazy, steps, trained):
    learner, world = lazy
    batched = jax.jit(jax.vmap(steps, (0, None)))
    together, _ = batched(jax.tree.map(lambda one, two: jnp.stack([one, two]), *trained[:2]), world)
    for number, expected in enumerate(trained[1:]):
        found = jax.tree.map(lambda leaf, number=number: leaf[number], together)
        assert_close(learner.finished(found).params, learner.finished(expected).params, 1e-5)


@pytest.mark.long
def test_many_devices_train_as_one_does(lazy, trained):
    learner, world = lazy
    batch = dataclasses.replace(learner, episodes_per_step=8)
    step = jax.jit(lambda state, world: batch.train_step(state, world))
    alone = trained[1]
    for _ in range(3):
        alone, expected = step(alone, world)
    with device_mesh(DevicesConfig(count=4), 8, "train.episodes_per_step"):
        state = jax.jit(lambda state: place(state, batch.policy.partition(state)))(trained[1])
        step = jax.jit(lambda state, world: batch.train_step(state, world))
        for _ in range(3):
            state, metrics = step(state, world)
    assert_close(metrics, expected, 1e-5)
    assert_close(learner.finished(state).params, learner.finished(alone).params, 2e-5)


def test_levels_with_more_nodes_than_decisions_are_lazy():
    config = read_settings(LearnerConfig, {**SETTINGS, "node_updates": "auto"})
    assert lazy_levels(config, (1, 61), 32_000) == ()
    assert lazy_levels(config, (1, 100, 10_000), 8_192) == (2,)
    assert lazy_levels(config, (1, 100, 8_192), 8_192) == ()
    assert lazy_levels(dataclasses.replace(config, l2_weight=0.1), (1, 100, 10_000), 8_192) == ()
    assert lazy_levels(dataclasses.replace(config, update="accumulated"), (1, 100, 10_000), 8_192) == ()
    without = {name: value for name, value in SETTINGS.items() if name != "node_updates"}
    assert lazy_levels(read_settings(LearnerConfig, without), (1, 100, 10_000), 8_192) == ()  # an earlier run


@pytest.mark.parametrize("change", [{"l2_weight": 0.1}, {"update": "per_timestep"}])
def test_lazy_updates_are_refused_where_every_node_gets_a_gradient(change):
    with pytest.raises(UserError, match=r"agent\.learner\.node_updates is lazy, agent\.learner\.update"):
        read_settings(LearnerConfig, {**SETTINGS, **change}, "agent.learner")

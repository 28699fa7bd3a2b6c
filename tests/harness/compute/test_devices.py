"""Which devices a run uses, and that training on many of them is training on one (conftest.py makes eight)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from harness.compute.devices import AUTOMATIC, DevicesConfig, device_mesh, place
from harness.compute.processes import agreed, agreed_path, is_first_process
from harness.compute.sharding import (
    DATA,
    EPISODES,
    EVERYWHERE,
    NODES,
    mean_over_devices,
    num_shards,
    on_every_device,
    over_episodes,
    parts_here,
    per_device,
)
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from harness.training.agent import Agent
from harness.training.loop import ScheduleConfig, run_training
from harness.training.parallel_seeds import SeedRun

SCHEDULE = ScheduleConfig(steps=4, log_every=2, evaluate_every=4, checkpoint_every=2, max_to_keep=5)
EIGHT = DevicesConfig(count=8)
EPISODES_PER_STEP = 16


def mesh_of(count: int, node_shards: int = 1, batch_size: int = EPISODES_PER_STEP):
    return device_mesh(DevicesConfig(count=count), batch_size, "train.episodes_per_step", node_shards)


def average_learner() -> Agent:
    """Follows the mean of random episodes; its `wide` parameters lie on different devices where nodes are spread."""

    def train_step(state, world):
        drawn = over_episodes(jax.random.normal(jax.random.fold_in(state["key"], state["step"]), (EPISODES_PER_STEP,)))

        def own(wide, drawn):
            # A device that holds part of `wide` sums over those that hold the others the means of their episodes.
            everyone = jax.lax.all_gather(drawn, NODES, tiled=True) if parts_here(NODES) > 1 else drawn
            summed = wide * everyone.mean() * parts_here(NODES)
            return mean_over_devices({"wide": summed}, {"wide": PartitionSpec(NODES)})["wide"]

        spec = PartitionSpec(NODES)
        change = per_device(own, (spec, PartitionSpec(EPISODES)), spec, EPISODES_PER_STEP)(state["wide"], drawn)
        state = {**state, "wide": state["wide"] + change, "step": state["step"] + 1}
        return state, {"reward": drawn.mean() + world}

    def init(key, world):
        return {"wide": jnp.arange(8.0) + 1, "step": jnp.int32(0), "key": key}

    def partition(state):
        return {name: PartitionSpec(NODES) if name == "wide" else EVERYWHERE for name in state}

    return Agent(init, lambda state: state, train_step, jnp.float32(1), EPISODES_PER_STEP, partition=partition)


def train(path: Path, steps: int = SCHEDULE.steps):
    path.mkdir(exist_ok=True)
    run = SeedRun(average_learner(), RunFolder(path), jax.random.key(5), lambda state: {"test_reward": 0.0})
    schedule = ScheduleConfig(**{**vars(SCHEDULE), "steps": steps})
    return run_training([run], schedule, {"data": "none"})[0]


# --- Number of devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "batch_size", "node_shards", "count"),
    [
        (1, 1024, 1, 1),
        (2, 1024, 1, 2),
        (3, 1024, 1, 2),
        (4, 1000, 1, 4),
        (16, 4096, 1, 8),
        (16, 1024, 1, 8),
        (16, 768, 1, 4),  # 96 episodes each would be too few for 8
        (16, 255, 1, 1),
        (8, 1026, 1, 2),  # 4 does not divide it
        (8, 1024, 4, 8),
        (2, 1024, 4, 1),
    ],
)
def test_as_many_cores_as_the_episodes_keep_busy(monkeypatch, cores, batch_size, node_shards, count):
    monkeypatch.setattr("harness.compute.devices._usable_cores", lambda: cores)
    with device_mesh(AUTOMATIC, batch_size, "train.episodes_per_step", node_shards, small_operations=True):
        assert num_shards() == count


def test_large_operations_are_not_spread_over_cores_by_themselves():
    with device_mesh(AUTOMATIC, 1024, "train.episodes_per_step"):
        assert num_shards() == 1


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"coordinator": "host:1"},
        {"coordinator": "host:1", "processes": 2},
        {"processes": 2, "process": 0},
        {"coordinator": "auto", "processes": 2, "process": 0},
        {"coordinator": "host:1", "processes": 2, "process": 2},
    ],
)
def test_settings_of_processes_must_fit_together(settings):
    with pytest.raises(UserError, match=r"devices\.process"):
        read_settings(DevicesConfig, {"count": 0, **settings}, "devices")


def test_several_processes_use_all_their_devices():
    with pytest.raises(UserError, match=r"devices\.count=0"):
        read_settings(DevicesConfig, {"count": 4, "coordinator": "auto"}, "devices")
    assert read_settings(DevicesConfig, {}, "devices") == AUTOMATIC


@pytest.mark.parametrize(
    ("count", "batch_size", "node_shards", "message"),
    [
        (9, 18, 1, "devices.count is 9, there are 8"),
        (8, 20, 1, r"train.episodes_per_step is 20.*\n.*24"),
        (4, 16, 3, "head_shards is 3"),
    ],
)
def test_numbers_that_do_not_divide_are_refused(count, batch_size, node_shards, message):
    with pytest.raises(UserError, match=message), mesh_of(count, node_shards, batch_size):
        pass


def test_zero_means_all_devices():
    with mesh_of(0):
        assert num_shards() == 8
    with mesh_of(1):
        assert num_shards() == 1


def test_one_process_agrees_with_itself(tmp_path):
    assert is_first_process()
    assert agreed(15) == 15
    assert agreed_path(tmp_path) == tmp_path


# --- Layout ----------------------------------------------------------------------------------------------------------


def test_episodes_are_spread_and_results_are_everywhere():
    with mesh_of(8):
        spread = jax.jit(over_episodes)(jnp.arange(32.0).reshape(16, 2))
        assert {shard.data.shape for shard in spread.addressable_shards} == {(2, 2)}
        second = jax.jit(lambda array: over_episodes(array, 1))(jnp.zeros((3, 16)))
        assert {shard.data.shape for shard in second.addressable_shards} == {(3, 2)}
        uneven = jax.jit(over_episodes)(jnp.arange(9.0))
        np.testing.assert_array_equal(uneven, np.arange(9.0))
        everywhere = jax.jit(on_every_device)(spread)
        assert {shard.data.shape for shard in everywhere.addressable_shards} == {(16, 2)}


def test_nodes_are_spread_over_their_axis_only():
    with mesh_of(8, 4):
        placed = jax.jit(lambda tree: place(tree, {"heads": PartitionSpec(NODES), "rest": EVERYWHERE}))(
            {"heads": jnp.zeros((12, 3)), "rest": jnp.zeros(5)}
        )
        assert {shard.data.shape for shard in placed["heads"].addressable_shards} == {(3, 3)}
        assert {shard.data.shape for shard in placed["rest"].addressable_shards} == {(5,)}


def test_without_a_mesh_everything_stays_as_it_is():
    array = jnp.arange(3.0)
    assert over_episodes(array) is array
    assert on_every_device(array) is array
    assert place(array, EVERYWHERE) is array
    assert mean_over_devices(array) is array
    assert per_device(jnp.sin, EVERYWHERE, EVERYWHERE, 8) is jnp.sin


@pytest.mark.parametrize("node_shards", [1, 2, 8])
def test_gradients_of_many_devices_are_those_of_one(node_shards):
    """`own` as a learner writes it: each device's loss is the mean over its own episodes."""
    inputs, weights = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32), jnp.ones(3)

    def gradient(weights, inputs):
        def own(weights, inputs):
            found = jax.grad(lambda weights: jnp.mean(jnp.tanh(inputs @ weights)))(weights)
            return mean_over_devices(found)

        return per_device(own, (EVERYWHERE, PartitionSpec(EPISODES)), EVERYWHERE, 16)(weights, inputs)

    single = jax.jit(gradient)(weights, inputs)
    with mesh_of(8, node_shards):
        np.testing.assert_allclose(jax.jit(gradient)(weights, inputs), single, rtol=1e-6)


# --- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "node_shards"), [(8, 1), (8, 8), (4, 2)])
def test_runs_on_many_devices_equal_runs_on_one(tmp_path, count, node_shards):
    alone = train(tmp_path / "alone")
    with mesh_of(count, node_shards):
        together = train(tmp_path / "together")
        size = 8 // node_shards
        assert {shard.data.shape for shard in together["wide"].addressable_shards} == {(size,)}
    np.testing.assert_allclose(together["wide"], alone["wide"], rtol=1e-5)


def test_a_run_may_go_on_with_other_devices(tmp_path):
    whole = train(tmp_path / "whole")
    with mesh_of(8, 4):
        train(tmp_path / "parts", steps=2)
    resumed = train(tmp_path / "parts")
    np.testing.assert_allclose(resumed["wide"], whole["wide"], rtol=1e-5)
    with mesh_of(2):
        again = train(tmp_path / "parts", steps=6)
    np.testing.assert_allclose(again["wide"], train(tmp_path / "whole", steps=6)["wide"], rtol=1e-5)
    assert Checkpoints(tmp_path / "parts" / "checkpoints").steps == [2, 4, 6]


def test_axes_are_named_as_the_layouts_say():
    with mesh_of(8, 2):
        mesh = jax.sharding.get_abstract_mesh()
        assert dict(mesh.shape) == {DATA: 4, NODES: 2}

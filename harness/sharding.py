"""Many devices: how the episodes of a batch are spread over them.

A mesh of devices with the axes `data` and `nodes` is the ambient one of JAX (`harness.devices` sets it up). Without it,
or on a mesh of one device, every function here leaves things as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, PartitionSpec

DATA, NODES = "data", "nodes"
EPISODES = (DATA, NODES)  # a batch of episodes is spread over all devices
EVERYWHERE = PartitionSpec()  # a copy on every device
Result = TypeVar("Result")


def num_shards() -> int:
    """Returns over how many devices a batch is spread: 1 without a mesh, and within one device's part of the work."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size if mesh.axis_types and AxisType.Manual not in mesh.axis_types else 1


def parts_here(axis: str) -> int:
    """Returns over how many devices an axis is spread, within one device's part of the work; 1 outside of it."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[axis] if AxisType.Manual in mesh.axis_types else 1


def over_episodes(tree: Any, axis: int = 0) -> Any:
    """Spreads arrays over the devices along the given axis, that of the batch.

    Arrays that do not divide evenly are left to the compiler.
    """
    return _constrain(tree, PartitionSpec(*[None] * axis, EPISODES), axis)


def on_every_device(tree: Any) -> Any:
    """Puts a copy of arrays on every device, and of every process."""
    return _constrain(tree, EVERYWHERE, None)


def per_device(
    function: Callable[..., Result], in_specs: Any, out_specs: Any, batch_size: int
) -> Callable[..., Result]:
    """Returns the function as every device calls it on its part of the arguments, without a look at the others'.

    Args:
        function: Pure.
        in_specs: How the arguments are spread, as for `jax.shard_map`.
        out_specs: How the results are.
        batch_size: Of the axis that is spread; if it does not divide evenly the function stays as it is.
    """
    if num_shards() == 1 or batch_size % num_shards():
        return function
    # Gradients are taken and averaged within; checking would make JAX add them up across devices on its own.
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def mean_over_devices(tree: Any, spec_of: Any = None) -> Any:
    """Averages arrays over devices; within `per_device`.

    Args:
        tree: Each device's own arrays; gradients, for instance.
        spec_of: How they are spread, a prefix of the tree. What is spread over `nodes` and has already been added up
            along that axis (as the gradient of spread parameters has) is averaged all the same.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Manual not in mesh.axis_types:
        return tree

    def mean(spec: PartitionSpec, leaf: jax.Array) -> jax.Array:
        axes = tuple(axis for axis in EPISODES if axis not in spec)
        return jax.lax.psum(leaf, axes) / mesh.size

    if spec_of is None:
        return jax.lax.pmean(tree, EPISODES)
    return jax.tree.map(mean, spec_of, tree, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def _constrain(tree: Any, spec: PartitionSpec, axis: int | None) -> Any:
    shards = num_shards()
    if shards == 1:
        return tree
    return jax.tree.map(
        lambda leaf: (
            leaf if axis is not None and leaf.shape[axis] % shards else jax.lax.with_sharding_constraint(leaf, spec)
        ),
        tree,
    )

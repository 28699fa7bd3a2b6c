"""Many devices: how the episodes of a batch are sharded.

`harness.compute.devices` sets JAX's ambient mesh, with the axes `data` and `nodes`. Without a mesh, or on a mesh of one
device, the functions here do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, PartitionSpec

DATA, NODES = "data", "nodes"
EPISODES = (DATA, NODES)  # a batch of episodes is sharded over all devices
EVERYWHERE = PartitionSpec()  # a copy on every device
Result = TypeVar("Result")


def num_shards() -> int:
    """Returns the number of devices that a batch is sharded over: 1 without a mesh or inside `per_device`."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size if mesh.axis_types and AxisType.Manual not in mesh.axis_types else 1


def parts_here(axis: str) -> int:
    """Returns the size of a mesh axis inside `per_device`; 1 outside of it."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[axis] if AxisType.Manual in mesh.axis_types else 1


def over_episodes(tree: Any, axis: int = 0) -> Any:
    """Shards arrays over the devices along their batch axis.

    Arrays that do not divide evenly are left to the compiler.
    """
    return _constrain(tree, PartitionSpec(*[None] * axis, EPISODES), axis)


def on_every_device(tree: Any) -> Any:
    """Replicates arrays on every device of every process."""
    return _constrain(tree, EVERYWHERE, None)


def per_device(
    function: Callable[..., Result], in_specs: Any, out_specs: Any, batch_size: int
) -> Callable[..., Result]:
    """Returns the function mapped over devices (`jax.shard_map`): each calls it on its own shard of the arguments.

    Args:
        function: A pure function.
        in_specs: How the arguments are sharded, as for `jax.shard_map`.
        out_specs: How the results are sharded.
        batch_size: Size of the sharded axis; if it does not divide evenly, the function is returned unchanged.
    """
    if num_shards() == 1 or batch_size % num_shards():
        return function
    # Gradients are taken and averaged inside; with check_vma JAX would also sum them over devices.
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def mean_over_devices(tree: Any, spec_of: Any = None) -> Any:
    """Averages arrays over devices, inside `per_device`.

    Args:
        tree: The local arrays of each device, such as gradients.
        spec_of: How they are sharded, a prefix of the tree. Arrays sharded over `nodes` that were already summed along
            that axis (as gradients of sharded parameters are) are averaged as well.
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


def share_of_mean(tree: Any) -> Any:
    """Returns what one device adds to the mean over devices, inside `per_device`."""
    devices = parts_here(DATA) * parts_here(NODES)
    return tree if devices == 1 else jax.tree.map(lambda leaf: leaf / devices, tree)


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

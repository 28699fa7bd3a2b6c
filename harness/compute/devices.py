"""Which devices a run uses: one, several on this machine, or those of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding

from harness.compute.sharding import DATA, NODES, num_shards
from harness.errors import UserError
from harness.settings import Count, CountOrZero

DETECT = "auto"
"""The coordinator that the scheduler names."""
_MOST_CORES = 8
_EPISODES_PER_CORE = 128  # fewer do not keep a core busy


@dataclass(frozen=True)
class DevicesConfig:
    """Where a run computes (`devices` in `conf/training.yaml`); this changes its speed, not its results.

    Attributes:
        count: Number of devices that share the episodes of each step; 0: all. None: one, or, for many small operations
            on a CPU, as many of its cores as the episodes keep busy, each as a separate device.
        coordinator: None for a single process. For several, HOST:PORT of the first, or "auto" to ask the scheduler
            (Slurm, Open MPI and others that JAX knows).
        processes: Number of processes; only with HOST:PORT.
        process: Index of this process, from 0; only with HOST:PORT.
    """

    count: CountOrZero | None = None
    coordinator: str | None = None
    processes: Count | None = None
    process: CountOrZero | None = None

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        explicit = self.coordinator not in (None, DETECT)
        if explicit != (self.processes is not None) or explicit != (self.process is not None):
            raise UserError(
                f"devices.coordinator is {self.coordinator}, devices.processes {self.processes}, devices.process "
                f"{self.process}",
                do="Several processes need all three: HOST:PORT of process 0, their number, and this one's; or "
                f"devices.coordinator={DETECT} alone.",
            )
        if self.processes is not None and self.process is not None and self.process >= self.processes:
            raise UserError(
                f"devices.process is {self.process}, devices.processes {self.processes}",
                do=f"Processes are numbered from 0 to {self.processes - 1}.",
            )
        if self.coordinator is not None and self.count != 0:
            raise UserError(
                f"devices.count is {self.count} with several processes", do="Use devices.count=0: all of their devices."
            )


AUTOMATIC = DevicesConfig()


def cores_as_devices(config: DevicesConfig) -> None:
    """Makes JAX see the cores of a CPU as devices; call it before anything is computed.

    Many small operations in sequence keep only one core busy, whereas each core can play a part of the episodes. If
    the number is already set (`XLA_FLAGS=--xla_force_host_platform_device_count`) or JAX is already running, nothing
    changes.
    """
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if told or config.count == 0 or getattr(jax.config, "jax_num_cpu_devices", -1) >= 0:
        return
    with suppress(RuntimeError):  # JAX is already running in this process
        jax.config.update("jax_num_cpu_devices", config.count or min(_usable_cores(), _MOST_CORES))


@contextmanager
def device_mesh(
    config: DevicesConfig, batch_size: int, batch_key: str, node_shards: int = 1, small_operations: bool = False
) -> Iterator[None]:
    """Distributes the computation in the block over the devices of a run (see `harness.compute.sharding`).

    Args:
        config: The devices to use.
        batch_size: Number of episodes to distribute.
        batch_key: The setting that determines `batch_size`, for messages.
        node_shards: Number of devices that hold different nodes of the tree.
        small_operations: Whether every operation is too small for all cores of a CPU. (Scoring every item is not, and
            is slower when split over cores.)

    Raises:
        UserError: Too few devices, or numbers that do not divide.
    """
    # How many devices?
    available = len(jax.devices())
    if config.count is None:
        count = _automatic_count(batch_size, node_shards) if small_operations else 1
    else:
        count = config.count or available
    if count > available:
        raise UserError(
            f"devices.count is {count}, there are {available} ({jax.devices()[0].platform})",
            do="Use 0 for all, or null. On CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N.",
        )
    if batch_size % count:
        raise UserError(
            f"{batch_key} is {batch_size}, not a multiple of the {count} devices",
            do=f"Use for instance {-(-batch_size // count) * count}, or another devices.count.",
        )
    if count == 1:
        yield
        return
    if count % node_shards:
        raise UserError(
            f"agent.policy.head_shards is {node_shards}, which does not divide the {count} devices",
            do="Choose devices.count as a multiple of it (or 1).",
        )

    # Their mesh.
    devices = np.asarray(jax.devices()[:count]).reshape(count // node_shards, node_shards)
    with jax.set_mesh(jax.sharding.Mesh(devices, (DATA, NODES), axis_types=(AxisType.Auto, AxisType.Auto))):
        yield


def describe_devices() -> str:
    """Returns the devices that share the work, as in "2 x cpu"."""
    kind = jax.devices()[0].device_kind
    return f"{num_shards()} x {kind}" if num_shards() > 1 else kind


def _automatic_count(batch_size: int, node_shards: int) -> int:
    if jax.devices()[0].platform != "cpu":
        return 1
    most = min(_usable_cores(), _MOST_CORES, len(jax.devices()), batch_size // _EPISODES_PER_CORE)
    powers = [2**power for power in range(1, max(1, most).bit_length())]
    return max((count for count in powers if batch_size % count == 0 and count % node_shards == 0), default=1)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(tree: Any, layout: Any) -> Any:
    """Distributes arrays over the ambient mesh, inside a compiled function; without a mesh they are unchanged.

    Args:
        tree: A pytree of arrays.
        layout: A `PartitionSpec` per array, or a prefix of the tree.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, jax.tree.map(lambda spec: NamedSharding(mesh, spec), layout))

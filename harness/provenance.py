"""What a run was made from, so that every number can be traced."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from sim.ratings import RatingData

_PACKAGES = (
    "tpgr-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "scikit-learn",
    "hydra-core",
)


def describe_data(data: RatingData, split_seed: int) -> dict[str, Any]:
    """Returns the data set's name, source, checksum, sizes, whether it is synthetic, and the split seed."""
    return {
        "name": data.name,
        "synthetic": data.synthetic,
        "checksum": data.checksum,
        "users": data.num_users,
        "items": data.num_items,
        "ratings": data.num_ratings,
        "split_seed": split_seed,
    }


def describe_environment() -> dict[str, Any]:
    """Returns versions, device and git commit of this process."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout that the code runs from; None when it is an installed copy."""
    source = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", str(Path(__file__).resolve())):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None

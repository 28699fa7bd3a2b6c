"""What a run was made from, so that every number can be traced."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from harness.compute.vector_width import vector_width
from harness.errors import UserError
from harness.runs.run_folder import RunFolder, read_arrays, read_json, write_arrays, write_json

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
        "vector_width": vector_width() if devices[0].platform == "cpu" else None,
        "git": _git(),
    }


class Origin(NamedTuple):
    """What a run is made from: data, and their split.

    Attributes:
        data: Description of the data: name, synthetic, checksum of the source, `table` (hash of the table as built),
            users, items and more.
        source: Where they came from.
        ids: Original ids and the split (`ids.npz`).
        held_out: Name of the held-out ids among them.
        split_settings: The settings that decide these, for messages.
        prepared: File in the run folder that is made before training begins.
    """

    data: dict[str, Any]
    source: str
    ids: dict[str, np.ndarray]
    held_out: str
    split_settings: str
    prepared: str

    def record(self, folder: RunFolder) -> None:
        """Records in a new run folder what it is made from: ids and split, data, versions, device, git commit.

        Raises:
            UserError: The folder cannot be written, or its record is missing although training has begun.
        """
        if folder.checkpoints.exists() or (folder.path / self.prepared).exists():
            raise UserError("is missing", where=str(folder.provenance), do="Restore the file, or start a new run.")
        write_arrays(folder.ids, self.ids)
        # Written last: if it exists, so do the others.
        write_json(folder.provenance, {"data": self.data, **describe_environment(), "resumed": []})

    def check(self, folder: RunFolder) -> dict[str, Any]:
        """Checks that data and split are those that the run was trained on, and returns the run's record.

        Raises:
            UserError: Another data set, another version or split of it, or a missing or damaged record.
        """
        record = read_json(folder.provenance)
        recorded = record.get("data") if isinstance(record, dict) else None
        if not isinstance(recorded, dict) or not {"name", "checksum", "items", "users"} <= recorded.keys():
            raise UserError("does not describe a run's data", where=str(folder.provenance), do="Restore the file.")
        if any(recorded[key] != self.data[key] for key in ("checksum", "items", "users")):
            raise UserError(
                f"the run was trained on {_brief(recorded)}, found {_brief(self.data)} in {self.source}",
                where=str(folder.path),
                do="Provide the same data, or train again on these.",
            )
        # Runs of earlier commits did not record the hash.
        if recorded.get("table", self.data["table"]) != self.data["table"]:
            raise UserError(
                f"the run was trained on another table than is now built from {self.source}: its hash is "
                f"{recorded['table'][:19]}... in run.json, now it is {self.data['table'][:19]}...",
                where=str(folder.path),
                do="Restore config.yaml (data.*), or use the commit named in run.json.",
            )
        name = self.held_out
        if not np.array_equal(read_arrays(folder.ids, (name,))[name], self.ids[name]):
            raise UserError(
                f"the run's {name.replace('_', ' ')} are not those of this split, so it may have been trained on some "
                "of them",
                where=str(folder.ids),
                do=f"Restore config.yaml ({self.split_settings}) and the NumPy version named in run.json.",
            )
        return record


def record_versions(folder: RunFolder, data: dict[str, Any]) -> None:
    """Writes the description of the data and of this process into a folder without a record."""
    if not folder.provenance.exists():
        write_json(folder.provenance, {"data": data, **describe_environment()})


def record_resumption(folder: RunFolder, record: dict[str, Any]) -> None:
    """Adds this process to the run's record."""
    history = [*record.get("resumed", []), describe_environment()]
    write_json(folder.provenance, {**record, "resumed": history})


def add_to_record(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Adds facts to the run's record."""
    write_json(folder.provenance, {**read_json(folder.provenance), **facts})


def record_seconds(folder: RunFolder, seconds: dict[str, float]) -> None:
    """Adds the seconds per phase (`harness.phases`) to the newest process in the run's record."""
    record = read_json(folder.provenance)
    if record.get("resumed"):
        record["resumed"][-1]["seconds"] = seconds
    else:
        record["seconds"] = seconds
    write_json(folder.provenance, record)


def _brief(data: dict[str, Any]) -> str:
    return f"{data['name']} ({data['users']:,} users, {data['items']:,} items, {str(data['checksum'])[:19]}...)"


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

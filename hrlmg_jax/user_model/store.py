"""Fits the user-feedback simulator to a log, says how good it is, and keeps it (Section 4.1)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.reports.plots import plot_reliability
from harness.reports.tables import kind_of
from harness.runs import provenance
from harness.runs.run_folder import RunFolder, make_folder, read_arrays, read_json, write_arrays, write_json
from hrlmg_jax.earlier_run import EarlierRun
from hrlmg_jax.sessions import describe_log
from hrlmg_jax.user_model.item_embedding import embed_items
from hrlmg_jax.user_model.kinds import make_user_model, training_model
from hrlmg_jax.user_model.quality import _SHOWN, PARTS, report_on
from hrlmg_jax.user_model.settings import FitConfig, SimulatorConfig
from hrlmg_jax.user_model.user_model import UserModel
from sim.datasets.sessions import SessionData

FILE = "simulator.npz"
REPORT = "simulator.json"
SECOND = "second_"
"""Begins the names of both in a run folder, of users of a second kind."""
VERSIONS = {"paper": 2, "latent": 7}
"""Of the fit, by kind: increment one when those users are learned otherwise, and fits that are kept are made anew."""
_WITHOUT_EFFECT = ("root", "trial_sessions", "pessimism")
"""Settings that change no fit."""


@dataclass(frozen=True)
class Simulator:
    """A learned user.

    Attributes:
        model: Of which kind it is.
        params: What was learned, the item `embedding` included.
        report: How good it is.
        training_model: The same for agents to train with, who may be paid less (`simulator.pessimism`); None: `model`.
    """

    model: UserModel
    params: Any
    report: dict[str, Any]
    training_model: UserModel | None = None


def simulator_folder(config: FitConfig, data: SessionData, earlier: EarlierRun | None = None) -> RunFolder:
    """Returns where the simulator of these settings and this log is kept."""
    settings = dataclasses.asdict(config.simulator)
    decisive = {
        "table": data.log.table_hash,
        "history_length": config.env.history_length,
        "simulator": {key: value for key, value in settings.items() if key not in _WITHOUT_EFFECT},
    }
    if settings["name"] in VERSIONS:
        decisive["version"] = VERSIONS[settings["name"]]
    if earlier is not None:
        decisive["earlier_run"] = earlier.checksum
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:10]
    return RunFolder(Path(config.simulator.root).expanduser() / f"{data.log.name}-{key}")


def obtain_simulator(
    config: FitConfig,
    values: dict[str, Any],
    data: SessionData,
    copy_to: RunFolder | None = None,
    earlier: EarlierRun | None = None,
    prefix: str = "",
) -> Simulator:
    """Returns the simulator of these settings: the one that is kept, or else it is fitted (or its fit continued) now.

    Args:
        config: Settings.
        values: The same as plain values, for the folder's record.
        copy_to: A run folder that shall hold a copy, so that the run does not need the original any more.
        earlier: The run that training starts from; the item vectors are turned towards its own.
        prefix: Of the names of the copy's files.

    Raises:
        UserError: The folder is damaged or cannot be written.
    """
    folder = simulator_folder(config, data, earlier)
    if not (folder.path / REPORT).exists():
        if jax.process_count() > 1:
            raise UserError(
                "the simulator has not been fitted yet",
                where=str(folder.path),
                do="Fit it in a single process first: python -m hrlmg_jax.fit_simulator with the same data, env and "
                "simulator settings.",
            )
        make_folder(folder.path)
        with folder.locked(wait=True):
            if not (folder.path / REPORT).exists():  # else another process has been quicker
                print(f"fitting the user-feedback simulator in {folder.path}", file=sys.stderr)
                _fit_in_folder(config, values, data, folder, earlier)
    simulator = load_simulator(config.simulator, folder, data)
    if copy_to is not None:
        write_json(copy_to.path / f"{prefix}{REPORT}", simulator.report)
        arrays = read_arrays(folder.path / FILE, None)
        write_arrays(copy_to.path / f"{prefix}{FILE}", arrays)  # last: its presence counts
    return simulator


def _fit_in_folder(
    config: FitConfig, values: dict[str, Any], data: SessionData, folder: RunFolder, earlier: EarlierRun | None
) -> None:
    if not folder.config.exists():
        folder.write_config(values)
    provenance.record_versions(folder, describe_log(data))
    embedding = embed_items(config.simulator.embedding, data.log, data.rows("train"), config.simulator.seed)
    if earlier is not None:
        embedding = earlier.turned(config.simulator.embedding, embedding)
    model = make_user_model(config.simulator)
    params = model.fit(config, data, embedding, folder)
    report = report_on(model, params, data, config.env.history_length, config.simulator.trial_sessions)
    flat = {key: np.asarray(value) for key, value in _flat(params).items()}
    write_arrays(folder.path / FILE, {"item_ids": np.asarray(data.log.item_ids), **flat})
    curves = {
        f"{name}, {part}": report[part][name]["reliability"] for part in PARTS if part in report for name in _SHOWN
    }
    title = f"simulator of {data.log.name}{kind_of(report['data'])}"
    plot_reliability(folder.path / "simulator.png", curves, title)
    # Last, because its presence says that the simulator is complete.
    write_json(folder.path / REPORT, report)


def load_simulator(config: SimulatorConfig, folder: RunFolder, data: SessionData, prefix: str = "") -> Simulator:
    """Reads a simulator from a folder (of its fit, or of a run that used it) where its files' names have a prefix.

    Raises:
        UserError: Files missing or damaged, or of other items or sizes.
    """
    model = make_user_model(config)
    shapes = model.shapes(data.log.num_items, config.embedding.size)
    expected = {name: tuple(shape.shape) for name, shape in _flat(shapes).items()}
    path = folder.path / f"{prefix}{FILE}"
    arrays = read_arrays(path, ("item_ids", *expected))
    report = read_json(folder.path / f"{prefix}{REPORT}")
    same_log = report.get("data", {}).get("table") == data.log.table_hash
    same_shapes = {name: arrays[name].shape for name in expected} == expected
    if not same_log or not same_shapes or not np.array_equal(arrays["item_ids"], data.log.item_ids):
        raise UserError(
            "was fitted to another log or with other settings",
            where=str(path),
            do="Restore the file, or fit again elsewhere.",
        )
    params = jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(arrays[name]) for name in expected])
    return Simulator(model, params, report, training_model(config))


def _flat(params: Any) -> dict[str, Any]:
    """Returns the arrays of parameters by the path of their fields, in the order of the leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

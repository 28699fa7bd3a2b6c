"""HRL-MG in JAX: hierarchical reinforcement learning with multiple goals for clicks and orders (Zhao et al., 2019).

A recommender plays sessions with simulated users, who were learned from an event log: it recommends an item, and the
user skips, clicks or orders. A high level sets several goals for the next steps; a low level recommends items and is
rewarded by the users and for approaching the goals. Both are actor-critics.

First steps:

    hrl-mg train                       a run on the synthetic log
    hrl-mg train +experiment=jdata     a run on JData
    hrl-mg report runs                 what each run is and what it reached

Main functions and modules:

    hrlmg_jax.problem.make_problem   log, learned users and simulator from a configuration
    hrlmg_jax.load                   a trained run as a recommender
    hrlmg_jax.registry.build_method  an agent for a problem; AGENTS names all agents
    hrlmg_jax.agent                  networks, goals, learner, replay windows
    hrlmg_jax.user_model             users learned from a log
    hrlmg_jax.evaluation             online and offline test, and who takes part in them
"""

from __future__ import annotations

import os
import sys

if sys.argv[:1] == ["-m"]:  # `python -m`, whose first path is the working folder: whatever lies there, these are ours
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from harness.commands.start import begin_command

    begin_command()

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.recommend.recommender import Recommender

try:
    __version__ = version("tpgr-jax")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "not installed"


def __getattr__(name: str) -> Any:
    """Imports what `hrlmg_jax.train(...)` needs when it is asked for, which takes seconds."""
    if name == "train":
        return importlib.import_module("hrlmg_jax.train")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    run: str | os.PathLike[str],
    checkpoint: int | None = None,
    actors: str = "best",
    data_root: str | None = None,
    data_cache: str | None = None,
    data_path: str | None = None,
) -> Recommender:
    """Returns a trained run as a recommender: `load(run).recommend([user, ...])`.

    Args:
        run: The run folder.
        checkpoint: Step of the checkpoint; None: the newest.
        actors: Of the checkpoint: "best" (on held-out users until then) or "last".
        data_root: Folder of data sets, where it is no longer the one of the run.
        data_cache: Folder of parsed tables, likewise.
        data_path: File of the data, likewise.

    Raises:
        UserError: No run folder, or a damaged one; data missing, or not those of the run.
    """
    from harness.settings import read_settings
    from hrlmg_jax.recommender import StoredSessionRun, load

    settings = {"run": str(run), "checkpoint": checkpoint, "actors": actors}
    settings |= {"data_root": data_root, "data_cache": data_cache, "data_path": data_path}
    return load(read_settings(StoredSessionRun, settings))

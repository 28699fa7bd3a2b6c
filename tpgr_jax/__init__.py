"""TPGR in JAX: recommendation with a tree-structured policy trained by policy gradients (Chen et al., AAAI 2019).

A recommender plays episodes with simulated users: it recommends an item, the user rates it, and the next item is chosen
from the answers so far. TPGR arranges all items in a balanced tree with a small policy network at every inner node, so
that a decision takes time in the depth of the tree and not in the number of items.

First steps:

    tpgr train                          a run on synthetic ratings
    tpgr train +experiment=movielens    a run on MovieLens-1M
    tpgr report runs                    what each run is and what it reached

Main functions and modules:

    tpgr_jax.problem.make_problem       ratings, split and simulator from a configuration
    tpgr_jax.registry.build_method      an agent for a problem; AGENTS names all agents
    tpgr_jax.load                       a trained run as a recommender
    tpgr_jax.evaluation.evaluate_method the metrics of a trained agent
    tpgr_jax.tree, networks, models     the item tree, the policy networks, models of the ratings
    tpgr_jax.agents, baselines          TPGR and TPGR+, and the methods of the comparison
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
    """Imports what `tpgr_jax.train(...)` needs when it is asked for, which takes seconds."""
    if name == "train":
        return importlib.import_module("tpgr_jax.train")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    run: str | os.PathLike[str],
    checkpoint: int | None = None,
    data_root: str | None = None,
    data_cache: str | None = None,
    data_path: str | None = None,
) -> Recommender:
    """Returns a trained run as a recommender: `load(run).recommend([user, ...])`.

    Args:
        run: The run folder.
        checkpoint: Step of the checkpoint; None: the newest.
        data_root: Folder of data sets, where it is no longer the one of the run.
        data_cache: Folder of parsed tables, likewise.
        data_path: File of the data, likewise.

    Raises:
        UserError: No run folder, or a damaged one; data missing, or not those of the run.
    """
    from harness.settings import read_settings
    from tpgr_jax.recommender import StoredRatingRun, load

    settings = {"run": str(run), "checkpoint": checkpoint}
    settings |= {"data_root": data_root, "data_cache": data_cache, "data_path": data_path}
    return load(read_settings(StoredRatingRun, settings))

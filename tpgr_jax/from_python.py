"""What `python -m tpgr_jax.train` does, called from Python: `tpgr_jax.train("ratings.csv", agent="tpgr_plus")`."""

from __future__ import annotations

import os
from typing import Any

import tpgr_jax
from sim.datasets.handed_over import train_on
from sim.recommend.recommender import Recommender


def train(
    ratings: Any = None, agent: str = "tpgr", *, folder: str | os.PathLike[str] | None = None, **settings: Any
) -> Recommender:
    """Trains a method as the command does, and returns what it recommends.

    Args:
        ratings: A path (`data=ratings_file data.path=PATH`), a data frame of polars or pandas, or a mapping of names to
            columns, which the run folder keeps as `ratings.parquet`; None: what `data` names. Columns are called user,
            item and rating, unless `data={"user_column": ...}` says otherwise.
        agent: As `agent=` on the command line.
        folder: Run folder; None: outputs/DAY/TIME.
        settings: Keys of the configuration: `train={"steps": 100}` is train.steps=100, `tree="kmeans"` chooses in a
            group, `experiment="movielens"` is +experiment=movielens; `data={"test_fraction": 0}` learns from everybody.

    Returns:
        `tpgr_jax.load(RUN)` of the run folder, its `source`.

    Raises:
        harness.errors.UserError: A mistake in settings or data; then nothing is left behind.
        KeyboardInterrupt: Ctrl-C; the state is saved if training had begun.
    """
    from tpgr_jax.train import PER_SEED
    from tpgr_jax.train import train as train_runs

    command = "train", "tpgr_jax.train", train_runs
    return tpgr_jax.load(
        train_on(ratings, ("ratings", "ratings_file"), folder, {"agent": agent, **settings}, command, PER_SEED)
    )

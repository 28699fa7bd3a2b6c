"""What `python -m hrlmg_jax.train` does, called from Python: `hrlmg_jax.train("events.csv", agent="ddpg")`."""

from __future__ import annotations

import os
from typing import Any

import hrlmg_jax
from sim.datasets.handed_over import train_on
from sim.recommend.recommender import Recommender


def train(
    events: Any = None, agent: str = "hrl_mg", *, folder: str | os.PathLike[str] | None = None, **settings: Any
) -> Recommender:
    """Trains an agent as the command does, and returns what it recommends.

    Args:
        events: A path (`data=events_csv data.path=PATH`), a data frame of polars or pandas, or a mapping of names to
            columns, which the run folder keeps as `events.parquet`; None: what `data` names. Columns are called user,
            item, time and event, unless `data={"user_column": ...}` says otherwise.
        agent: As `agent=` on the command line.
        folder: Run folder; None: outputs/DAY/TIME.
        settings: Keys of the configuration: `train={"steps": 100}` is train.steps=100, `retrieval="hash"` chooses in a
            group, `experiment="hierarchy"` is +experiment=hierarchy; `data={"split": "none"}` learns from everything.

    Returns:
        `hrlmg_jax.load(RUN)` of the run folder, its `source`.

    Raises:
        harness.errors.UserError: A mistake in settings or data; then nothing is left behind.
        KeyboardInterrupt: Ctrl-C; the state is saved if training had begun.
    """
    from hrlmg_jax.train import train as train_runs

    command = "train_hrl_mg", "hrlmg_jax.train", train_runs
    return hrlmg_jax.load(train_on(events, ("events", "events_csv"), folder, {"agent": agent, **settings}, command))

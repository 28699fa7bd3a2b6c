"""Comparisons over several generated worlds: whoever generates again gets another world, so that it is the unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.errors import UserError
from harness.reports.method_results import SPLITS, MethodResult
from harness.reports.system_results import Collected, RunsConfig
from harness.runs.index import RunRecord

WORLD = "data.seed"
SAME_IN_ALL_WORLDS = ("data.reader", "data.size", "data.num_users", "data.num_items", "data.shop", "data.world")
_GENERATED = "synthetic_funnel"


@dataclass(frozen=True, kw_only=True)
class WorldsConfig(RunsConfig):
    """Which runs a report shows, and whether they may be of several worlds (`conf/report/of_session_runs.yaml`)."""

    several_worlds: bool = False


@dataclass(frozen=True)
class WorldResult(MethodResult):
    """What a method reached in several worlds: one value per metric and world, a mean over sessions and seeds.

    Attributes:
        worlds: The worlds in the order of the values.
        sessions: Number of test sessions in all of them.
    """

    worlds: Sequence[int] = ()
    sessions: int = 0


def check_worlds(runs: Sequence[RunRecord], several: bool) -> None:
    """Checks that the runs of a report are of one world, or if several may be, of generated worlds.

    Raises:
        UserError: They are not.
    """
    if several:
        if real := [run for run in runs if run.settings.get("data.reader") != _GENERATED]:
            raise UserError(
                f"several_worlds=true counts generated worlds, and {real[0].data_name} is one log",
                where=str(real[0].folder.path),
                do="Leave it out, or choose runs on generated logs with runs=FOLDER,FOLDER or data_name=NAME.",
            )
        return
    of_world = {run.settings.get(WORLD): run for run in runs if run.settings.get("data.reader") == _GENERATED}
    if len(of_world) > 1:
        named = [f"{WORLD}={world} in {run.folder.path}" for world, run in sorted(of_world.items())]
        raise UserError(
            f"the runs are of {len(of_world)} generated worlds ({', '.join(named[:2])}), which cannot be mixed",
            do="Let worlds be the units of intervals and tests with several_worlds=true, or choose the runs of one "
            "world with runs=FOLDER,FOLDER.",
        )


def over_worlds(collected: Collected, runs: Sequence[RunRecord]) -> Collected:
    """Returns results with worlds as episodes: the mean of each world first, then that over worlds."""
    world_of = {str(run.folder.path): int(run.settings[WORLD]) for run in runs}
    return collected._replace(
        results=[_of_worlds(result, world_of) for result in collected.results],
        baselines=[_of_worlds(result, world_of) for result in collected.baselines],
    )


def _of_worlds(result: MethodResult, world_of: Mapping[str, int]) -> WorldResult:
    assert result.beside is not None
    assert result.splits is not None
    # The long table with a row per world instead of per run.
    beside = result.beside.with_columns(
        run=pl.col("run").replace_strict(world_of, return_dtype=pl.Int64), value=pl.col("values").list.mean()
    )
    by_world = beside.group_by("run", "split", "is_method", "policy", "metric", maintain_order=True)
    means = by_world.agg(values=pl.col("value").mean()).with_columns(values=pl.concat_list("values")).sort("split")
    worlds = dict(zip(means["split"], means["run"], strict=True))
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(MethodResult)}
    fields |= {
        "values": {metric: result.values_of(metric, SPLITS)[None] for metric in result.values},
        "beside": means,
        "splits": np.unique(result.splits),
    }
    return WorldResult(
        **fields,
        worlds=[worlds[split] for split in np.unique(result.splits).tolist()],
        sessions=len(result.splits),
    )


def several_worlds(results: Sequence[MethodResult]) -> bool:
    """Says whether results are of several worlds."""
    return any(isinstance(result, WorldResult) for result in results)

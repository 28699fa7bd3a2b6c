"""What the readings of runs at a budget of training cost, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.errors import UserError
from harness.reports.method_results import MethodResult
from harness.runs.index import RunRecord
from harness.runs.run_folder import read_json
from tpgr_jax.budgets import reading_of

_NEARLY = 0.9  # of a budget: the last chunk of a run may not fit

SPENT = {"episodes": "episodes", "seconds": "seconds", "candidates": "chosen among states"}
"""What the training of a state costs: keys of a reading, and columns."""


class Reading(NamedTuple):
    """What a run's reading at a budget cost, and might cost.

    Attributes:
        name: `episodes` or `seconds`.
        limit: How many.
        selected: Whether selection users chose the state, or it is the last one.
        episodes: That the state cost.
        seconds: Likewise.
        reached: How many episodes, or seconds, training came to in all.
        candidates: Among how many states it was chosen; 0: nothing was trained, or an earlier commit did not record it.
    """

    name: str
    limit: float
    selected: bool
    episodes: float
    seconds: float
    reached: float
    candidates: int = 0


def reading(run: RunRecord, budget: str) -> Reading:
    """Returns what a run's reading at a budget cost.

    Raises:
        UserError: The file is damaged.
    """
    path = run.folder.path / f"{reading_of(budget)}.json"
    try:
        return Reading(**read_json(path)["budget"])
    except (KeyError, TypeError):
        raise UserError("describes no budget", where=str(path), do="Evaluate the run again.") from None


def describe_budget(results: Sequence[MethodResult], budget: str) -> str:
    """Says what every method might cost, and which of its states counts.

    Raises:
        UserError: Runs had different budgets.
    """
    readings = {run.folder.path: reading(run, budget) for result in results for run in result.runs}
    firsts = {(one.limit, one.selected): path for path, one in readings.items()}
    if len(firsts) > 1:
        (one, first), (other, second) = list(firsts.items())[:2]
        raise UserError(
            f"the budget is {one[0]:g} {budget} in {first} and {other[0]:g} in {second}, or only one of them chose its "
            "state by selection users",
            do="Choose folders with runs=FOLDER,FOLDER.",
        )
    ((limit, selected),) = firsts
    counts = "the best on selection users" if selected else "the last one"
    return f"Each method is read at {limit:,g} {budget} of training: of its states within that, {counts}."


def stopped_early(results: Sequence[MethodResult], budget: str) -> list[str]:
    """Says which runs ended well before their budget was spent."""
    readings = [(run, reading(run, budget)) for result in results for run in result.runs]
    return [
        f"{run.folder.path} stopped at {one.reached:,.0f} of {one.limit:,g} {budget}"
        for run, one in readings
        if one.reached < _NEARLY * one.limit
    ]


def spent(result: MethodResult, budget: str) -> list[str]:
    """Returns what the states that count have cost, means over runs; empty for methods that train nothing."""
    readings = [reading(run, budget) for run in result.runs]
    means = [np.mean([getattr(one, name) for one in readings]) if readings else 0.0 for name in SPENT]
    return [f"{mean:,.0f}" for mean in means] if any(means) else [""] * len(SPENT)


def unequal_choices(results: Sequence[MethodResult], budget: str) -> list[str]:
    """Says so if some methods could choose among more states than others."""
    readings = [(reading(run, budget).candidates, run) for result in results for run in result.runs]
    numbers = sorted(((number, str(run.folder.path)) for number, run in readings if number))
    if not numbers or numbers[0][0] >= _NEARLY * numbers[-1][0]:
        return []
    (fewest, first), *_, (most, last) = numbers
    return [
        f"{first} chose among {fewest} states, {last} among {most}: a choice among more is a better one; train with "
        "train.budgets.evaluations=20"
    ]

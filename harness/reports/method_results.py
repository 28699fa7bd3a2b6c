"""What a method reached with several seeds: means with intervals, and Welch's test between two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.reports.results import Estimate, estimate_over_seeds
from harness.runs.index import RunRecord
from harness.statistics import welch_p_value


class MethodRuns(NamedTuple):
    """Runs that are equal but for their seed.

    Attributes:
        label: The method as tables write it, with `distinction`.
        name: Of the method in its files.
        distinction: Settings, in dots, that tell it from its other variants and that its preset does not have; none
            where it has no variants.
        runs: One or more per seed.
    """

    label: str
    name: str
    distinction: Mapping[str, Any]
    runs: list[RunRecord]


@dataclass(frozen=True)
class MethodResult:
    """What a method, or a baseline that runs were tested beside, reached in one test.

    Attributes:
        label: See `MethodRuns`, as for `name` and `distinction`.
        runs: One per seed; none for a baseline, which is no run of its own.
        values: [S, n] per metric, one value per episode: a row per seed, or a single one where all seeds have the same
            result.
        seed_has_effect: Whether another seed could have led to another result, as far as is known of the method.
        beside: The rows of the long table (`System.read`) that come from its runs, or, for an
            baseline, from the run that it was read from.
    """

    label: str
    name: str
    distinction: Mapping[str, Any]
    runs: Sequence[RunRecord]
    values: Mapping[str, np.ndarray]
    seed_has_effect: bool = True
    beside: pl.DataFrame | None = None

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs, ascending."""
        return [int(run.settings["seed"]) for run in self.runs]

    @property
    def seeds_differ(self) -> bool:
        """Whether different seeds gave different results; False for a single one."""
        return len(next(iter(self.values.values()))) > 1

    @property
    def seedless(self) -> bool:
        """Whether the result is known to be the same with every seed."""
        return not self.seeds_differ and (len(self.runs) != 1 or not self.seed_has_effect)

    @property
    def seeds_text(self) -> str:
        """How many seeds there are, and whether they are all equal; nothing for a baseline."""
        number = len(self.runs)
        return f"{number or ''}{' (equal)' if number > 1 and not self.seeds_differ else ''}"

    def interval_over(self, episodes: str) -> str:
        """Returns what intervals are over: seeds, or episodes, which are called `episodes`."""
        return "seeds" if self.seeds_differ else episodes

    def mean(self, metric: str) -> float:
        """Returns the mean over episodes and seeds."""
        return float(np.mean(self.values[metric]))

    def estimate(self, metric: str) -> Estimate:
        """Returns the mean over episodes and seeds with its interval: over seeds, or episodes if no seed differs."""
        return estimate_over_seeds(self.values[metric])

    def values_beside(self, policy: str, metric: str) -> list[np.ndarray | None]:
        """Returns [n] values of a policy that the runs were tested beside, per run; None where it took no part."""
        if self.beside is None:
            return []
        rows = self.beside.filter(pl.col("policy") == policy, pl.col("metric") == metric)
        values = {run: of_run.to_numpy() for run, of_run in zip(rows["run"], rows["values"], strict=True)}
        return [values.get(run) for run in self.beside["run"].unique(maintain_order=True)]

    def ratios(self, policy: str, metric: str) -> list[float]:
        """Returns the mean of each run in units of a policy's beside it; NaN where that took no part or got nothing."""
        references = [
            0.0 if values is None else float(np.mean(values)) for values in self.values_beside(policy, metric)
        ]
        means = np.broadcast_to(self.values[metric].mean(axis=1), len(references))
        return [
            float(mean) / reference if reference > 0 else float("nan")
            for mean, reference in zip(means, references, strict=True)
        ]


class Difference(NamedTuple):
    """How much higher one method's mean is than another's, and how sure that is.

    Attributes:
        mean: First minus second.
        p_value: Welch's; None where nothing can be tested.
        over_seeds: Whether the test is on the means of seeds, or on the values of episodes.
        numbers: Values tested of the first and the second; 0 for the result of a method without seeds, which is a
            constant to a test over seeds.
        pooled_p_value: On the values of episodes, those of all seeds pooled, where an episode counts once for every
            seed: too small where seeds agree.
    """

    mean: float
    p_value: float | None
    over_seeds: bool
    numbers: tuple[int, int]
    pooled_p_value: float | None


def difference(first: MethodResult, second: MethodResult, metric: str) -> Difference:
    """Compares two methods by Welch's test.

    It is on the means of seeds where both have several: whoever trains again gets another seed, on the same episodes.
    Beside a method without seeds, such as a fixed list, the other's seeds are tested against its constant mean (for
    a variance of 0 Welch's test is Student's test of one sample). It is on episodes where a method has a single seed,
    and where none has any.

    Args:
        first: One result.
        second: The other, on the same episodes.
        metric: A key of `MethodResult.values`.
    """
    # Episodes of all seeds pooled: always possible, never generous enough.
    values = first.values[metric], second.values[metric]
    mean = first.mean(metric) - second.mean(metric)
    pooled = pooled_p_value(first, second, metric)
    # Seeds, where both have several or are known to need none.
    both = first, second
    if any(result.seeds_differ for result in both) and all(result.seeds_differ or result.seedless for result in both):
        means = [rows.mean(axis=1) for rows in values]
        constant = [np.repeat(result, 2) if len(result) == 1 else result for result in means]
        numbers = tuple(len(result) if len(result) > 1 else 0 for result in means)
        return Difference(mean, _p_value(*constant), True, (numbers[0], numbers[1]), pooled)
    return Difference(mean, pooled, False, (values[0].size, values[1].size), pooled)


def pooled_p_value(first: MethodResult, second: MethodResult, metric: str) -> float | None:
    """Returns Welch's p-value on the values of episodes, those of all seeds pooled; None with a single value."""
    return _p_value(first.values[metric].ravel(), second.values[metric].ravel())


def values_of_seeds(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `MethodResult.values` from [S, n] per metric: a single row where all seeds have the same result."""
    all_equal = all((rows == rows[0]).all() for rows in values.values())
    return {metric: rows[:1] if all_equal else rows for metric, rows in values.items()}


def _p_value(first: np.ndarray, second: np.ndarray) -> float | None:
    return welch_p_value(first, second) if min(len(first), len(second)) > 1 else None

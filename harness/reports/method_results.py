"""What a method reached with several seeds: means with intervals over one unit, and tests between two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from harness.reports.results import Estimate, estimate
from harness.runs.index import RunRecord
from harness.statistics import paired_p_value, welch_p_value

Unit = Literal["episodes", "seeds", "splits"]
"""What an interval, or a test, is over. A column of a report has one."""
EPISODES: Unit = "episodes"
SEEDS: Unit = "seeds"
SPLITS: Unit = "splits"


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
        values: [S, n] per metric, one value per episode: a row per seed, NaN where a seed was not tested; or a single
            row where all seeds have the same result.
        seed_has_effect: Whether another seed could have led to another result, as far as is known of the method.
        beside: The rows of the long table (`System.read`) that come from its runs, or, for an
            baseline, from the runs that it was read from.
        splits: [n] the split of each episode, such as a fold (its place among those of the report); None: of one.
    """

    label: str
    name: str
    distinction: Mapping[str, Any]
    runs: Sequence[RunRecord]
    values: Mapping[str, np.ndarray]
    seed_has_effect: bool = True
    beside: pl.DataFrame | None = None
    splits: np.ndarray | None = None

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs, ascending."""
        return sorted({int(run.settings["seed"]) for run in self.runs})

    @property
    def seeds_differ(self) -> bool:
        """Whether different seeds gave different results; False for a single one."""
        return len(next(iter(self.values.values()))) > 1

    @property
    def seedless(self) -> bool:
        """Whether the result is known to be the same with every seed."""
        return not self.seeds_differ and (self.runs_per_split != 1 or not self.seed_has_effect)

    @property
    def runs_per_split(self) -> float:
        """The number of seeds: a mean over splits, should they have unequally many."""
        return len(self.runs) / (1 if self.splits is None else len(np.unique(self.splits)))

    @property
    def seeds_text(self) -> str:
        """How many seeds there are (per split), and whether they are all equal; nothing for a baseline."""
        number = self.runs_per_split
        return f"{number:.3g}{' (equal)' if number > 1 and not self.seeds_differ else ''}" if number else ""

    def values_of(self, metric: str, over: Unit) -> np.ndarray:
        """Returns [n] one value per unit.

        Args:
            metric: A key of `values`.
            over: Of episodes it is the mean over seeds; of seeds, and of splits, that over episodes. Over seeds there
                is a single value, the mean, where no two seeds have another result in all splits.
        """
        episodes: np.ndarray = np.nanmean(self.values[metric], axis=0)
        if over == EPISODES:
            return episodes
        if over == SPLITS and self.splits is not None:
            return np.array([episodes[self.splits == split].mean() for split in np.unique(self.splits)])
        means = self.values[metric].mean(axis=1)
        return means if over == SEEDS and not np.isnan(means).any() else episodes.mean(keepdims=True)

    def mean(self, metric: str) -> float:
        """Returns the mean over episodes and seeds."""
        return float(self.values_of(metric, EPISODES).mean())

    def has_interval(self, metric: str, over: Unit) -> bool:
        """Says whether there are several units, so that an interval over them is more than a point."""
        return len(self.values_of(metric, over)) > 1

    def estimate(self, metric: str, over: Unit) -> Estimate:
        """Returns the mean over episodes and seeds with its interval over units; a point where there is only one."""
        return estimate(self.values_of(metric, over))

    def values_beside(self, policy: str, metric: str) -> list[np.ndarray | None]:
        """Returns [n] values of a policy that the runs were tested beside, per run; None where it took no part."""
        if self.beside is None:
            return []
        rows = self.beside.filter(pl.col("policy") == policy, pl.col("metric") == metric)
        values = {run: of_run.to_numpy() for run, of_run in zip(rows["run"], rows["values"], strict=True)}
        return [values.get(run) for run in self.beside["run"].unique(maintain_order=True)]

    def ratios(self, policy: str, metric: str) -> list[float]:
        """Returns the mean of each run in units of a policy's beside it; NaN where that took no part or got nothing."""
        if self.beside is None:
            return []
        own = self.beside.filter(pl.col("is_method") if self.runs else pl.col("policy") == self.name)
        own = own.filter(pl.col("metric") == metric)
        means = dict(zip(own["run"], own["values"].list.mean(), strict=True))
        ratios = []
        for run, values in zip(
            self.beside["run"].unique(maintain_order=True), self.values_beside(policy, metric), strict=True
        ):
            reference = 0.0 if values is None else float(np.mean(values))
            ratios.append(means[run] / reference if reference > 0 else float("nan"))
        return ratios

    def baseline(self, policy: str, label: str, metrics: Sequence[str]) -> MethodResult:
        """Returns a policy that the runs were tested beside: its result beside the first run of each split."""
        rows = first_of_each_split(pl.DataFrame() if self.beside is None else self.beside, policy)
        return MethodResult(label, policy, {}, [], stacked(rows, metrics), False, rows, splits_of(rows))


class Difference(NamedTuple):
    """How much higher one method's mean is than another's, and how sure that is.

    Attributes:
        mean: First minus second.
        p_value: Over seeds Welch's, over episodes that of the paired t-test; None where nothing can be tested.
        over_seeds: Whether the test is on the means of seeds, or on the pairs of episodes.
        numbers: Values tested of the first and the second; 0 for the result of a method without seeds, which is a
            constant to a test over seeds.
        paired_p_value: Of the paired t-test on the values of episodes, each a mean over seeds: it says whether these
            networks and lists differ, and not whether training again would lead to the same.
    """

    mean: float
    p_value: float | None
    over_seeds: bool
    numbers: tuple[int, int]
    paired_p_value: float | None


def difference(first: MethodResult, second: MethodResult, metric: str) -> Difference:
    """Compares two methods.

    It is by Welch's test on the means of seeds where both have several: whoever trains again gets another seed, on the
    same episodes. Beside a method without seeds, such as a fixed list, the other's seeds are tested against its
    constant mean (for a variance of 0 Welch's test is Student's test of one sample). It is by the paired t-test on
    episodes where a method has a single seed, and where none has any.

    Args:
        first: One result.
        second: The other, on the same episodes.
        metric: A key of `MethodResult.values`.
    """
    # Episodes, paired, each a mean over seeds.
    mean = first.mean(metric) - second.mean(metric)
    paired = paired_p_value_of(first, second, metric)
    # Seeds, where both have several or are known to need none.
    both = first, second
    means = [result.values_of(metric, SEEDS) for result in both]
    if any(len(one) > 1 for one in means) and all(
        len(one) > 1 or result.seedless for one, result in zip(means, both, strict=True)
    ):
        constant = [np.repeat(result, 2) if len(result) == 1 else result for result in means]
        numbers = tuple(len(result) if len(result) > 1 else 0 for result in means)
        return Difference(mean, welch_p_value(*constant), True, (numbers[0], numbers[1]), paired)
    return Difference(mean, paired, False, (first.values[metric].shape[1], second.values[metric].shape[1]), paired)


def same_episodes(first: MethodResult, second: MethodResult) -> bool:
    """Says whether two results of one `System.read` are about the same episodes, in the same order."""
    return all(one.shape[1] == second.values[key].shape[1] for key, one in first.values.items()) and (
        first.splits is None or second.splits is None or np.array_equal(first.splits, second.splits)
    )


def paired_p_value_of(first: MethodResult, second: MethodResult, metric: str) -> float | None:
    """Returns the p-value of the paired t-test on the values of episodes, each a mean over seeds.

    None where the episodes are not the same, or there is only one.
    """
    both = first.values_of(metric, EPISODES), second.values_of(metric, EPISODES)
    return _paired(*both) if same_episodes(first, second) else None


def paired_p_values_of_seeds(first: MethodResult, second: MethodResult, metric: str) -> dict[int, float | None]:
    """Returns the p-value of the paired t-test on the values of episodes by seed of the first.

    The second takes part with the same seed; where its result is the same with every seed, or known for one alone, with
    that. None where there is nothing to test with.
    """
    if not first.seeds_differ:
        return {}
    found: dict[int, float | None] = {}
    others = dict(zip(second.seeds, second.values[metric], strict=True)) if second.seeds_differ else {}
    for seed, row in zip(first.seeds, first.values[metric], strict=True):
        other = others.get(seed) if second.seeds_differ else second.values[metric][0]
        found[seed] = None
        if other is not None and same_episodes(first, second):
            known = ~(np.isnan(row) | np.isnan(other))
            found[seed] = _paired(row[known], other[known])
    return found


def paired_p_values_of_splits(first: MethodResult, second: MethodResult, metric: str) -> dict[int, float | None]:
    """Returns the p-value of the paired t-test on the values of episodes, each a mean over seeds, by split.

    Empty where there is a single split, or the episodes are not the same.
    """
    if first.splits is None or len(splits := np.unique(first.splits)) < 2 or not same_episodes(first, second):
        return {}
    one, other = first.values_of(metric, EPISODES), second.values_of(metric, EPISODES)
    return {int(split): _paired(one[first.splits == split], other[first.splits == split]) for split in splits}


def paired_p_value_over_splits(first: MethodResult, second: MethodResult, metric: str) -> float | None:
    """Returns the p-value of the paired t-test on the means of splits; None where there is a single split."""
    if first.splits is None or not same_episodes(first, second):
        return None
    return _paired(first.values_of(metric, SPLITS), second.values_of(metric, SPLITS))


def first_of_each_split(rows: pl.DataFrame, policy: str) -> pl.DataFrame:
    """Returns the rows of the long table that a policy has beside the first run of each split, seeds set to 0."""
    rows = rows.filter(pl.col("policy") == policy)
    return rows.filter(pl.col("run") == pl.col("run").first().over("split")).with_columns(seed=pl.lit(0, pl.Int64))


def splits_of(rows: pl.DataFrame) -> np.ndarray:
    """Returns [n] the split of each column of `stacked`."""
    one = rows.unique("split", keep="first").sort("split")
    return np.repeat(one["split"].to_numpy(), one["values"].list.len().to_numpy())


def stacked(rows: pl.DataFrame, metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns `MethodResult.values` from rows of the long table, which hold each seed and split once."""
    seeds, splits = rows["seed"].unique().sort().to_list(), splits_of(rows)
    values = {}
    for metric in metrics:
        values[metric] = np.full((len(seeds), len(splits)), np.nan)
        part = rows.filter(pl.col("metric") == metric)
        for seed, split, of_run in zip(part["seed"], part["split"], part["values"], strict=True):
            values[metric][seeds.index(seed), splits == split] = of_run.to_numpy()
    return values_of_seeds(values)


def values_of_seeds(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `MethodResult.values` from [S, n] per metric: a single row where all seeds have the same result."""
    alike = [np.nanmin(rows, axis=0) == np.nanmax(rows, axis=0) for rows in values.values()]
    if not all(one.all() for one in alike):
        return dict(values)
    return {metric: np.nanmax(rows, axis=0, keepdims=True) for metric, rows in values.items()}


def _paired(first: np.ndarray, second: np.ndarray) -> float | None:
    return paired_p_value(first, second) if len(first) > 1 else None

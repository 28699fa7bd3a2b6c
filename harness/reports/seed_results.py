"""The results of a method with several seeds: means with intervals, and Welch's test between two methods."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.errors import UserError
from harness.reports.results import Estimate, estimate_over_seeds
from harness.runs.index import RunRecord
from harness.statistics import welch_p_value


@dataclass(frozen=True)
class SeedResults:
    """What one method reached with one or more seeds.

    Attributes:
        label: The method, with the settings that tell it from its other variants.
        runs: One per seed; none for a policy that is no run of its own but was tested beside those of others.
        values: [S, n] per metric, one value per episode: a row per seed, or a single one where all seeds have the same
            result.
    """

    label: str
    runs: Sequence[RunRecord]
    values: Mapping[str, np.ndarray]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs, ascending."""
        return [int(run.settings["seed"]) for run in self.runs]

    @property
    def seed_matters(self) -> bool:
        """Whether different seeds gave different results; False for a single one."""
        return len(next(iter(self.values.values()))) > 1

    @property
    def seedless(self) -> bool:
        """Whether the result is known to be the same with every seed."""
        return not self.seed_matters and len(self.runs) != 1

    def mean(self, metric: str) -> float:
        """Returns the mean over episodes and seeds."""
        return float(np.mean(self.values[metric]))

    def estimate(self, metric: str) -> Estimate:
        """Returns the mean over episodes and seeds with its interval: over seeds, or episodes if no seed differs."""
        return estimate_over_seeds(self.values[metric])


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


def difference(first: SeedResults, second: SeedResults, metric: str) -> Difference:
    """Compares two methods by Welch's test.

    It is on the means of seeds where both have several: whoever trains again gets another seed, on the same episodes.
    Beside a method without seeds, such as a fixed list, the other's seeds are tested against its constant mean (for
    a variance of 0 Welch's test is Student's test of one sample). It is on episodes where a method has a single seed,
    and where none has any.

    Args:
        first: One result.
        second: The other, on the same episodes.
        metric: A key of `SeedResults.values`.
    """
    values = first.values[metric], second.values[metric]
    mean = first.mean(metric) - second.mean(metric)
    pooled = _p_value(values[0].ravel(), values[1].ravel())
    both = first, second
    if any(found.seed_matters for found in both) and all(found.seed_matters or found.seedless for found in both):
        means = [rows.mean(axis=1) for rows in values]
        constant = [np.repeat(found, 2) if len(found) == 1 else found for found in means]
        numbers = tuple(len(found) if len(found) > 1 else 0 for found in means)
        return Difference(mean, _p_value(*constant), True, (numbers[0], numbers[1]), pooled)
    return Difference(mean, pooled, False, (values[0].size, values[1].size), pooled)


def check_same_episodes(
    runs: Sequence[RunRecord],
    arrays: Sequence[Mapping[str, np.ndarray]],
    file: str,
    episode: str,
    what: str,
    evaluate: str,
    part: Callable[[RunRecord], Hashable] = lambda run: None,
) -> list[Mapping[str, np.ndarray]]:
    """Checks that the results of runs are about the same episodes, with one value of each array for each.

    Args:
        runs: Any number.
        arrays: What was read of each.
        file: From which file of the run folder.
        episode: Name of the array that says which episodes.
        what: Episodes, for people.
        evaluate: The command that evaluates a run again.
        part: What runs must share to be about the same episodes.

    Returns:
        The arrays of the first run of each part.

    Raises:
        UserError: They are not; the message names two runs.
    """
    firsts: dict[Hashable, tuple[RunRecord, Mapping[str, np.ndarray]]] = {}
    for run, found in zip(runs, arrays, strict=True):
        first, wanted = firsts.setdefault(part(run), (run, found))
        same = np.array_equal(found[episode], wanted[episode])
        if not same or any(values.shape != wanted[episode].shape for values in found.values()):
            raise UserError(
                f"has other {what} than {first.folder.path}, or not one value for each",
                where=str(run.folder.path / file),
                do=f"Evaluate both runs again: python -m {evaluate} run=FOLDER",
            )
    return [found for _, found in firsts.values()]


def values_of_seeds(arrays: Sequence[Mapping[str, np.ndarray]], metrics: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the values of `SeedResults` from those of each seed.

    Args:
        arrays: Of each seed; [n] per metric.
        metrics: Their names.
    """
    values = {metric: np.stack([found[metric] for found in arrays]) for metric in metrics}
    return {metric: rows[:1] for metric, rows in values.items()} if _all_equal(values) else values


def _all_equal(values: Mapping[str, np.ndarray]) -> bool:
    return all((rows == rows[0]).all() for rows in values.values())


def _p_value(first: np.ndarray, second: np.ndarray) -> float | None:
    return welch_p_value(first, second) if min(len(first), len(second)) > 1 else None

"""The results of an evaluation: arrays per episode, their means with intervals, a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.runs.run_folder import RunFolder, write_arrays, write_json
from harness.statistics import SMALLEST_P, mean_interval, paired_p_value

Metrics = Mapping[str, np.ndarray]
"""Values of each metric, one per episode."""


class Estimate(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """See `text`, with four digits."""
        return self.text(4)

    def text(self, digits: int) -> str:
        """Returns mean and half-width; the mean alone where the interval is a point."""
        margin = (self.high - self.low) / 2
        return f"{self.mean:.{digits}f} ± {margin:.{digits}f}" if margin else f"{self.mean:.{digits}f}"


def estimate(values: np.ndarray) -> Estimate:
    """Returns the mean of [n] independent values with its t-interval."""
    return Estimate(float(np.mean(values)), *mean_interval(values))


def means(metrics: Metrics) -> dict[str, float]:
    """Returns the mean of each metric over episodes."""
    return {name: float(np.mean(values)) for name, values in metrics.items()}


def summarise(metrics: Metrics, unit: str) -> dict[str, Any]:
    """Returns mean and 95 % interval of each metric, and the number of episodes under the name `unit`."""
    summary: dict[str, Any] = {}
    for name, values in metrics.items():
        summary[name] = float(np.mean(values))
        summary[f"{name}_ci95"] = list(mean_interval(values))
    return {**summary, unit: len(next(iter(metrics.values())))}


def write_results(
    folder: RunFolder,
    name: str,
    header: dict[str, Any],
    policies: Mapping[str, Metrics],
    unit: str,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes means (`NAME.json`) and arrays (`NAME.npz`), from which anyone can recompute them.

    Args:
        folder: Run folder.
        header: What the JSON says before the policies: data, protocol, step.
        policies: Metrics by policy; those of the first have no prefix in the arrays, the others their policy's name.
        unit: What an episode is: "users" or "sessions".
        arrays: More arrays, one row per episode, with their full names.
    """
    everything = dict(arrays)
    for number, (policy, metrics) in enumerate(policies.items()):
        prefix = f"{policy}_" if number else ""
        everything |= {f"{prefix}{metric}": values for metric, values in metrics.items()}
    write_arrays(folder.path / f"{name}.npz", everything)
    summaries = {policy: summarise(metrics, unit) for policy, metrics in policies.items()}
    write_json(folder.path / f"{name}.json", {**header, "policies": summaries})


def format_means(policies: Mapping[str, Metrics], heads: Sequence[str], digits: int) -> list[str]:
    """Returns the lines of a table: a head, then mean and half-width of the 95 % interval per policy and metric."""
    lines = [f"{'policy':<18}" + "".join(f"{head:>18}" for head in heads)]
    for policy, metrics in policies.items():
        cells = []
        for values in metrics.values():
            low, high = mean_interval(values)
            cells.append(f"{np.mean(values):.{digits}f} ± {(high - low) / 2:.{digits}f}".rjust(18))
        lines.append(f"{policy:<18}" + "".join(cells))
    return lines


def p_text(p_value: float) -> str:
    """Returns `p = 0.02`, or a bound where the number is too small for a float."""
    return f"p = {p_value:.2g}" if p_value > SMALLEST_P else f"p < {SMALLEST_P:g}"


def format_ratio(policies: Mapping[str, Metrics], metric: str, policy: str, baseline: str) -> str:
    """Returns one line with the ratio of two policies' means on the same episodes, and how sure their difference is."""
    first, second = policies[policy][metric], policies[baseline][metric]
    ratio = float(np.mean(first) / np.mean(second)) if np.mean(second) > 0 else float("nan")
    tested = f", paired t-test: {p_text(paired_p_value(first, second))}" if len(first) > 1 else ""
    return f"{metric} of {policy} / {baseline}: {ratio:.3f}{tested}"

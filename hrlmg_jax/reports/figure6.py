"""Figure 6: the training curves of both levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import UserError
from harness.reports.learning_curves import STEP, curve, curves_table, plot_learning_curves, read_curves
from harness.reports.method_results import MethodResult, MethodRuns
from harness.reports.system_results import RunsConfig, preset, title_of
from harness.reports.tables import markdown_text
from harness.runs.index import RunRecord, RunsFound, newest_of_each_seed
from hrlmg_jax.reports import results as hrl_mg
from hrlmg_jax.reports.ranking import baselines, ranking_table

REWARDS = {"validation_reward": "reward, held-out users", "reward": "reward, training sessions"}
METRICS = {
    **REWARDS,
    "high_q": "high level: Q",
    "low_q": "low level: Q",
    "high_critic_loss": "high level: critic loss",
    "low_critic_loss": "low level: critic loss",
}
"""What is drawn: names in metrics.jsonl, and their labels."""


@dataclass(frozen=True)
class Figure6Config(RunsConfig):
    """Which runs to draw, `agent.name` of the methods (None for all), and whether to draw their variants.

    `conf/report/figure6.yaml` holds the values.
    """

    agents: list[str] | None
    variants: bool


def report_figure6(config: Figure6Config) -> None:
    """Prints and writes `figure6.md`, `.csv` and `.png`; unfinished runs are drawn as far as they came.

    Raises:
        UserError: No runs with metrics, runs on different logs or simulators, or files that cannot be read or written.
    """
    found = hrl_mg.comparable_runs(config, ("evaluation.validation_sessions",))
    wanted = [run for run in found.runs if config.agents is None or run.settings["agent.name"] in config.agents]
    left_out: list[str] = []
    methods = _drawn([run for run in wanted if run.folder.metrics.exists()], config.variants, left_out)
    curves = read_curves({method.label: method.runs for method in methods}, list(METRICS))
    panels = {metric: head for metric, head in METRICS.items() if metric in curves["metric"]}
    if not panels:
        of = "" if config.agents is None else f" of {', '.join(config.agents)}"
        raise UserError(f"no run{of} has metrics yet", do="Wait for the first log point of a run, or set agents=null.")
    title = title_of("Figure 6, training", wanted)
    references = dict.fromkeys(REWARDS, _references(wanted))
    plot_learning_curves(Path(config.out) / "figure6.png", title, curves, panels, STEP, references)
    lines = _last_common_points(methods, curves)
    missing = hrl_mg.missing_methods(hrl_mg.SYSTEM.methods(found.runs), config.report)
    shown = RunsFound(wanted, found.unreadable)
    hrl_mg.SYSTEM.write(config, title, shown, lines, curves_table(curves), ["figure6.png"], left_out, missing=missing)


def last_common_step(methods: Sequence[MethodRuns], points: pl.DataFrame) -> int | None:
    """Returns the last training step at which all runs of all methods have a metric; None if there is none."""
    runs = {method.label: len(method.runs) for method in methods}
    complete = points.filter(pl.col("seeds") == pl.col("runs").replace_strict(runs, return_dtype=pl.Int64))
    steps = complete.group_by(STEP).len().filter(pl.col("len") == len(methods))[STEP]
    return max(steps, default=None)


def _drawn(runs: Sequence[RunRecord], variants: bool, left_out: list[str]) -> list[MethodRuns]:
    """Returns methods with the newest run of each seed; adds to `left_out` why the others do not count."""
    methods, kept = hrl_mg.SYSTEM.methods(runs), []
    for method in methods:
        if not variants and method is not preset(methods, method.name):
            left_out.append(f"{method.label}: a variant; variants=true draws it")
            continue
        kept.append(method._replace(runs=newest_of_each_seed(method.runs, "metrics.jsonl", left_out)))
    return kept


def _references(runs: Sequence[RunRecord]) -> Mapping[str, float]:
    """Returns what the baselines got in the online test, if its sessions are as long as those of training."""
    if any(run.settings.get("env.episode_length") != run.settings.get("evaluation.long") for run in runs):
        return {}
    return baselines(hrl_mg.SYSTEM.read(hrl_mg.SYSTEM.methods(runs), hrl_mg.ONLINE), "long_reward")


def _last_common_points(methods: Sequence[MethodRuns], curves: pl.DataFrame) -> list[str]:
    """Returns Markdown with the rewards at the last step that all runs have, methods in their order."""
    lines = [
        markdown_text(hrl_mg.describe_problem([run for method in methods for run in method.runs])),
        "",
        "Means over seeds with 95 % t-intervals over seeds, where there is more than one; p: Welch's test over seeds, "
        "not corrected. Training sessions explore, held-out users are served greedily.",
    ]
    for metric, head in REWARDS.items():
        points = curve(curves, metric)
        step = last_common_step(methods, points)
        if step is None:
            lines += ["", f"No step at which all runs have: {head}."]
            continue
        at_step = dict(points.filter(pl.col(STEP) == step).select("runs", "values").iter_rows())
        results = [MethodResult(*method, {metric: np.array(at_step[method.label])[:, None]}) for method in methods]
        lines += ["", f"## After {step:,} training steps: {head}", "", *ranking_table(results, {metric: head}, 3)]
    return lines

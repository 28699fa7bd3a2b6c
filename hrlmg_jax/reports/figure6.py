"""Figure 6: the training curves of both levels."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import UserError
from harness.reports.learning_curves import STEP, curve, curves_table, plot_learning_curves, read_curves, seed_of
from harness.reports.method_results import MethodResult, MethodRuns
from harness.reports.system_results import preset, title_of
from harness.reports.tables import markdown_text
from harness.runs.index import RunRecord, RunsFound, newest_of_each_seed
from hrlmg_jax.reports import results as hrl_mg
from hrlmg_jax.reports.ranking import baselines, notes_on, ranking_table
from hrlmg_jax.reports.worlds import WORLD, WorldResult, WorldsConfig

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
class Figure6Config(WorldsConfig):
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
    unit = _world_of if config.several_worlds else seed_of
    curves = read_curves({method.label: method.runs for method in methods}, list(METRICS), unit)
    panels = {metric: head for metric, head in METRICS.items() if metric in curves["metric"]}
    if not panels:
        of = "" if config.agents is None else f" of {', '.join(config.agents)}"
        raise UserError(f"no run{of} has metrics yet", do="Wait for the first log point of a run, or set agents=null.")
    title = title_of("Figure 6, training", wanted)
    references = dict.fromkeys(REWARDS, _references(wanted, config.several_worlds))
    plot_learning_curves(Path(config.out) / "figure6.png", title, curves, panels, STEP, references)
    lines = _last_common_points(methods, curves, config.several_worlds)
    missing = hrl_mg.missing_methods(hrl_mg.SYSTEM.methods(found.runs), config.report, config.several_worlds)
    shown = RunsFound(wanted, found.unreadable)
    hrl_mg.SYSTEM.write(config, title, shown, lines, curves_table(curves), ["figure6.png"], left_out, missing=missing)


def last_common_step(
    methods: Sequence[MethodRuns], points: pl.DataFrame, unit: Callable[[RunRecord], Hashable] = seed_of
) -> int | None:
    """Returns the last training step at which all units (seeds) of all methods have a metric; None if there is none."""
    runs = {method.label: len({unit(run) for run in method.runs}) for method in methods}
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
        newest = newest_of_each_seed(method.runs, "metrics.jsonl", left_out, hrl_mg.SYSTEM.splits)
        kept.append(method._replace(runs=sorted(newest, key=_world_of)))
    return kept


def _world_of(run: RunRecord) -> int:
    return int(run.settings.get(WORLD) or 0)


def _references(runs: Sequence[RunRecord], several: bool) -> Mapping[str, float]:
    """Returns what the baselines got in the online test, if its sessions are as long as those of training."""
    if any(run.settings.get("env.episode_length") != run.settings.get("evaluation.long") for run in runs):
        return {}
    return baselines(hrl_mg.read(hrl_mg.SYSTEM.methods(runs), hrl_mg.ONLINE, several), "long_reward")


def _last_common_points(methods: Sequence[MethodRuns], curves: pl.DataFrame, several: bool) -> list[str]:
    """Returns Markdown with the rewards at the last step that all runs have, methods in their order."""
    seeds = (
        "Means over seeds with 95 % t-intervals over seeds, where there is more than one; p: Welch's test over seeds, "
        "not corrected."
    )
    lines = [
        markdown_text(hrl_mg.describe_problem([run for method in methods for run in method.runs])),
        "",
        *(notes_on(several) if several else [seeds]),
        "Training sessions explore, held-out users are served greedily.",
    ]
    for metric, head in REWARDS.items():
        points = curve(curves, metric)
        step = last_common_step(methods, points, _world_of if several else seed_of)
        if step is None:
            lines += ["", f"No step at which all runs have: {head}."]
            continue
        at_step = dict(points.filter(pl.col(STEP) == step).select("runs", "values").iter_rows())
        results = [_result(method, metric, np.array(at_step[method.label]), several) for method in methods]
        lines += ["", f"## After {step:,} training steps: {head}", "", *ranking_table(results, {metric: head}, 3)]
    return lines


def _result(method: MethodRuns, metric: str, values: np.ndarray, several: bool) -> MethodResult:
    """Returns the values of a metric, one per seed or world, as a result."""
    if not several:
        return MethodResult(*method, {metric: values[:, None]})
    worlds = sorted({_world_of(run) for run in method.runs})
    return WorldResult(*method, {metric: values[None]}, splits=np.array(worlds), worlds=worlds)

"""Figure 6: the training curves of both levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.reports.learning_curves import (
    CURVE_HEADS,
    STEP,
    CurvePoint,
    curve_rows,
    learning_curve,
    plot_learning_curves,
)
from harness.reports.tables import Table, markdown_text, write_report
from harness.runs.composition import sweep_of
from harness.runs.index import RunRecord, RunsFound, newest_of_each_seed
from hrlmg_jax.reports.missing_runs import closing_lines, missing_methods
from hrlmg_jax.reports.ranking import ranking_table
from hrlmg_jax.reports.results import (
    DATA_HEADS,
    FigureConfig,
    MethodResult,
    MethodRuns,
    comparable_runs,
    describe_data,
    describe_problem,
    group_methods,
    preset,
    title_of,
)

REWARDS = {"validation_reward": "reward, held-out users", "reward": "reward, training sessions"}
METRICS = {
    **REWARDS,
    "high_q": "high level: Q",
    "low_q": "low level: Q",
    "high_critic_loss": "high level: critic loss",
    "low_critic_loss": "low level: critic loss",
}
"""What is drawn: names in metrics.jsonl, and their labels."""

Curves = Mapping[str, Mapping[str, Sequence[CurvePoint]]]
"""Points by metric and label."""


@dataclass(frozen=True)
class Figure6Config(FigureConfig):
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
    found = comparable_runs(config.runs, config.data_name, ("evaluation.validation_sessions",), config.report)
    wanted = [run for run in found.runs if config.agents is None or run.settings["agent.name"] in config.agents]
    methods, left_out = _drawn(group_methods([run for run in wanted if run.folder.metrics.exists()]), config.variants)
    curves = {
        metric: {method.label: curve for method in methods if (curve := learning_curve(method.runs, metric))}
        for metric in METRICS
    }
    panels = {METRICS[metric]: by_label for metric, by_label in curves.items() if by_label}
    if not panels:
        of = "" if config.agents is None else f" of {', '.join(config.agents)}"
        raise UserError(f"no run{of} has metrics yet", do="Wait for the first log point of a run, or set agents=null.")
    folder, title = Path(config.out), title_of("Figure 6, training", wanted)
    plot_learning_curves(folder / "figure6.png", title, panels, STEP)
    lines = [f"# {markdown_text(title)}", "", *_last_common_points(methods, curves)]
    swept = sweep_of(config.report)
    commands = missing_methods(group_methods(found.runs), swept["agent"], swept["seed"])
    lines += closing_lines(RunsFound(wanted, found.unreadable), left_out, [], commands)
    write_report(folder, config.report, lines, _table(wanted, curves), ["figure6.png"])


def last_common_step(methods: Sequence[MethodRuns], curves: Mapping[str, Sequence[CurvePoint]]) -> int | None:
    """Returns the last training step at which all runs of all methods have a metric; None if there is none."""
    of_methods = [
        {point.step for point in curves.get(method.label, ()) if point.seeds == len(method.runs)} for method in methods
    ]
    return max(set.intersection(*of_methods), default=None)


def _drawn(methods: Sequence[MethodRuns], variants: bool) -> tuple[list[MethodRuns], list[str]]:
    """Returns methods with the newest run of each seed, and why the others do not count."""
    kept, left_out = [], []
    for method in methods:
        if not variants and method is not preset(methods, method.name):
            left_out.append(f"{method.label}: a variant; variants=true draws it")
            continue
        newest, repeated = newest_of_each_seed(method.runs, "metrics.jsonl")
        kept.append(method._replace(runs=newest))
        left_out += [f"{run.folder.path}: an older repetition of seed {run.settings['seed']}" for run in repeated]
    return kept, left_out


def _last_common_points(methods: Sequence[MethodRuns], curves: Curves) -> list[str]:
    """Returns Markdown with the rewards at the last step that all runs have, methods in their order."""
    lines = [
        markdown_text(describe_problem([run for method in methods for run in method.runs])),
        "",
        "Means over seeds with 95 % t-intervals over seeds, where there is more than one; p: Welch's test over seeds, "
        "not corrected. Training sessions explore, held-out users are served greedily.",
        "",
    ]
    for metric, head in REWARDS.items():
        step = last_common_step(methods, curves[metric])
        if step is None:
            lines += [f"No step at which all runs have: {head}.", ""]
            continue
        results = []
        for method in methods:
            (point,) = (point for point in curves[metric][method.label] if point.step == step)
            values = {metric: point.values[:, None]}
            results.append(MethodResult(method.label, method.runs, values, method.name, method.distinction, []))
        lines += [f"## After {step:,} training steps: {head}", "", *ranking_table(results, {metric: head}, 3), ""]
    return lines


def _table(runs: Sequence[RunRecord], curves: Curves) -> Table:
    rows = [
        [*describe_data(runs), *row]
        for metric, by_label in curves.items()
        for label, curve in by_label.items()
        for row in curve_rows(metric, label, curve)
    ]
    return Table([*DATA_HEADS, *CURVE_HEADS], rows)

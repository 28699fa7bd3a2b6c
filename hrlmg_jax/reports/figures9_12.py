"""Figures 9 to 12: the online test by the weight of the intrinsic reward (alpha) and by the number of goals (M)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.errors import UserError
from harness.reports.plots import Points, plot_points
from harness.reports.tables import Cell, Table, markdown_list, markdown_table, markdown_text, write_report
from harness.runs.composition import sweep_of
from harness.runs.index import RunRecord, RunsFound, difference_from, group_by_settings, label_of
from hrlmg_jax.reports.missing_runs import closing_lines, missing_seeds, training_command
from hrlmg_jax.reports.ranking import NOTES, RANKING_HEADS, describe_p, describe_seeds, ranked, ranking_rows
from hrlmg_jax.reports.results import (
    DATA_HEADS,
    LABELS,
    LENGTHS,
    ONLINE,
    ONLINE_TRUTH,
    ComparedTest,
    FigureConfig,
    MethodResult,
    MethodRuns,
    comparable_runs,
    describe_data,
    describe_problem,
    has_goals,
    metrics_of,
    read_results,
    title_of,
    unlike_preset,
    users_of,
    without_effect,
)


@dataclass(frozen=True)
class SensitivityConfig(FigureConfig):
    """Which runs to compare, and `agent.name` of these (`conf/report/alpha.yaml`, `conf/report/goals.yaml`)."""

    agent: str


class Parameter(NamedTuple):
    """A setting whose effect a figure shows.

    Attributes:
        figures: The paper's.
        symbol: The paper's.
        key: Of the setting, in dots.
        best: The paper's best value.
        same_method: By `agent.name`, the name of a method that has one value of it and is otherwise the same.
    """

    figures: str
    symbol: str
    key: str
    best: float
    same_method: Mapping[str, str]


ALPHA = Parameter(
    "Figures 9 and 11, weight of the intrinsic reward",
    "alpha",
    "agent.goals.intrinsic_weight",
    0.5,
    {"hrl_mg": "hrl_mg_alpha0"},
)
GOALS = Parameter(
    "Figures 10 and 12, number of goals",
    "M",
    "agent.goals.count",
    2,
    {"hrl_mg": "hrl", "hrl_mg_paper": "hrl_paper"},
)


class Compared(NamedTuple):
    """Runs by value of the parameter, ascending, and why other runs do not count."""

    methods: list[MethodRuns]
    left_out: list[str]


def report_alpha(config: SensitivityConfig) -> None:
    """Prints and writes `alpha.md`, `.csv`, `alpha_long.png` and `alpha_short.png`; see `report_parameter`."""
    report_parameter(config, ALPHA)


def report_goals(config: SensitivityConfig) -> None:
    """Prints and writes `goals.md`, `.csv`, `goals_long.png` and `goals_short.png`; see `report_parameter`."""
    report_parameter(config, GOALS)


def report_parameter(config: SensitivityConfig, parameter: Parameter) -> None:
    """Prints and writes what a parameter does; on a generated log also with the generator's own users.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = comparable_runs(config.runs, config.data_name, ONLINE.same, config.report)
    compared = compare(found.runs, parameter, config.agent)
    runs = [run for method in compared.methods for run in method.runs]
    title, folder = title_of(f"{parameter.figures} ({parameter.symbol})", runs), Path(config.out)
    lines, left_out = [f"# {markdown_text(title)}", ""], [*compared.left_out]
    warnings: list[str] = []
    pictures: list[str] = []
    rows: list[list[Cell]] = []
    for test in (ONLINE, ONLINE_TRUTH):
        collected = read_results(compared.methods, test)
        if not (results := collected.results):
            continue
        users = users_of(runs[0], test)
        lines += [] if pictures else [markdown_text(describe_problem(runs)), "", markdown_text(NOTES), ""]
        lines += [f"## Users: {users}", "", *_value_table(results, parameter, test), ""]
        lines += [*_best_values(results, parameter, test), ""]
        for length in LENGTHS:
            pictures.append(f"{config.report}_{'truth_' if test is ONLINE_TRUTH else ''}{length}.png")
            horizontal = f"{parameter.symbol} ({length} sessions, users: {users})"
            plot_points(folder / pictures[-1], title, horizontal, _panels(results, parameter, length))
        rows += _rows(results, parameter, test, users)
        left_out += collected.left_out
        warnings += collected.warnings
    commands = missing_values(compared.methods, parameter, config)
    lines += closing_lines(RunsFound(runs, found.unreadable), left_out, warnings, commands)
    table = Table([*DATA_HEADS, parameter.key, *RANKING_HEADS], [[*describe_data(runs), *row] for row in rows])
    write_report(folder, config.report, lines, table, pictures)


def compare(runs: Sequence[RunRecord], parameter: Parameter, agent: str) -> Compared:
    """Returns runs that are equal but for the parameter and their seed; of several such sets, the one with most runs.

    Of equally large ones it is the one nearest to `conf/agent/AGENT.yaml`.

    Args:
        runs: On the same log.
        parameter: What may differ.
        agent: `agent.name` of the runs.

    Raises:
        UserError: There are none.
    """
    names = [agent, *([parameter.same_method[agent]] if agent in parameter.same_method else [])]
    candidates = [run for run in runs if run.settings["agent.name"] in names and has_goals(run)]

    def ignored(key: str) -> bool:
        return without_effect(key) or key == parameter.key or (len(names) > 1 and key == "agent.name")

    groups = group_by_settings(candidates, ignored)
    groups.sort(key=lambda group: (-len(group.runs), len(unlike_preset(agent, group.distinction))))
    if not groups:
        raise UserError(
            f"no run has goals and agent.name {' or '.join(names)}",
            do="Name another with agent=NAME; python -m hrlmg_jax.report runs lists all runs.",
        )
    left_out = [f"{run.folder.path}: {difference_from(groups[0], group)}" for group in groups[1:] for run in group.runs]
    by_value: dict[float, list[RunRecord]] = {}
    for run in groups[0].runs:
        by_value.setdefault(float(run.settings[parameter.key]), []).append(run)
    name = LABELS.get(agent, agent)
    return Compared(
        [
            MethodRuns(label_of(name, {parameter.key: f"{value:g}"}), agent, {parameter.key: value}, by_value[value])
            for value in sorted(by_value)
        ],
        left_out,
    )


def missing_values(methods: Sequence[MethodRuns], parameter: Parameter, config: SensitivityConfig) -> list[str]:
    """Returns the commands for values, and seeds of them, that have no run."""
    swept = sweep_of(config.report)
    runs = [run for method in methods for run in method.runs]
    reference = next((run for run in runs if run.settings["agent.name"] == config.agent), None)
    commands = []
    for value in swept[parameter.key]:
        own = [run for run in runs if run.settings[parameter.key] == value]
        if absent := missing_seeds(own, swept["seed"]):
            chosen = [f"agent={config.agent}", f"{parameter.key}={value}"]
            commands.append(training_command(reference or runs[0], chosen, absent, reference is not None))
    return commands


def _value_table(results: Sequence[MethodResult], parameter: Parameter, test: ComparedTest) -> list[str]:
    best = {metric: ranked(results, metric)[0].result.label for metric in test.metrics}
    rows = []
    for result in results:
        cells = [
            f"{result.estimate(metric).text(test.digits)}{' *' if best[metric] == result.label else ''}"
            for metric in test.metrics
        ]
        rows.append([_value(result, parameter), *cells, describe_seeds(result)])
    return markdown_table([parameter.symbol, *test.metrics.values(), "seeds"], rows)


def _best_values(results: Sequence[MethodResult], parameter: Parameter, test: ComparedTest) -> list[str]:
    """Returns Markdown that compares the best value with the second best."""
    texts = []
    for metric, head in test.metrics.items():
        best, second, above = ranked(results, metric)[0]
        if second is None or above is None:
            continue
        p_value = describe_p(above)
        texts.append(
            f"{head}: best at {_value(best, parameter)}, {above.mean:+.{test.digits}f} above "
            f"{_value(second, parameter)}{f', p = {p_value}' if p_value else ''}"
        )
    symbol = parameter.symbol
    return [f"`*`: the best {symbol} of the column. The paper's is {parameter.best:g}.", "", *markdown_list(texts)]


def _panels(results: Sequence[MethodResult], parameter: Parameter, length: str) -> dict[str, list[Points]]:
    panels = {}
    for metric, head in metrics_of(length).items():
        best = ranked(results, metric)[0].result
        values = [float(result.distinction[parameter.key]) for result in results]
        marked = Points("best", [float(best.distinction[parameter.key])], [best.estimate(metric)], "tab:red")
        panels[head] = [Points("", values, [result.estimate(metric) for result in results]), marked]
    return panels


def _rows(results: Sequence[MethodResult], parameter: Parameter, test: ComparedTest, users: str) -> list[list[Cell]]:
    """Returns the rows of a CSV, best first for each metric, with the value in front of each."""
    return [
        [place.result.distinction[parameter.key], *row]
        for metric in test.metrics
        for place, row in zip(ranked(results, metric), ranking_rows(results, [metric], users), strict=True)
    ]


def _value(result: MethodResult, parameter: Parameter) -> str:
    return f"{result.distinction[parameter.key]:g}"

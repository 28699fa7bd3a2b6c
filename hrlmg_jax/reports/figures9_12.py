"""Figures 9 to 12: what the weight of the intrinsic reward (alpha) and the number of goals (M) do online.

Held-out users choose the value, by the validations that choose among a run's networks; test sessions choose nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.errors import UserError
from harness.reports.method_results import MethodResult, MethodRuns
from harness.reports.plots import Points, PointsPanel, plot_points
from harness.reports.system_results import Collected, ComparedTest, Rerun, grouped, most_runs, title_of
from harness.reports.tables import Cell, Table, markdown_list, markdown_table, markdown_text
from harness.runs.composition import sweep_of
from harness.runs.index import RunRecord, RunsFound, group_by_settings, label_of
from harness.runs.metric_writer import read_rows
from hrlmg_jax.agent.goals import stage_lengths
from hrlmg_jax.reports import results as hrl_mg
from hrlmg_jax.reports.ranking import (
    RANKING_HEADS,
    baselines,
    describe_difference,
    interval_text,
    notes_on,
    ranked,
    ranking_rows,
    repetitions,
    repetitions_heads,
    unit_name,
    unit_of,
)
from hrlmg_jax.reports.worlds import WorldsConfig

_VALIDATION = "validation_reward"


@dataclass(frozen=True)
class SensitivityConfig(WorldsConfig):
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
    "Figures 9 and 11, weight of the intrinsic reward", "alpha", hrl_mg.WEIGHT, 0.5, {"hrl_mg": "hrl_mg_alpha0"}
)
GOALS = Parameter(
    "Figures 10 and 12, number of goals", "M", hrl_mg.COUNT, 2, {"hrl_mg": "hrl", "hrl_mg_paper": "hrl_paper"}
)


def report_alpha(config: SensitivityConfig) -> None:
    """Prints and writes `alpha.md`, `.csv`, `alpha_long.png` and `alpha_short.png`; see `report_parameter`."""
    report_parameter(config, ALPHA)


def report_goals(config: SensitivityConfig) -> None:
    """Prints and writes `goals.md`, `.csv`, `goals_long.png` and `goals_short.png`; see `report_parameter`."""
    report_parameter(config, GOALS)


def report_parameter(config: SensitivityConfig, parameter: Parameter) -> None:
    """Prints and writes what a parameter does; on a generated log first with the generator's own users.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    # Runs that differ in nothing but the parameter.
    found, left_out = hrl_mg.comparable_runs(config, hrl_mg.ONLINE.same), list[str]()
    methods = compare(found.runs, parameter, config.agent, left_out)
    runs = [run for method in methods for run in method.runs]
    title = title_of(f"{parameter.figures} ({parameter.symbol})", runs)
    # A section, and a picture of long and one of short sessions, for each kind of users.
    lines, warnings, pictures = list[str](), list[str](), list[str]()
    rows: list[list[Cell]] = []
    for test in hrl_mg.ONLINE_TESTS:
        collected = hrl_mg.read(methods, test, config.several_worlds)
        if not (results := collected.results):
            continue
        users = hrl_mg.users_of(runs[0], test)
        lines += ["", f"## Users: {users}", "", *_value_table(results, parameter, test)]
        lines += ["", *_best_values(results, parameter, test), *_stages(results, parameter)]
        for length in hrl_mg.LENGTHS:
            pictures.append(f"{config.report}_{'truth_' if test is hrl_mg.ONLINE_TRUTH else ''}{length}.png")
            horizontal = f"{parameter.symbol} ({length} sessions, users: {users}; {interval_text(results)})"
            plot_points(Path(config.out) / pictures[-1], title, horizontal, _panels(collected, parameter, length))
        for metric in test.metrics:  # best first, with the value in front of each
            values = [one.result.distinction[parameter.key] for one in ranked(results, metric)]
            ranking = ranking_rows(results, [metric], users)
            rows += [[value, *row] for value, row in zip(values, ranking, strict=True)]
        left_out += collected.left_out
        warnings += collected.warnings
    notes = notes_on(config.several_worlds)
    introduction = [markdown_text(hrl_mg.describe_problem(runs)), "", *notes] if pictures else []
    table, missing = Table([parameter.key, *RANKING_HEADS], rows), missing_values(methods, parameter, config)
    shown = RunsFound(runs, found.unreadable)
    hrl_mg.SYSTEM.write(config, title, shown, [*introduction, *lines], table, pictures, left_out, warnings, missing)


def compare(runs: Sequence[RunRecord], parameter: Parameter, agent: str, left_out: list[str]) -> list[MethodRuns]:
    """Returns runs that are equal but for the parameter and their seed by its value, ascending.

    Of several such sets it is the one with most runs; of equally large ones the one nearest to
    `conf/agent/AGENT.yaml`.

    Args:
        runs: On the same log.
        parameter: What may differ.
        agent: `agent.name` of the runs.
        left_out: Gets why other runs do not count.

    Raises:
        UserError: There are none.
    """
    names = [agent, *([parameter.same_method[agent]] if agent in parameter.same_method else [])]
    candidates = [run for run in runs if run.settings["agent.name"] in names and hrl_mg.has_goals(run)]
    if not candidates:
        raise UserError(
            f"no run has goals and agent.name {' or '.join(names)}",
            do="Name another with agent=NAME; python -m hrlmg_jax.report runs lists all runs.",
        )

    def ignored(key: str) -> bool:
        return hrl_mg.SYSTEM.has_no_effect(key) or key == parameter.key or (len(names) > 1 and key == "agent.name")

    groups = group_by_settings(candidates, ignored)
    alike = most_runs(
        groups, left_out, lambda group: len(hrl_mg.SYSTEM.unlike_preset(agent, group.distinction, group.runs[0]))
    )
    by_value = grouped(alike, lambda run: float(run.settings[parameter.key]))
    label = hrl_mg.LABELS.get(agent, agent)
    return [
        MethodRuns(label_of(label, {parameter.key: f"{value:g}"}), agent, {parameter.key: value}, by_value[value])
        for value in sorted(by_value)
    ]


def missing_values(methods: Sequence[MethodRuns], parameter: Parameter, config: SensitivityConfig) -> list[Rerun]:
    """Returns the values of the experiment, and seeds of them (in several worlds the first), that have no run."""
    if config.several_worlds:
        single = dataclasses.replace(config, several_worlds=False)
        return [
            one._replace(last=["seed=0"])
            for world in hrl_mg.by_world(methods)
            for one in missing_values(world, parameter, single)
            if any(last.split("=")[1].split(",")[0] == "0" for last in one.last)
        ]
    swept = sweep_of(config.report)
    runs = [run for method in methods for run in method.runs]
    reference = next((run for run in runs if run.settings["agent.name"] == config.agent), None)
    missing = []
    for value in swept[parameter.key]:
        runs_of = [run for run in runs if run.settings[parameter.key] == value]
        if last := hrl_mg.missing_seeds(runs_of, swept["seed"]):
            chosen = [f"{parameter.key}={value}"]
            missing.append(Rerun(config.agent, reference or runs[0], chosen, last, reference is not None))
    return missing


def validation_reward(result: MethodResult) -> float | None:
    """Returns the mean over runs of held-out users' reward with the networks kept; None if a run has no validation."""
    best = []
    for run in result.runs:
        rows = read_rows(run.folder.metrics) if run.folder.metrics.exists() else []
        best.append(max((row[_VALIDATION] for row in rows if _VALIDATION in row), default=None))
    known = [value for value in best if value is not None]
    return sum(known) / len(known) if known and len(known) == len(best) else None


def chosen_on_validation(results: Sequence[MethodResult]) -> MethodResult | None:
    """Returns the result whose runs did best with held-out users (the first of equals); None if that is not known."""
    rewards = [validation_reward(result) for result in results]
    known = [reward for reward in rewards if reward is not None]
    return results[rewards.index(max(known))] if known and len(known) == len(results) else None


def _value_table(results: Sequence[MethodResult], parameter: Parameter, test: ComparedTest) -> list[str]:
    chosen, rows = chosen_on_validation(results), []
    for result in results:
        cells = [result.estimate(metric, unit_of(results)).text(test.digits) for metric in test.metrics]
        validation = validation_reward(result)
        validated = "" if validation is None else f"{validation:.{test.digits}f}{' *' if result is chosen else ''}"
        rows.append([_value(result, parameter), validated, *cells, *repetitions(result)])
    heads = [parameter.symbol, "reward, held-out users", *test.metrics.values(), *repetitions_heads(results)]
    return [f"±: {interval_text(results)}.", "", *markdown_table(heads, rows)]


def _stages(results: Sequence[MethodResult], parameter: Parameter) -> list[str]:
    """Returns Markdown that names the stages of windows which the number of goals does not divide."""
    texts = []
    for result in results if parameter is GOALS else ():
        period, count = (int(result.runs[0].settings[key]) for key in (hrl_mg.PERIOD, hrl_mg.COUNT))
        if period % count:
            lengths = ", ".join(map(str, stage_lengths(period, count)))
            texts.append(
                f"M = {count}: stages of {lengths} steps; the last goal has what floor({period} / {count}) leaves"
            )
    return markdown_list(texts)


def _best_values(results: Sequence[MethodResult], parameter: Parameter, test: ComparedTest) -> list[str]:
    """Returns Markdown that names the value that held-out users choose, and compares the two highest of each column."""
    chosen, symbol, texts = chosen_on_validation(results), parameter.symbol, list[str]()
    for metric, head in test.metrics.items():
        highest, second, above = ranked(results, metric)[0]
        if second is not None and above is not None:
            than = f" above {_value(second, parameter)}"
            compared = describe_difference(above, test.digits, unit_name(results), than)
            texts.append(f"{head}: highest at {_value(highest, parameter)}, {compared}")
    choice = "Held-out users choose none: not every run has validations."
    if chosen is not None:
        choice = f"`*`: held-out users choose {symbol} = {_value(chosen, parameter)}, whose row is the result."
    description = "What is highest in a column was found by the test itself, so it describes and is no choice:"
    return [f"{choice} The paper's best is {parameter.best:g}. {description}", "", *markdown_list(texts)]


def _panels(collected: Collected, parameter: Parameter, length: str) -> list[PointsPanel]:
    results, panels = collected.results, []
    over, chosen = unit_of(results), chosen_on_validation(results)
    for metric, head in hrl_mg.metrics_of(length).items():
        lines = [
            Points(
                "mean",
                [float(_value(one, parameter)) for one in results],
                [one.estimate(metric, over) for one in results],
            ),
        ]
        if chosen is not None:
            value = float(_value(chosen, parameter))
            lines.append(Points("chosen by held-out users", [value], [chosen.estimate(metric, over)], "tab:red"))
        panels.append(PointsPanel(head, lines, baselines(collected, metric)))
    return panels


def _value(result: MethodResult, parameter: Parameter) -> str:
    return f"{result.distinction[parameter.key]:g}"

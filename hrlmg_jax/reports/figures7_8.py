"""Figures 7 and 8: every method in the offline test, and in the online test in long and short sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.reports.plots import Bars, plot_bars
from harness.reports.tables import Table, markdown_text, write_report
from harness.runs.composition import sweep_of
from harness.runs.index import RunRecord, RunsFound
from hrlmg_jax.reports.missing_runs import closing_lines, missing_methods
from hrlmg_jax.reports.ranking import (
    NOTES,
    RANKING_HEADS,
    order_table,
    ranked,
    ranking_rows,
    ranking_table,
    ratio_table,
)
from hrlmg_jax.reports.results import (
    DATA_HEADS,
    LENGTHS,
    OFFLINE,
    ONLINE,
    ONLINE_TRUTH,
    Collected,
    ComparedTest,
    FigureConfig,
    MethodResult,
    MethodRuns,
    comparable_runs,
    describe_data,
    describe_problem,
    group_methods,
    metrics_of,
    read_results,
    title_of,
    users_of,
)

METHODS_OF = "figure8"
"""The experiment with all runs of both figures."""


class Section(NamedTuple):
    """One comparison of all methods.

    Attributes:
        title: Its head.
        picture: Name of its file.
        users: Who answered.
        metrics: To show, with their names for people; the first one ranks.
        digits: After the decimal point.
        results: Of methods and opponents.
    """

    title: str
    picture: str
    users: str
    metrics: Mapping[str, str]
    digits: int
    results: Sequence[MethodResult]


def report_figure7(config: FigureConfig) -> None:
    """Prints and writes `figure7.md`, `.csv` and `.png`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = comparable_runs(config.runs, config.data_name, OFFLINE.same, config.report)
    methods = group_methods(found.runs)
    collected = read_results(methods, OFFLINE)
    sections = []
    if results := [*collected.results, *collected.opponents]:
        sessions = results[0].values["map"].shape[1]
        title = f"{sessions:,} logged test sessions, ranked again"
        sections = [Section(title, "figure7.png", "the log", OFFLINE.metrics, OFFLINE.digits, results)]
    _write(config, "Figure 7, offline test", found, methods, sections, [collected])


def report_figure8(config: FigureConfig) -> None:
    """Prints and writes `figure8.md`, `.csv`, `figure8_long.png` and `figure8_short.png`.

    On a generated log there are `figure8_truth_long.png` and `figure8_truth_short.png` too: the same with the
    generator's own users.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = comparable_runs(config.runs, config.data_name, ONLINE.same, config.report)
    methods = group_methods(found.runs)
    read = [(test, read_results(methods, test)) for test in (ONLINE, ONLINE_TRUTH)]
    tests = [(test, collected) for test, collected in read if collected.results]
    sections = [_online_section(test, length, collected) for test, collected in tests for length in LENGTHS]
    _write(config, "Figure 8, online test", found, methods, sections, [collected for _, collected in tests])


def _online_section(test: ComparedTest, length: str, collected: Collected) -> Section:
    run = collected.results[0].runs[0]
    users = users_of(run, test)
    number = run.settings.get(f"evaluation.{length}")
    picture = f"figure8_{'truth_' if test is ONLINE_TRUTH else ''}{length}.png"
    title = f"{length.capitalize()} sessions ({number} recommendations), users: {users}"
    results = [*collected.results, *collected.opponents]
    return Section(title, picture, users, metrics_of(length), test.digits, results)


def _write(
    config: FigureConfig,
    figure: str,
    found: RunsFound,
    methods: Sequence[MethodRuns],
    sections: Sequence[Section],
    collected: Sequence[Collected],
) -> None:
    folder, title = Path(config.out), title_of(figure, found.runs)
    for section in sections:
        order = [place.result for place in ranked(section.results, next(iter(section.metrics)))]
        panels = [
            Bars(f"{head} (mean per session, 95 % interval)", {one.label: one.estimate(metric) for one in order})
            for metric, head in section.metrics.items()
        ]
        plot_bars(folder / section.picture, title, section.title, panels, same_scale=False)
    lines = [f"# {markdown_text(title)}", ""]
    if sections:
        lines += [markdown_text(describe_problem(found.runs)), "", markdown_text(NOTES), ""]
    for section in sections:
        lines += _section_lines(section)
    left_out = [line for one in collected for line in one.left_out]
    warnings = [line for one in collected for line in one.warnings]
    swept = sweep_of(METHODS_OF)
    lines += closing_lines(found, left_out, warnings, missing_methods(methods, swept["agent"], swept["seed"]))
    write_report(folder, config.report, lines, _table(found.runs, sections), [section.picture for section in sections])


def _section_lines(section: Section) -> list[str]:
    metric, head = next(iter(section.metrics.items()))
    lines = [f"## {section.title}", "", *ranking_table(section.results, section.metrics, section.digits), ""]
    if order := order_table(section.results, section.metrics, section.digits):
        lines += ["### Pairs", "", *order, ""]
    if ratios := ratio_table(section.results, metric):
        lines += [f"### {head} / popularity's, by seed", "", *ratios, ""]
    return lines


def _table(runs: Sequence[RunRecord], sections: Sequence[Section]) -> Table:
    rows = [
        [*describe_data(runs), *row]
        for section in sections
        for row in ranking_rows(section.results, list(section.metrics), section.users)
    ]
    return Table([*DATA_HEADS, *RANKING_HEADS], rows)

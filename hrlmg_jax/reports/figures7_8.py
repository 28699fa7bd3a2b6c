"""Figures 7 and 8: every method in the offline test, and in the online test in long and short sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.reports.method_results import MethodResult
from harness.reports.plots import Bars, plot_bars
from harness.reports.system_results import Collected, ComparedTest, title_of
from harness.reports.tables import Table, markdown_text
from hrlmg_jax.reports import results as hrl_mg
from hrlmg_jax.reports.off_policy import off_policy_section
from hrlmg_jax.reports.ranking import (
    RANKING_HEADS,
    interval_text,
    notes_on,
    order_table,
    ranked,
    ranking_rows,
    ranking_table,
    ratio_table,
    seeds_table,
    unit_of,
)
from hrlmg_jax.reports.worlds import WorldsConfig, several_worlds
from sim.evaluation.list_report import lists_section


class Section(NamedTuple):
    """One comparison of all methods.

    Attributes:
        title: Its head.
        picture: Name of its file.
        users: Who answered.
        metrics: To show, with their names for people; the first one ranks.
        digits: After the decimal point.
        results: Of methods and baselines.
        lists: Markdown that says what was recommended, or what the log alone tells.
    """

    title: str
    picture: str
    users: str
    metrics: Mapping[str, str]
    digits: int
    results: Sequence[MethodResult]
    lists: Sequence[str] = ()


def report_figure7(config: WorldsConfig) -> None:
    """Prints and writes `figure7.md`, `.csv` and `.png`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    _report(config, "Figure 7, offline test", [hrl_mg.OFFLINE])


def report_figure8(config: WorldsConfig) -> None:
    """Prints and writes `figure8.md`, `.csv`, `figure8_long.png` and `figure8_short.png`.

    On a generated log there are `figure8_truth_long.png` and `figure8_truth_short.png` too: the same with the
    generator's own users, who come first.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    _report(config, "Figure 8, online test", hrl_mg.ONLINE_TESTS)


def _report(config: WorldsConfig, figure: str, tests: Sequence[ComparedTest]) -> None:
    # What there is.
    found = hrl_mg.comparable_runs(config, tests[0].same)
    methods = hrl_mg.SYSTEM.methods(found.runs)
    several = config.several_worlds
    read = [(test, hrl_mg.read(methods, test, several)) for test in tests]
    sections = [section for test, collected in read if collected.results for section in _sections(test, collected)]
    # A section, and a picture, for each comparison.
    title = title_of(figure, found.runs)
    lines = [markdown_text(hrl_mg.describe_problem(found.runs)), "", *notes_on(several)] if sections else []
    for section in sections:
        order = [one.result for one in ranked(section.results, next(iter(section.metrics)))]
        panels = [
            Bars(
                f"{head} (mean per session, {interval_text(order)})",
                {one.label: one.estimate(metric, unit_of(order)) for one in order},
            )
            for metric, head in section.metrics.items()
        ]
        plot_bars(Path(config.out) / section.picture, title, section.title, panels, same_scale=False)
        lines += _section_lines(section)
    rows = [row for section in sections for row in ranking_rows(section.results, list(section.metrics), section.users)]
    # What is not in it.
    left_out = [line for test, one in read if one.results or test is hrl_mg.OFFLINE for line in one.left_out]
    warnings = [line for _, one in read for line in one.warnings]
    warnings += hrl_mg.trust_warnings(found.runs) if hrl_mg.ONLINE in tests else []
    pictures, missing = [one.picture for one in sections], hrl_mg.missing_methods(methods, config.report, several)
    hrl_mg.SYSTEM.write(config, title, found, lines, Table(RANKING_HEADS, rows), pictures, left_out, warnings, missing)


def _sections(test: ComparedTest, collected: Collected) -> list[Section]:
    results = [*collected.results, *collected.baselines]
    if test is hrl_mg.OFFLINE:
        number = "" if several_worlds(results) else f"{results[0].values['map'].shape[1]:,} "
        title = f"{number}logged test sessions, ranked again"
        lines = off_policy_section(collected.results, collected.baselines, hrl_mg.SYSTEM.evaluate)
        return [Section(title, "figure7.png", "the log", test.metrics, test.digits, results, lines)]
    run = collected.results[0].runs[0]
    users, sections = hrl_mg.users_of(run, test), []
    for length in hrl_mg.LENGTHS:
        steps = run.settings.get(f"evaluation.{length}")
        title = f"{length.capitalize()} sessions ({steps} recommendations), users: {users}"
        picture = f"figure8_{'truth_' if test is hrl_mg.ONLINE_TRUTH else ''}{length}.png"
        own = collected.results, collected.baselines
        lists = lists_section(*own, test.file, hrl_mg.SYSTEM.evaluate) if length == hrl_mg.LENGTHS[0] else []
        sections.append(Section(title, picture, users, hrl_mg.metrics_of(length), test.digits, results, lists))
    return sections


def _section_lines(section: Section) -> list[str]:
    metric, head = next(iter(section.metrics.items()))
    lines = ["", f"## {section.title}", "", *ranking_table(section.results, section.metrics, section.digits)]
    if order := order_table(section.results, section.metrics, section.digits):
        lines += ["", "### Pairs", "", *order]
    if by_seed := seeds_table(section.results, metric, section.digits):
        lines += ["", f"### Pairs by seed: {head}", "", *by_seed]
    if ratios := ratio_table(section.results, metric):
        unit = "world" if several_worlds(section.results) else "seed"
        lines += ["", f"### {head} / popularity's, by {unit}", "", *ratios]
    return [*lines, *section.lists]

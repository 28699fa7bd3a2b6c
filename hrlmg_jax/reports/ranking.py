"""Methods in the order of their means, and how sure that order is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, zip_longest
from typing import NamedTuple

from harness.reports.method_results import (
    EPISODES,
    SEEDS,
    Difference,
    MethodResult,
    Unit,
    difference,
    paired_p_values_of_seeds,
)
from harness.reports.results import p_text
from harness.reports.system_results import Collected, preset
from harness.reports.tables import Cell, markdown_list, markdown_table, markdown_text
from hrlmg_jax.reports import results as hrl_mg
from hrlmg_jax.reports.worlds import WorldResult, several_worlds

PAPER_ORDER = ("dnn", "ddpg", "hrl", "hrl_mg")
"""In every figure of the paper, ascending (but for clicks online, where HRL is above HRL-MG)."""
_CLAIMS = {
    "hrl_mg": ("hrl_mg_frozen", "hrl_mg_alpha0"),
    "hrl_mg_memory": (
        "hrl_mg_memory_frozen",
        "hrl_mg_memory_alpha0",
        "hrl_mg_conditioned",
        "hrl_mg",
        "ddpg_memory",
        "ddpg",
    ),
}
"""What an agent must be above if its goals are worth anything: its controls, and agents with less of a hierarchy."""

NOTES = (
    "Means over test sessions and seeds. A table has 95 % t-intervals over seeds where the seeds of any of its methods "
    "differ (a method without several seeds, such as a fixed list, then has none), else over sessions. p over seeds: "
    "Welch's test on the means of each method's seeds; a method without seeds is a constant. p over sessions: paired "
    "t-test on the same sessions, each a mean over seeds; it speaks of these networks and lists, and not of training "
    "again. Neither is corrected for the number of tests."
)
WORLD_NOTES = (
    "A world is the unit: the mean over test sessions and seeds of each world, then means over worlds with 95 % "
    "t-intervals. p: paired t-test over the same worlds, not corrected for the number of tests; methods that were not "
    "tested in the same worlds are not compared."
)


def notes_on(worlds: bool) -> list[str]:
    """Returns Markdown that says what intervals and tests are over: several worlds, or one."""
    return [markdown_text(WORLD_NOTES if worlds else NOTES)]


def unit_name(results: Sequence[MethodResult]) -> str:
    """Returns what episodes of results are called."""
    return "worlds" if several_worlds(results) else "sessions"


def unit_of(results: Sequence[MethodResult]) -> Unit:
    """Returns what the intervals of a table of these results are over: one unit for all."""
    return SEEDS if any(result.seeds_differ for result in results) else EPISODES


def interval_text(results: Sequence[MethodResult]) -> str:
    """Says what the intervals of a table, or picture, of these results are over."""
    return f"95 % interval over {'seeds' if unit_of(results) == SEEDS else unit_name(results)}"


def repetitions_heads(results: Sequence[MethodResult]) -> list[str]:
    """Returns the heads of `repetitions`."""
    return ["worlds", "seeds in each"] if several_worlds(results) else ["seeds"]


def repetitions(result: MethodResult) -> list[str]:
    """Returns how many worlds a result is of, if of several, and how many seeds."""
    if not isinstance(result, WorldResult):
        return [result.seeds_text]
    return [str(len(result.worlds)), f"{result.runs_per_split:.3g}" if result.runs else ""]


class Ranked(NamedTuple):
    """A method at its rank: the method of the next lower mean, and by how much it is below."""

    result: MethodResult
    next: MethodResult | None
    above: Difference | None


def ranked(results: Sequence[MethodResult], metric: str) -> list[Ranked]:
    """Returns methods by descending mean of a metric."""
    order = sorted(results, key=lambda result: -result.mean(metric))
    return [
        Ranked(result, next_best, None if next_best is None else difference(result, next_best, metric))
        for result, next_best in zip_longest(order, order[1:])
    ]


def baselines(collected: Collected, metric: str) -> dict[str, float]:
    """Returns the means of the baselines that know no user, by label."""
    results = [*collected.baselines, *collected.results]
    return {result.label: result.mean(metric) for result in results if result.name in hrl_mg.BASELINES}


def describe_p(between: Difference, episodes: str = "sessions") -> str:
    """Returns `p = 0.02 (3 and 3 seeds)`: a p-value with what it is over; nothing where nothing can be tested."""
    if between.p_value is None:
        return ""
    counts = " and ".join(str(number) for number in between.numbers if number)
    return f"{p_text(between.p_value)} ({f'{counts} seeds' if between.over_seeds else f'paired {episodes}'})"


def describe_difference(between: Difference, digits: int, episodes: str, than: str = "") -> str:
    """Returns a difference of means with its p-value, where there is one."""
    return ", ".join(filter(None, [f"{between.mean:+.{digits}f}{than}", describe_p(between, episodes)]))


def ranking_table(results: Sequence[MethodResult], metrics: Mapping[str, str], digits: int) -> list[str]:
    """Returns a Markdown table of methods by descending mean of the first metric.

    Args:
        metrics: To show, with their names for people.
        digits: After the decimal point.
    """
    first, head = next(iter(metrics.items()))
    tests = ["p over worlds"] if several_worlds(results) else ["p over seeds", "p over sessions"]
    heads = ["method", *metrics.values(), *repetitions_heads(results), f"{head}: above the next", *tests]
    over, rows = unit_of(results), []
    for result, _, above in ranked(results, first):
        estimates = [result.estimate(metric, over).text(digits) for metric in metrics]
        compared = ["", "", ""]
        if above is not None:
            of_episodes = "" if above.paired_p_value is None else p_text(above.paired_p_value)
            of_seeds = describe_p(above) if above.over_seeds else ""
            compared = [f"{above.mean:+.{digits}f}", of_seeds, of_episodes]
        if several_worlds(results):
            del compared[1]
        rows.append([result.label, *estimates, *repetitions(result), *compared])
    return [f"±: {interval_text(results)}.", "", *markdown_table(heads, rows)]


def order_table(results: Sequence[MethodResult], metrics: Mapping[str, str], digits: int) -> list[str]:
    """Returns Markdown that compares the methods of the paper pair by pair, and those with goals with their controls.

    Args:
        results: Of one test. Of several variants of a method the one nearest to its preset takes part.
        metrics: To compare, with their names for people.
        digits: After the decimal point.
    """
    of_name, pairs = _pairs(results)
    if not pairs:
        return []
    rows = []
    for lower, higher in pairs:
        differences = [difference(of_name[higher], of_name[lower], metric) for metric in metrics]
        cells = [describe_difference(between, digits, unit_name(results)) for between in differences]
        rows.append([_name_of(lower, higher), *cells])
    paper = " < ".join(hrl_mg.LABELS[name] for name in PAPER_ORDER)
    chosen = [result.label for result in of_name.values() if result.distinction]
    variants = (
        ["", "Of several variants, those nearest to their presets:", "", *markdown_list(chosen)] if chosen else []
    )
    return [
        f"Differences of pairs. The paper's order is {markdown_text(paper)}; it has no controls.",
        "",
        *markdown_table(["", *metrics.values()], rows),
        *variants,
    ]


def seeds_table(results: Sequence[MethodResult], metric: str, digits: int) -> list[str]:
    """Returns Markdown with the pairs of `order_table` seed by seed: difference and p over the same sessions."""
    of_name, pairs = _pairs(results)
    seeds = sorted({seed for result in of_name.values() if result.seeds_differ for seed in result.seeds})
    rows = []
    for lower, higher in pairs:
        first, second = of_name[higher], of_name[lower]
        p_values = paired_p_values_of_seeds(first, second, metric)
        all_seeds = difference(first, second, metric)
        cells = [p_values.get(seed) for seed in seeds]
        shown = ["" if p_value is None else p_text(p_value) for p_value in (all_seeds.paired_p_value, *cells)]
        rows.append([_name_of(lower, higher), f"{all_seeds.mean:+.{digits}f}", *shown])
    heads = ["", "difference", "means over seeds", *(f"seed {seed}" for seed in seeds)]
    return ["Paired t-test over sessions.", "", *markdown_table(heads, rows)] if rows and seeds else []


def _pairs(results: Sequence[MethodResult]) -> tuple[dict[str, MethodResult], list[tuple[str, str]]]:
    """Returns the methods that take part in comparisons by name, and their pairs: lower and higher in the paper."""
    claims = [(lower, higher) for higher, controls in _CLAIMS.items() for lower in controls]
    names = dict.fromkeys((*PAPER_ORDER, *(name for pair in claims for name in pair)))
    of_name = {name: result for name in names if (result := preset(results, name)) is not None}
    return of_name, [pair for pair in (*combinations(PAPER_ORDER, 2), *claims) if of_name.keys() >= set(pair)]


def _name_of(lower: str, higher: str) -> str:
    return f"{hrl_mg.LABELS[higher]} - {hrl_mg.LABELS[lower]}"


def ratio_table(results: Sequence[MethodResult], metric: str) -> list[str]:
    """Returns a Markdown table of means in units of popularity's, by seed or world; none without runs beside it."""
    all_ratios = {id(result): result.ratios(hrl_mg.POPULARITY, metric) for result in results}
    of_runs = [result for result in results if result.runs and not all(map(math.isnan, all_ratios[id(result)]))]
    worlds = several_worlds(results)

    def units(result: MethodResult) -> Sequence[int]:
        return result.worlds if isinstance(result, WorldResult) else result.seeds

    columns = sorted({unit for result in of_runs for unit in units(result)})
    rows = []
    for result in sorted(of_runs, key=lambda result: -result.mean(metric)):
        ratios = all_ratios[id(result)]
        by_unit = dict(zip(units(result), ratios, strict=True))
        cells = [f"{by_unit[unit]:.3f}" if unit in by_unit else "" for unit in columns]
        above = [f"{sum(ratio > 1 for ratio in ratios)} of {len(ratios)}"] if worlds else []
        rows.append([result.label, *cells, f"{min(ratios):.3f}", *above])
    heads = ["method", *(f"{'world' if worlds else 'seed'} {unit}" for unit in columns), "least"]
    return markdown_table([*heads, *(["above 1 in"] if worlds else [])], rows) if rows else []


RANKING_HEADS = (
    *("users", "metric", "rank", "method", "agent", "worlds", "seeds", "sessions", "mean"),
    *("low_over_seeds", "high_over_seeds", "low_over_sessions", "high_over_sessions"),
    *("low_over_worlds", "high_over_worlds"),
    *("ratio_to_popularity", "least_ratio_to_popularity", "next_best", "above_next_best"),
    *("welch_p_over_seeds", "welch_n", "welch_n_next_best", "paired_p_over_sessions", "paired_p_over_worlds"),
)
"""Of `ranking_rows`."""


def ranking_rows(results: Sequence[MethodResult], metrics: Sequence[str], users: str) -> list[list[Cell]]:
    """Returns rows for a CSV with the heads `RANKING_HEADS`: the ranking by each metric."""
    rows = []
    for metric in metrics:
        for rank, (result, next_best, above) in enumerate(ranked(results, metric), 1):
            worlds = result.worlds if isinstance(result, WorldResult) else ()
            sessions = result.sessions if isinstance(result, WorldResult) else result.values[metric].shape[1]
            row: list[Cell] = [users, metric, rank, result.label, result.name, " ".join(map(str, worlds))]
            row += [" ".join(map(str, result.seeds)), sessions, result.mean(metric)]
            row += result.estimate(metric, SEEDS)[1:] if result.has_interval(metric, SEEDS) else (None, None)
            over_episodes, none = result.estimate(metric, EPISODES)[1:], (None, None)
            row += [*none, *over_episodes] if worlds else [*over_episodes, *none]
            rows.append([*row, *_ratios(result, metric), *_comparison(next_best, above, bool(worlds))])
    return rows


def _ratios(result: MethodResult, metric: str) -> list[Cell]:
    ratios = result.ratios(hrl_mg.POPULARITY, metric)
    known = ratios and not any(map(math.isnan, ratios))
    return [sum(ratios) / len(ratios), min(ratios)] if known else [None, None]


def _comparison(next_best: MethodResult | None, above: Difference | None, worlds: bool) -> list[Cell]:
    if next_best is None or above is None:
        return [None] * 7
    of_seeds: list[Cell] = [above.p_value, *above.numbers] if above.over_seeds else [None, None, None]
    paired = [None, above.paired_p_value] if worlds else [above.paired_p_value, None]
    return [next_best.label, above.mean, *of_seeds, *paired]

"""Table 2: the four metrics of every method at every alpha, with intervals and Welch's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from harness.reports.plots import Bars, plot_bars
from harness.reports.tables import Cell, Table, markdown_list, markdown_table, markdown_text, write_report
from harness.runs.index import RunRecord, RunsFound, finished, group_by_settings, label_of
from harness.statistics import welch_p_value
from tpgr_jax.reports.results import (
    METHODS,
    METRICS,
    ON_A_TREE,
    OPPONENTS,
    Method,
    MethodResult,
    comparable_runs,
    describe_problem,
    describe_unfinished,
    is_synthetic,
    method_label,
    read_results,
    training_command,
    without_effect,
)

ALPHAS = (0.0, 0.1, 0.2)
SIGNIFICANT = 1e-6
"""The paper's level; smaller p-values get a star."""

_NOTES = (
    "Means over test users and seeds with 95 % t-intervals: over seeds where seeds differ, else over users. `*`: TPGR "
    "(or TPGR+, which is not the paper's) is above the best other method with p < 1e-6 (Welch's test on the values of "
    "users, those of all seeds pooled: a user counts once for every seed, so p is too small where seeds agree). The "
    "ratio is to the best fixed list of the same split."
)


@dataclass(frozen=True)
class Table2Config:
    """Which runs to compare (`conf/report/table2.yaml`)."""

    report: Literal["table2"]
    runs: list[str] | None
    data_name: str | None
    out: str
    several_splits: bool = False


class Collected(NamedTuple):
    """Results in the order of the table, and the runs that repeat a seed of another."""

    results: list[MethodResult]
    repeated: list[RunRecord]


class Star(NamedTuple):
    """The comparison of a result of TPGR or TPGR+ with the best other method in one metric."""

    opponent: str
    p_value: float
    significant: bool


def collect(runs: Sequence[RunRecord]) -> Collected:
    """Returns one result per method, variant of it, and alpha; variants of a method differ in more than seed and alpha.

    Raises:
        UserError: A result is missing or damaged.
    """
    order = [method.label for method in METHODS]
    labels = sorted({method_label(run) for run in runs}, key=lambda label: (_place(order, label), label))
    results, repeated = [], []
    for method in labels:
        own = [run for run in runs if method_label(run) == method]
        for group in group_by_settings(own, partial(_ignored, method=method)):
            for alpha in sorted({float(run.settings["env.alpha"]) for run in group.runs}):
                at_alpha = [run for run in group.runs if run.settings["env.alpha"] == alpha]
                result, again = read_results(at_alpha, label_of(method, group.distinction), method, alpha)
                results.append(result)
                repeated += again
    return Collected(results, repeated)


def star(result: MethodResult, results: Sequence[MethodResult], metric: str) -> Star | None:
    """Compares a result of TPGR or TPGR+ with the best of the other methods at its alpha, by Welch's test.

    It is on the values of users, those of all seeds pooled, so that a user counts once for every seed.

    Args:
        result: Of any method.
        results: All results.
        metric: One of `METRICS`.

    Returns:
        The comparison; None for other methods, or where there is none.
    """
    others = [other for other in results if other.alpha == result.alpha and other.method not in ON_A_TREE]
    if result.method not in ON_A_TREE or not others:
        return None
    best = max(others, key=lambda other: float(np.mean(other.values[metric])))
    own, opposed = result.values[metric].ravel(), best.values[metric].ravel()
    if min(len(own), len(opposed)) < 2:
        return None
    p_value = welch_p_value(own, opposed)
    return Star(best.label, p_value, p_value < SIGNIFICANT and float(own.mean()) > float(opposed.mean()))


def missing(results: Sequence[MethodResult]) -> list[tuple[Method, float]]:
    """Returns the methods and alphas of the paper's table (and the methods beyond it) that no result covers."""
    present = {(result.method, result.alpha) for result in results}
    return [(method, alpha) for alpha in ALPHAS for method in METHODS if (method.label, alpha) not in present]


def missing_commands(runs: Sequence[RunRecord], results: Sequence[MethodResult]) -> list[str]:
    """Returns the command for each missing result, on the data of `runs` and as the method's own runs."""
    lines = []
    for method, alpha in missing(results):
        own = [run for run in runs if method_label(run) == method.label]
        reference = own[0] if own else runs[0] if runs else None
        lines.append(training_command(reference, method, alpha, like_reference=bool(own)))
    return lines


def report_table2(config: Table2Config) -> None:
    """Prints and writes `table2.md`, `.csv` and `.png`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = comparable_runs(config.runs, config.data_name, config.several_splits)
    runs = finished(found.runs)
    collected = collect(runs)
    folder = Path(config.out)
    title = f"Table 2{f': {runs[0].data_name}' if runs else ''}{' (SYNTHETIC)' if is_synthetic(runs) else ''}"
    pictures = []
    if runs:
        plot_bars(folder / "table2.png", title, "reward per recommendation, 95 % interval", _panels(collected.results))
        pictures = ["table2.png"]
    write_report(folder, "table2", _lines(title, found, collected), _table(runs, collected.results), pictures)


def _place(order: Sequence[str], label: str) -> int:
    return order.index(label) if label in order else len(order)


def _ignored(key: str, method: str) -> bool:
    has_tree = method in ON_A_TREE
    return without_effect(key) or key == "env.alpha" or (not has_tree and key.startswith("tree."))


def _lines(title: str, found: RunsFound, collected: Collected) -> list[str]:
    results, runs = collected.results, finished(found.runs)
    lines = [f"# {markdown_text(title)}", ""]
    if runs:
        lines += [markdown_text(describe_problem(results[0])) + ".", "", _NOTES, ""]
    for alpha in sorted({result.alpha for result in results}):
        at_alpha = [result for result in results if result.alpha == alpha]
        lines += [f"## alpha = {alpha:g}", "", *_alpha_table(at_alpha), "", *_comparisons(at_alpha), ""]
    if unfinished := describe_unfinished(found):
        lines += ["## Incomplete runs", "", *markdown_list(unfinished), ""]
    if collected.repeated:
        repeated = [str(run.folder.path) for run in collected.repeated]
        lines += ["## Left out: older repetitions of a seed", "", *markdown_list(repeated), ""]
    if commands := missing_commands(found.runs, results):
        lines += ["## Missing", "", "```bash", *commands, "```", ""]
    return lines[:-1]


def _alpha_table(results: Sequence[MethodResult]) -> list[str]:
    length = results[0].runs[0].settings.get("env.episode_length")
    heads = [
        "method",
        "reward",
        f"precision@{length}",
        f"recall@{length}",
        f"F1@{length}",
        "reward / best list",
        "seeds",
    ]
    rows = [
        [
            result.label,
            *(_starred(result, results, metric) for metric in METRICS),
            f"{result.ratio:.3f}",
            _seeds(result),
        ]
        for result in results
    ]
    for name, policy in OPPONENTS.items():
        estimates = [results[0].opponent(policy, metric) for metric in METRICS]
        best = results[0].opponent("best_fixed_list", "reward").mean
        ratio = f"{estimates[0].mean / best:.3f}" if best > 0 else "nan"
        rows.append([name, *map(str, estimates), ratio, ""])
    return markdown_table(heads, rows)


def _starred(result: MethodResult, results: Sequence[MethodResult], metric: str) -> str:
    compared = star(result, results, metric)
    return f"{result.estimate(metric)}{' *' if compared is not None and compared.significant else ''}"


def _seeds(result: MethodResult) -> str:
    number = len(result.runs)
    return f"{number}{' (equal)' if number > 1 and not result.seed_matters else ''}"


def _comparisons(results: Sequence[MethodResult]) -> list[str]:
    """Says for each result of TPGR and TPGR+ how sure its difference from every other method is."""
    lines = []
    for result in results:
        if result.method not in ON_A_TREE:
            continue
        own = result.values["reward"].ravel()
        compared = [(other.label, other.values["reward"].ravel()) for other in results if other.method != result.method]
        compared.append(("best fixed list", result.opponents["best_fixed_list"]["reward"]))
        parts = [f"{name} p = {welch_p_value(own, values):.2g}" for name, values in compared if len(values) > 1]
        if parts and len(own) > 1:
            lines.append(markdown_text(f"Reward of {result.label} against: {', '.join(parts)}."))
    return lines


def _table(runs: Sequence[RunRecord], results: Sequence[MethodResult]) -> Table:
    heads = ["data", "synthetic", "checksum", "alpha", "method", "seeds", "users", "interval_over"]
    for metric in METRICS:
        heads += [metric, f"{metric}_low", f"{metric}_high", f"{metric}_p", f"{metric}_star"]
    heads += ["ratio_to_best_list", "next_best"]
    rows: list[list[Cell]] = []
    for result in results:
        data = result.runs[0].data
        users = result.values["reward"].shape[1]
        over = "seeds" if result.seed_matters else "users"
        row: list[Cell] = [data.get("name"), bool(data.get("synthetic")), data.get("checksum"), result.alpha]
        row += [result.label, " ".join(map(str, result.seeds)), users, over]
        for metric in METRICS:
            compared = star(result, results, metric)
            row += [*result.estimate(metric), *((compared.p_value, compared.significant) if compared else (None, None))]
        compared = star(result, results, "reward")
        rows.append([*row, result.ratio, compared.opponent if compared else None])
    return Table(heads, rows)


def _panels(results: Sequence[MethodResult]) -> list[Bars]:
    panels = []
    for alpha in sorted({result.alpha for result in results}):
        at_alpha = [result for result in results if result.alpha == alpha]
        best = at_alpha[0].opponent("best_fixed_list", "reward").mean
        bars = {result.label: result.estimate("reward") for result in at_alpha}
        panels.append(Bars(f"alpha = {alpha:g}", bars, {"best fixed list": best}))
    return panels

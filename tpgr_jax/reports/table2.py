"""Table 2: the four metrics of every method at every alpha, with intervals and Welch's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.reports.method_results import MethodResult, pooled_p_value
from harness.reports.plots import Bars, plot_bars
from harness.reports.results import p_text
from harness.reports.system_results import Collected, Rerun, grouped, title_of
from harness.reports.tables import Cell, Table, markdown_table, markdown_text
from harness.runs.index import RunRecord
from tpgr_jax.reports import results as tpgr

SIGNIFICANT = 1e-6
"""The paper's level; smaller p-values get a star."""

_NOTES = (
    "Means over test users and seeds with 95 % t-intervals: over seeds where seeds differ, else over users. `*`: TPGR "
    "(or TPGR+, which is not the paper's) is above the best other method with p < 1e-6 (Welch's test on the values of "
    "users, those of all seeds pooled: a user counts once for every seed, so p is too small where seeds agree). The "
    "ratio is to the best fixed list of the same split."
)


class Star(NamedTuple):
    """The comparison of a result of TPGR or TPGR+ with the best other method in one metric."""

    baseline: str
    p_value: float
    significant: bool


def collect(runs: Sequence[RunRecord]) -> Collected:
    """Returns one result per method, variant of it, and alpha; variants of a method differ in more than seed and alpha.

    Raises:
        UserError: A result is damaged, or of other test users.
    """

    def ignored(name: str, key: str) -> bool:
        return key == "env.alpha" or (name not in tpgr.ON_A_TREE and key.startswith("tree."))

    return tpgr.SYSTEM.read(tpgr.SYSTEM.methods(runs, ignored, apart=tpgr.alpha_of), tpgr.TEST)


def star(result: MethodResult, results: Sequence[MethodResult], metric: str) -> Star | None:
    """Compares a result of TPGR or TPGR+ with the best of the other methods at its alpha, by Welch's test.

    It is on the values of users, those of all seeds pooled, so that a user counts once for every seed.

    Args:
        results: All results.
        metric: One of `TEST.metrics`.

    Returns:
        The comparison; None for other methods, or where there is none.
    """
    if result.name not in tpgr.ON_A_TREE:
        return None
    alpha = tpgr.alpha_of(result.runs[0])
    others = [other for other in results if other.name not in tpgr.ON_A_TREE and tpgr.alpha_of(other.runs[0]) == alpha]
    if not others:
        return None
    best = max(others, key=lambda other: other.mean(metric))
    p_value = pooled_p_value(result, best, metric)
    if p_value is None:
        return None
    return Star(best.label, p_value, p_value < SIGNIFICANT and result.mean(metric) > best.mean(metric))


def missing_runs(runs: Sequence[RunRecord]) -> list[Rerun]:
    """Returns the methods that have no run at an alpha of the runs at hand; their seeds, too, are those at hand."""
    alphas, missing = sorted({tpgr.alpha_of(run) for run in runs}), []
    for name in tpgr.METHODS:
        runs_of = [run for run in runs if tpgr.method_name(run) == name]
        absent = [f"{alpha:g}" for alpha in alphas if alpha not in {tpgr.alpha_of(run) for run in runs_of}]
        if absent:
            last = [f"env.alpha={','.join(absent)}", tpgr.seeds_of(runs)]
            missing.append(Rerun(name, (runs_of or runs)[0], [], last, like_reference=bool(runs_of)))
    return missing


def report_table2(config: tpgr.TpgrRunsConfig) -> None:
    """Prints and writes `table2.md`, `.csv` and `.png`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    found = tpgr.comparable_runs(config)
    collected = collect(found.runs)
    at_alphas = grouped(collected.results, lambda result: tpgr.alpha_of(result.runs[0]))
    title, pictures = title_of("Table 2", found.runs), []
    lines = [markdown_text(tpgr.describe_problem(collected.results[0])) + ".", "", _NOTES] if at_alphas else []
    for alpha, results in sorted(at_alphas.items()):
        lines += ["", f"## alpha = {alpha:g}", "", *_alpha_table(results), "", *_comparisons(results)]
    if at_alphas:
        path = Path(config.out) / "table2.png"
        panels = [
            Bars(
                f"alpha = {alpha:g}", {one.label: one.estimate("reward") for one in results}, tpgr.baselines(results[0])
            )
            for alpha, results in sorted(at_alphas.items())
        ]
        plot_bars(path, title, "reward per recommendation, 95 % interval", panels)
        pictures = [path.name]
    missing = missing_runs(found.runs)
    tpgr.SYSTEM.write(
        config, title, found, lines, _table(at_alphas), pictures, collected.left_out, collected.warnings, missing
    )


def _alpha_table(results: Sequence[MethodResult]) -> list[str]:
    length = results[0].runs[0].settings.get("env.episode_length")
    heads = ["method", *(head.format(length) for head in ("reward", "precision@{}", "recall@{}", "F1@{}"))]
    rows = []
    for result in results:
        rows.append([result.label, *_starred(result, results), f"{tpgr.ratio(result):.3f}", result.seeds_text])
    best_list = tpgr.baseline(results[0], tpgr.BEST_LIST)
    for other in (tpgr.baseline(results[0], policy) for policy in tpgr.BASELINES):
        rows.append([other.label, *_starred(other, results), f"{tpgr.ratio(other, best_list):.3f}", ""])
    return markdown_table([*heads, "reward / best list", "seeds"], rows)


def _starred(result: MethodResult, results: Sequence[MethodResult]) -> list[str]:
    stars = {metric: star(result, results, metric) for metric in tpgr.TEST.metrics}
    return [f"{result.estimate(metric)}{' *' if one and one.significant else ''}" for metric, one in stars.items()]


def _comparisons(results: Sequence[MethodResult]) -> list[str]:
    """Says for each result of TPGR and TPGR+ how sure its difference from every other method is."""
    lines = []
    for result in results:
        others = [other for other in results if other.name != result.name]
        others = [*others, tpgr.baseline(result, tpgr.BEST_LIST)] if result.name in tpgr.ON_A_TREE else []
        p_values = [(other.label, pooled_p_value(result, other, "reward")) for other in others]
        parts = [f"{label} {p_text(p_value)}" for label, p_value in p_values if p_value is not None]
        if parts:
            lines.append(markdown_text(f"Reward of {result.label} against: {', '.join(parts)}."))
    return lines


def _table(at_alphas: Mapping[float, Sequence[MethodResult]]) -> Table:
    heads = ["alpha", "method", "seeds", "users", "interval_over"]
    for metric in tpgr.TEST.metrics:
        heads += [metric, f"{metric}_low", f"{metric}_high", f"{metric}_p", f"{metric}_star"]
    rows: list[list[Cell]] = []
    for alpha, results in at_alphas.items():
        for result in results:
            row: list[Cell] = [alpha, result.label, " ".join(map(str, result.seeds))]
            row += [result.values["reward"].shape[1], result.interval_over("users")]
            for metric in tpgr.TEST.metrics:
                compared = star(result, results, metric)
                row += [
                    *result.estimate(metric),
                    *((compared.p_value, compared.significant) if compared else (None, None)),
                ]
            compared = star(result, results, "reward")
            rows.append([*row, tpgr.ratio(result), compared.baseline if compared else None])
    return Table([*heads, "ratio_to_best_list", "next_best"], rows)

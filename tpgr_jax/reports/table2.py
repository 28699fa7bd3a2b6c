"""Table 2: the four metrics of every method at every alpha, with intervals and paired tests over test users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from harness.commands.command_words import override_value
from harness.reports.method_results import (
    EPISODES,
    SEEDS,
    SPLITS,
    MethodResult,
    Unit,
    paired_p_value_of,
    paired_p_value_over_splits,
    paired_p_values_of_seeds,
    paired_p_values_of_splits,
    same_episodes,
)
from harness.reports.plots import Bars, plot_bars
from harness.reports.results import p_text
from harness.reports.system_results import Collected, ComparedTest, Rerun, RunsConfig, grouped, title_of
from harness.reports.tables import Cell, Table, markdown_table, markdown_text
from harness.runs.index import RunRecord
from sim.evaluation.list_report import lists_section
from tpgr_jax.budgets import reading_of
from tpgr_jax.reports import results as tpgr
from tpgr_jax.reports.readings import SPENT, describe_budget, spent, stopped_early, unequal_choices

SIGNIFICANT = 1e-6
"""The paper's level; smaller p-values get a star."""

_NOTES = (
    f"Means over {tpgr.USERS}; ±: 95 % t-intervals over what the head of the column names. A user's value is the mean "
    "over seeds. `*`: TPGR (or TPGR+, which is not the paper's) is above the best other method with p < 1e-6 (paired "
    f"t-test over the {tpgr.USERS} of all folds), and above it in each fold. The ratio is to the best fixed list on "
    "the same users."
)
_CAVEAT = (
    f"p is of paired t-tests, not corrected for their number. Over {tpgr.USERS} it says how sure it is that these "
    "trained policies differ on such users, and not whether training again would lead to the same: for that look at "
    "folds and seeds. Folds have disjoint test users and share training users. The best other method is the best on "
    "these users."
)


class Star(NamedTuple):
    """The comparison of a result of TPGR or TPGR+ with the best other method in one metric.

    Attributes:
        baseline: The other method.
        p_value: Of the paired t-test over the users of all folds.
        significant: Whether that is below `SIGNIFICANT` and the mean above the other's, in each fold too.
    """

    baseline: str
    p_value: float
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Table2Config(RunsConfig):
    """Which runs to compare, and at which of their budgets (`conf/report/table2.yaml`)."""

    budget: Literal["episodes", "seconds"] | None = None


def collect(runs: Sequence[RunRecord], budget: str | None = None) -> Collected:
    """Returns one result per method, variant of it, and alpha; variants of a method differ in more than seed and alpha.

    Args:
        budget: `episodes` or `seconds`, at which runs are read; None reads their newest states.

    Raises:
        UserError: A result is damaged, or of other test users.
    """

    def ignored(name: str, key: str) -> bool:
        return key == "env.alpha" or (name not in tpgr.ON_A_TREE and key.startswith("tree."))

    return tpgr.SYSTEM.read(tpgr.SYSTEM.methods(runs, ignored, apart=tpgr.alpha_of), _test_at(budget))


def _test_at(budget: str | None) -> ComparedTest:
    return tpgr.TEST if budget is None else tpgr.TEST._replace(file=reading_of(budget))


def star(result: MethodResult, results: Sequence[MethodResult], metric: str) -> Star | None:
    """Compares a result of TPGR or TPGR+ with the best of the other methods at its alpha, by the paired t-test.

    It is on the values of users, each a mean over seeds.

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
    p_value = paired_p_value_of(result, best, metric)
    if p_value is None:
        return None
    above = result.values_of(metric, SPLITS) > best.values_of(metric, SPLITS)
    return Star(best.label, p_value, bool(p_value < SIGNIFICANT and above.all()))


def missing_runs(runs: Sequence[RunRecord], budget: str | None = None) -> list[Rerun]:
    """Returns the methods that have no run at an alpha of the runs at hand; their seeds, too, are those at hand.

    Args:
        budget: At which runs are read; what is missing then needs the budgets of the runs at hand.
    """
    alphas, missing = sorted({tpgr.alpha_of(run) for run in runs}), []
    for name in tpgr.METHODS:
        runs_of = [run for run in runs if tpgr.method_name(run) == name]
        absent = [f"{alpha:g}" for alpha in alphas if alpha not in {tpgr.alpha_of(run) for run in runs_of}]
        if absent:
            last = [f"env.alpha={','.join(absent)}", *tpgr.repetitions_of(runs)]
            chosen = [] if budget is None or runs_of else _budgets_like(runs, budget, name)
            missing.append(Rerun(name, (runs_of or runs)[0], chosen, last, like_reference=bool(runs_of)))
    return missing


def _budgets_like(runs: Sequence[RunRecord], budget: str, name: str) -> list[str]:
    """Returns the overrides that give a method the budgets of the runs at hand."""
    run = next((run for run in runs if run.settings.get(f"train.budgets.{budget}")), runs[0])
    budgets = [f"train.budgets.{key}" for key in ("episodes", "seconds", "evaluations")]
    keys = ("train.steps", "train.log_every", *budgets)
    values = {key: run.settings.get(key) for key in keys}
    if name in tpgr.BY_SECONDS_ONLY:
        values["train.budgets.episodes"] = None
    return [f"{key}={override_value(value)}" for key, value in values.items()]


def report_table2(config: Table2Config) -> None:
    """Prints and writes `table2.md`, `.csv` and `.png`; at a budget `table2_episodes.*` or `table2_seconds.*`.

    Raises:
        UserError: No runs, runs that cannot be compared, or files that cannot be read or written.
    """
    # Read the runs.
    found = tpgr.comparable_runs(config)
    collected, test = collect(found.runs, config.budget), _test_at(config.budget)
    at_alphas = grouped(collected.results, lambda result: tpgr.alpha_of(result.runs[0]))
    title, pictures, warnings = title_of("Table 2", found.runs), [], [*collected.warnings]
    lines = (
        [markdown_text(tpgr.describe_problem(tpgr.with_most_users(collected.results))) + ".", "", _NOTES]
        if at_alphas
        else []
    )
    folds = tpgr.folds_of(run for one in collected.results for run in one.runs)
    # A table for each alpha.
    if config.budget is not None:
        lines += ["", describe_budget(collected.results, config.budget)] if at_alphas else []
        warnings += stopped_early(collected.results, config.budget)
        warnings += unequal_choices(collected.results, config.budget)
        config = replace(config, report=f"table2_{config.budget}")
    for alpha, results in sorted(at_alphas.items()):
        lines += ["", f"## alpha = {alpha:g}", "", *_users_of(results, collected.results)]
        lines += _alpha_table(results, config.budget)
        lines += ["", *_comparisons(results, folds)]
        beside = [tpgr.baseline(tpgr.with_most_users(results), policy) for policy in tpgr.BASELINES]
        lines += lists_section(results, beside, test.file, tpgr.SYSTEM.evaluate)
        warnings += _of_other_users(results)
    # The picture, and what is missing.
    if at_alphas:
        path = Path(config.out) / f"{config.report}.png"
        panels = [
            Bars(
                f"alpha = {alpha:g}",
                {one.label: one.estimate("reward", EPISODES) for one in results},
                tpgr.baselines(tpgr.with_most_users(results)),
            )
            for alpha, results in sorted(at_alphas.items())
        ]
        plot_bars(path, title, f"reward per recommendation, 95 % interval over {tpgr.USERS}", panels)
        pictures = [path.name]
    missing = missing_runs(found.runs, config.budget)
    tpgr.SYSTEM.write(config, title, found, lines, _table(at_alphas), pictures, collected.left_out, warnings, missing)


def _users_of(results: Sequence[MethodResult], all_results: Sequence[MethodResult]) -> list[str]:
    """Says who tested the results at one alpha, where the head of the report says it of more users."""
    described, head = (tpgr.describe_users(tpgr.with_most_users(some)) for some in (results, all_results))
    return [] if described == head else [f"Here {described}.", ""]


def _alpha_table(results: Sequence[MethodResult], budget: str | None) -> list[str]:
    length = results[0].runs[0].settings.get("env.episode_length")
    metrics = (head.format(length) for head in ("reward", "precision@{}", "recall@{}", "F1@{}"))
    heads = ["method", *(f"{metric} ± over users" for metric in metrics), "reward / best list", "seeds"]
    reference = tpgr.with_most_users(results)
    best_list = tpgr.baseline(reference, tpgr.BEST_LIST)
    shown = [(result, tpgr.ratio(result), result.seeds_text) for result in results]
    for other in (tpgr.baseline(reference, policy) for policy in tpgr.BASELINES):
        shown.append((other, tpgr.ratio(other, best_list), ""))
    rows = [[one.label, *_starred(one, results), f"{ratio:.3f}", seeds] for one, ratio, seeds in shown]
    units: list[tuple[Unit, str]] = [(SPLITS, "folds"), (SEEDS, "seeds")]
    for unit, name in units:
        if any(one.has_interval("reward", unit) for one in results):
            heads.append(f"reward ± over {name}")
            cells = [str(one.estimate("reward", unit)) if one.has_interval("reward", unit) else "" for one, *_ in shown]
            rows = [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
    if budget is not None:
        heads += SPENT.values()
        rows = [[*row, *spent(one, budget)] for row, (one, *_) in zip(rows, shown, strict=True)]
    return markdown_table(heads, rows)


def _starred(result: MethodResult, results: Sequence[MethodResult]) -> list[str]:
    stars = {metric: star(result, results, metric) for metric in tpgr.TEST.metrics}
    return [
        f"{result.estimate(metric, EPISODES)}{' *' if one and one.significant else ''}" for metric, one in stars.items()
    ]


def _comparisons(results: Sequence[MethodResult], folds: Sequence[int]) -> list[str]:
    """Returns Markdown that says for TPGR and TPGR+ how sure the difference from every other method is.

    Args:
        results: At one alpha.
        folds: Of the whole report, ascending; empty without folds.
    """
    # Who is compared with whom, and over what.
    compared = [
        (result, other)
        for result in results
        if result.name in tpgr.ON_A_TREE
        for other in (*results, tpgr.baseline(result, tpgr.BEST_LIST))
        if other.name != result.name
    ]
    seeds = sorted({seed for result, _ in compared if result.seeds_differ for seed in result.seeds})
    here = tpgr.folds_of(run for result in results for run in result.runs)
    several = [folds.index(fold) for fold in here] if len(here) > 1 else []
    # A row for each pair.
    rows = []
    for result, other in compared:
        pooled = paired_p_value_of(result, other, "reward")
        if pooled is None:
            continue
        of_folds = paired_p_values_of_splits(result, other, "reward")
        of_seeds = paired_p_values_of_seeds(result, other, "reward")
        p_values = [pooled, *([paired_p_value_over_splits(result, other, "reward")] if several else [])]
        p_values += [*(of_folds.get(place) for place in several), *(of_seeds.get(seed) for seed in seeds)]
        difference = result.mean("reward") - other.mean("reward")
        cells = ["" if one is None else p_text(one) for one in p_values]
        rows.append([f"{result.label} - {other.label}", f"{difference:+.4f}", *cells])
    heads = ["reward", "difference", "over users", *([f"over {len(here)} folds"] if several else [])]
    heads += [
        *(f"fold {folds[place]}, over users" for place in several),
        *(f"seed {seed}, over users" for seed in seeds),
    ]
    return [f"Differences of rewards. {_CAVEAT}", "", *markdown_table(heads, rows)] if rows else []


def _of_other_users(results: Sequence[MethodResult]) -> list[str]:
    """Says which results are of other folds than most, and so can be compared with no result of these."""
    reference = tpgr.with_most_users(results)
    return [
        f"{one.label} at alpha {tpgr.alpha_of(one.runs[0]):g} was tested on other folds than {reference.label}: their "
        "users differ, so they are not compared"
        for one in results
        if not same_episodes(one, reference)
    ]


def _table(at_alphas: Mapping[float, Sequence[MethodResult]]) -> Table:
    heads = ["alpha", "method", "seeds", "users"]
    for metric in tpgr.TEST.metrics:
        heads += [metric, f"{metric}_low_over_users", f"{metric}_high_over_users", f"{metric}_low_over_seeds"]
        heads += [f"{metric}_high_over_seeds", f"{metric}_paired_p", f"{metric}_star"]
    rows: list[list[Cell]] = []
    for alpha, results in at_alphas.items():
        for result in results:
            row: list[Cell] = [alpha, result.label, " ".join(map(str, result.seeds))]
            row.append(result.values["reward"].shape[1])
            for metric in tpgr.TEST.metrics:
                compared = star(result, results, metric)
                over_seeds = result.estimate(metric, SEEDS)[1:] if result.has_interval(metric, SEEDS) else (None, None)
                row += [*result.estimate(metric, EPISODES), *over_seeds]
                row += [compared.p_value, compared.significant] if compared else [None, None]
            compared = star(result, results, "reward")
            rows.append([*row, tpgr.ratio(result), compared.baseline if compared else None])
    return Table([*heads, "ratio_to_best_list", "next_best"], rows)

"""The trust bench as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.reports.plots import Scatter, plot_scatter
from harness.reports.tables import markdown_table, markdown_text
from hrlmg_jax.evaluation.trust_thresholds import (
    BANDS,
    Case,
    Counts,
    Rule,
    cases_of,
    count,
    present_rules,
    proposed_rules,
)
from hrlmg_jax.reports.off_policy import estimate_text
from hrlmg_jax.reports.trust_over_worlds import over_worlds_section

_OVER = {
    "reward_over_log": "reward / the log's best",
    "late_clicks_over_log": "late clicks / the log's",
    "value_over_second_kind": "value / that in the other kind",
    "disagreement_over_log": "disagreement / that on the log",
}
"""Signals (`trust_signals`) and their heads."""


def table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of a Markdown document: over worlds, all logs, warnings, then the policies of each log."""
    heads = ["world", "shop", "simulator", "steps", "policies", "learned / true, median", "least", "most"]
    heads += ["within 25 %", "Spearman", "95 %", "regret", "kept", "log-loss (truth)", "click AUC", "order AUC"]
    rows = []
    for entry in entries:
        test = entry["prediction"].get("test") or entry["prediction"]["held_out"]
        for length, metrics in entry["agreement"].items():
            found = metrics["reward"]
            interval = found["spearman_ci95"]
            best = "" if test["best_log_loss"] is None else f" ({test['best_log_loss']:.4f})"
            kept = [f"{agent} {by_length[length]:.2f}" for agent, by_length in entry["kept"].items()]
            rows.append(
                [str(entry["world"]), entry["shop"], entry["simulator"], length, str(found["policies"])]
                + [f"{found['ratio'][key]:.2f}" for key in ("median", "least", "most")]
                + [str(found["within_25_percent"]), "" if found["spearman"] is None else f"{found['spearman']:.2f}"]
                + ["" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}", f"{found['regret']:.0%}"]
                + [", ".join(kept), f"{test['log_loss']:.4f}{best}"]
                + [f"{test[f'{name}_auc']:.3f}" for name in ("click", "order")]
            )
    over_worlds = over_worlds_section(entries)
    lines = ["# Learned and true users", "", *over_worlds, *([""] if over_worlds else []), *markdown_table(heads, rows)]
    lines += ["", *warnings_section(entries)]
    for entry in entries:
        lines += ["", f"## World {entry['world']}, shop {entry['shop']}, simulator={entry['simulator']}", ""]
        lines += _policies(entry)
        if "off_policy" in entry:
            lines += ["", *_off_policy(entry["off_policy"])]
    return lines


def warnings_section(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Returns how many policies have a warning, by what learned users pay over what true users pay."""
    cases = cases_of(entries)
    groups = {"agents": [case for case in cases if case.is_agent]}
    groups["other policies"] = [case for case in cases if not case.is_agent]
    # Each signal, agents apart; then all together, by shop and kind of users.
    *alone, together = present_rules()
    rows = [_warnings(_named(rule), name, of, rule) for rule in [*alone, together] for name, of in groups.items() if of]
    kinds = dict.fromkeys((case.shop, case.simulator) for case in cases)
    if len(kinds) > 1:
        for shop, simulator in kinds:
            of = [case for case in cases if (case.shop, case.simulator) == (shop, simulator)]
            rows.append(_warnings("any of them", f"{shop}, {simulator}", of, together))
    heads = ["a warning", "of", *(f"learned / true {band}" for band in BANDS)]
    return ["## Warnings", "", *markdown_table(heads, rows)]


def _warnings(name: str, group: str, cases: Sequence[Case], rule: Rule) -> list[str]:
    return [name, group, *(_of(count(cases, rule, *bounds)) for bounds in BANDS.values())]


def _of(counts: Counts) -> str:
    return f"{counts.warned} of {counts.cases}" if counts.cases else "-"


def _named(rule: Rule) -> str:
    if len(rule.thresholds) > 1:
        return "any of them"
    ((signal, threshold),) = rule.thresholds.items()
    return f"{signal} > {threshold:g}"


def thresholds_section(
    entries: Sequence[dict[str, Any]],
    chosen_on: Sequence[int],
    tested_on: Sequence[int],
    wrong_above: float,
    fine_below: float,
    false_alarms: float,
) -> list[str]:
    """Returns thresholds proposed from some worlds, and hits and false alarms there and in others.

    Args:
        entries: Results, which name their `agents`.
        chosen_on: Worlds that may be looked at.
        tested_on: Worlds that may not.
        wrong_above: Learned / true of policies that deserve a warning.
        fine_below: And of those that do not.
        false_alarms: Share of fine policies that may be warned of.

    Raises:
        UserError: The chosen worlds have no fine policy.
    """
    cases = cases_of(entries)
    parts = [[case for case in cases if case.world in worlds] for worlds in (chosen_on, tested_on)]
    if not any(case.ratio <= fine_below for case in parts[0]):
        raise UserError(
            f"no policy of worlds {list(chosen_on)} is paid at most {fine_below:g} times the truth",
            where="choose_on",
            do="Name worlds that there are results of.",
        )
    rows = []
    for kind, rules in (("now", present_rules()), ("proposed", proposed_rules(parts[0], fine_below, false_alarms))):
        for rule in rules:
            limits = "; ".join(f"{signal} > {threshold:g}" for signal, threshold in rule.thresholds.items())
            row = [kind, limits]
            for part in parts:
                for of in (part, [case for case in part if case.is_agent]):
                    row += [_of(count(of, rule, above=wrong_above)), _of(count(of, rule, at_most=fine_below))]
            rows.append(row)
    heads = ["thresholds", "a warning if"]
    for name in ("chosen on", "tested on"):
        for group in ("", ", agents"):
            heads += [f"hits, {name}{group}", f"false alarms, {name}{group}"]
    explained = (
        f"Hits: warnings of policies that are paid more than {wrong_above:g} times the truth; false alarms: of those "
        f"that are paid at most {fine_below:g} times. Chosen on worlds {_listed(chosen_on)} for at most "
        f"{false_alarms:.0%} false alarms; tested on worlds {_listed(tested_on)}."
    )
    return ["## Thresholds", "", markdown_text(explained), "", *markdown_table(heads, rows)]


def _listed(worlds: Sequence[int]) -> str:
    return ", ".join(map(str, worlds)) or "none"


def _off_policy(found: dict[str, Any]) -> list[str]:
    """Returns what the log alone tells of each policy beside what true users pay, and how the two agree."""
    # A row per policy.
    of = list(next(iter(found["true"].values())))
    heads = ["from the log alone"]
    for key in of:
        label = "one step" if key == "step" else f"first {key}"
        heads += [f"{label}: true", "simulated", "importance sampling", "doubly robust", "effective"]
    rows = []
    for name, policy in found["policies"].items():
        row = [name]
        for key in of:
            one, weighted = (policy["step"], "replay") if key == "step" else (policy["first"][key], "per_decision")
            mark = "*" if key != "step" and one["corrected_steps"] < int(key) else ""
            row += [f"{found['true'][name][key]:.3f}", f"{one['simulated']:.3f}", estimate_text(one[weighted])]
            row += [estimate_text(one["doubly_robust"], mark), f"{one['effective']:.0f}"]
        rows.append(row)
    # A row per horizon and estimator.
    compared = []
    for key, by_estimator in found["agreement"].items():
        for estimator, agreed in by_estimator.items():
            cells = ["-"] * 4
            if agreed["policies"]:
                spearman = "-" if agreed["spearman"] is None else f"{agreed['spearman']:.2f}"
                cells = [f"{agreed['ratio']:.2f}", f"{agreed['error']:.0%}", f"{agreed['covered']:.0%}", spearman]
            compared.append([key, estimator, str(agreed["policies"]), *cells])
    agreement_heads = [
        "reward of",
        "estimator",
        "policies with an estimate",
        "estimate / true, median",
        "error, median",
    ]
    agreement_heads += ["intervals that hold the truth", "Spearman"]
    # What makes the two differ.
    first = found.get("first_shown")
    note = (
        "What the log's test sessions began with was worth "
        f"{first:.2f} of what it is worth to the true users, who come with another curiosity: estimates are of "
        "the log's."
    )
    lines = [] if first is None else [markdown_text(note), ""]
    return [*lines, *markdown_table(agreement_heads, compared), "", *markdown_table(heads, rows)]


def _policies(entry: dict[str, Any]) -> list[str]:
    """Returns a line per policy: reward in learned and true users by length, and what needs no truth."""
    lengths = list(entry["agreement"])
    heads = ["policy"]
    for length in lengths:
        heads += [f"{length}: learned", "true", "ratio"]
    heads += [
        "live / unmoved",
        "windows beyond the log, learned (true)",
        *_OVER.values(),
        "click calibration error",
    ]
    rows = []
    for name, by_length in entry["policies"].items():
        row = [name]
        for length in lengths:
            reward = {kind: by_length[length]["reward"][kind]["mean"] for kind in ("learned", "true")}
            row += [f"{reward['learned']:.1f}", f"{reward['true']:.1f}"]
            row.append(f"{reward['learned'] / max(reward['true'], 1e-9):.2f}")
        signal = entry["signals"][name]
        windows = [signal["windows_beyond_log"], signal["windows_beyond_log_true"]]
        shares = ["-" if share is None else f"{share:.4f}" for share in windows]
        row += [f"{signal['live_over_unmoved']:.2f}", f"{shares[0]} ({shares[1]})"]
        over = [signal.get(key) for key in _OVER]  # results of earlier versions have none
        row += ["-" if value is None else f"{value:.2f}" for value in over]
        rows.append([*row, f"{entry['calibration'][name]['click']['calibration_error']:.3f}"])
    return markdown_table(heads, rows)


def picture(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Draws the true reward of each policy against the learned users', a panel per log and length."""
    panels = []
    for entry in entries:
        for length in entry["agreement"]:
            rewards = [by_length[length]["reward"] for by_length in entry["policies"].values()]
            learned, true = ([reward[kind]["mean"] for reward in rewards] for kind in ("learned", "true"))
            label = f"world {entry['world']}, {entry['shop']}, {entry['simulator']}, {length} steps: learned users pay"
            panels.append(Scatter(label, learned, true))
    plot_scatter(path, "what policies earn", "true users pay", panels)

"""The trust bench as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.reports.plots import Scatter, plot_scatter
from harness.reports.tables import markdown_table, markdown_text
from hrlmg_jax.reports.off_policy import estimate_text

_OVER_LOG = {"reward_over_log": "reward / the log's best", "late_clicks_over_log": "late clicks / the log's"}
"""Signals (`trust_signals`) and their heads."""


def table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of a Markdown document: all logs, then the policies of each."""
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
    lines = ["# Learned and true users", "", *markdown_table(heads, rows)]
    for entry in entries:
        lines += ["", f"## World {entry['world']}, shop {entry['shop']}, simulator={entry['simulator']}", ""]
        lines += _policies(entry)
        if "off_policy" in entry:
            lines += ["", *_off_policy(entry["off_policy"])]
    return lines


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
        f"{first:.2f} of what it is worth to the true users, whose sessions begin in another mood: estimates are of "
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
        *_OVER_LOG.values(),
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
        over = [signal.get(key) for key in _OVER_LOG]  # results of earlier versions have none
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

"""Off-policy estimates as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.reports.method_results import MethodResult
from harness.reports.tables import markdown_list, markdown_table, markdown_text
from harness.runs.index import RunRecord
from harness.runs.run_folder import read_json

_UNKNOWN = "-"
_HEADS = ("simulated", "importance sampling", "doubly robust", "effective sample size")
_NOTE = (
    "Reward by off-policy estimates from logged test sessions, (95 % interval over users, ends averaged over runs): of "
    "one step at the states of the log, and of the first steps of a session; where there is none, too little of the "
    "log is like the policy. See docs/user_models.md."
)


def estimate_text(estimate: dict[str, Any] | None, mark: str = "") -> str:
    """Returns the estimate with its interval, `-` where there is none."""
    if estimate is None:
        return _UNKNOWN
    low, high = estimate["ci95"]
    return f"{estimate['reward']:.3f}{mark} ({low:.3f} to {high:.3f})"


def off_policy_table(found: dict[str, Any]) -> str:
    """Returns the estimates of all policies, and what is wrong with them, for the terminal.

    Args:
        found: The key "off_policy" of `offline.json`.
    """
    if "left_out" in found:
        return f"no off-policy estimates: {found['left_out']}"
    of = found["propensities"] + (f", epsilon {found['epsilon']:g}" if found["epsilon"] else "")
    lines = [
        f"off-policy estimates from {found['sessions']:,} logged sessions of {found['users']:,} users: reward of one "
        f"step at the states of the log (as logged: {found['logged_reward']:.3f}) and of the first steps (95 % "
        "interval over users)",
        f"probabilities of what was shown: {of}; {_UNKNOWN}: effective sample size below {found['least_effective']:g}; "
        "*: simulated after the first of the steps",
        f"{'policy':<18}{'reward of':>12}{'simulated':>12}"
        + "".join(f"{head:>26}" for head in ("importance sampling", "doubly robust", "effective sample size")),
    ]
    for name, policy in found["policies"].items():
        step = policy["step"]
        lines.append(_line(name, "one step", step, "replay", ""))
        for horizon, first in policy["first"].items():
            mark = "*" if first["corrected_steps"] < int(horizon) else ""
            lines.append(_line("", f"first {horizon}", first, "per_decision", mark))
    warned = {name: policy["warning"] for name, policy in found["policies"].items() if policy["warning"]}
    lines += [f"WARNING: off-policy estimates of {name}: {warning}" for name, warning in warned.items()]
    return "\n".join(lines)


def _line(name: str, of: str, found: dict[str, Any], weighted: str, mark: str) -> str:
    simulated = _UNKNOWN if found["simulated"] is None else f"{found['simulated']:.3f}"
    cells = [estimate_text(found[weighted]), estimate_text(found["doubly_robust"], mark), f"{found['effective']:.0f}"]
    return f"{name:<18}{of:>12}{simulated:>12}" + "".join(f"{cell:>26}" for cell in cells)


def off_policy_section(results: Sequence[MethodResult], baselines: Sequence[MethodResult], evaluate: str) -> list[str]:
    """Returns Markdown with what the log alone tells of methods and baselines; empty where no run says anything.

    Args:
        results: Of methods; a row is the mean over the runs that have an estimate.
        baselines: Of the policies beside them, from the first run that has them.
        evaluate: The module that evaluates: runs of earlier versions have no estimates.
    """
    # What each run says of its own policy, and of those beside it.
    stored = [(result, [_policies_of(run) for run in result.runs]) for result in results]
    found = {
        result.label: [policies[result.name] for policies in runs if result.name in policies] for result, runs in stored
    }
    everywhere = [policies for _, runs in stored for policies in runs]
    for baseline in baselines:
        found[baseline.label] = [policies[baseline.name] for policies in everywhere if baseline.name in policies][:1]
    known = {label: policies for label, policies in found.items() if policies}
    if not known:
        return []
    # A row for each, a group of columns for one step and for each number of first steps.
    horizons = list(next(iter(known.values()))[0]["first"])
    heads = ["method", *(f"one step: {head}" for head in _HEADS)]
    heads += [f"first {horizon}: {head}" for horizon in horizons for head in _HEADS]
    rows = []
    for label, policies in known.items():
        row = [label, *_cells([policy["step"] for policy in policies], "replay")]
        for horizon in horizons:
            row += _cells(
                [policy["first"][horizon] for policy in policies if horizon in policy["first"]], "per_decision"
            )
        rows.append(row)
    silent = sum(not policies for policies in everywhere)
    lines = ["", "### What the log alone tells", "", markdown_text(_NOTE), "", *markdown_table(heads, rows)]
    if silent:
        runs = "1 run has" if silent == 1 else f"{silent} runs have"
        lines += ["", *markdown_list([f"{runs} no such estimates: python -m {evaluate} run=FOLDER makes them"])]
    return lines


def _policies_of(run: RunRecord) -> dict[str, Any]:
    """Returns the estimates by policy; empty of an evaluation that has none."""
    path = run.folder.path / "offline.json"
    content = read_json(path) if path.exists() else None
    found = content.get("off_policy") if isinstance(content, dict) else None
    policies = found.get("policies") if isinstance(found, dict) else None
    return policies if isinstance(policies, dict) else {}


def _cells(found: Sequence[dict[str, Any]], weighted: str) -> list[str]:
    """Returns the means over runs: simulated, both estimates, and the least effective sample size."""
    simulated = [one["simulated"] for one in found if one["simulated"] is not None]
    cells = [f"{np.mean(simulated):.3f}" if simulated else _UNKNOWN]
    for name in (weighted, "doubly_robust"):
        known = [one[name] for one in found if one[name] is not None]
        ends = [np.mean([one["ci95"][end] for one in known]) for end in (0, 1)] if known else []
        cells.append(
            estimate_text({"reward": np.mean([one["reward"] for one in known]), "ci95": ends} if known else None)
        )
    return [*cells, f"{min((one['effective'] for one in found), default=0.0):.0f}"]

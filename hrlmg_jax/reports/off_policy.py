"""Off-policy estimates as a table for people."""

from __future__ import annotations

from typing import Any

_UNKNOWN = "-"


def estimate_text(estimate: dict[str, Any] | None, mark: str = "") -> str:
    """Returns the estimate with its interval, `-` where there is none."""
    if estimate is None:
        return _UNKNOWN
    low, high = estimate["ci95"]
    return f"{estimate['reward']:.3f}{mark} [{low:.3f}, {high:.3f}]"


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
        f"step at the states of the log (as logged: {found['logged_reward']:.3f}) and of the first steps, [95 % "
        "interval over users]",
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

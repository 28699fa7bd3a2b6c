"""Off-policy estimates as a table for people."""

from __future__ import annotations

from typing import Any

_UNKNOWN = "-"


def estimate_text(estimate: dict[str, Any], digits: int = 3) -> str:
    """Returns the estimate with its interval, `-` where there is none."""
    if estimate["reward"] is None:
        return _UNKNOWN
    low, high = estimate["ci95"]
    return f"{estimate['reward']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def off_policy_table(found: dict[str, Any]) -> str:
    """Returns the estimates of all policies, and what is wrong with them, for the terminal.

    Args:
        found: The key "off_policy" of `offline.json`.
    """
    if "left_out" in found:
        return f"no off-policy estimates: {found['left_out']}"
    horizons = next(iter(found["policies"].values()))["first"]
    heads = ["simulated", "replay", "doubly robust", "effective"]
    for horizon in horizons:
        heads += [f"first {horizon}: simulated", "per decision", "doubly robust"]
    of = found["propensities"] + (f", epsilon {found['epsilon']:g}" if found["epsilon"] else "")
    lines = [
        f"off-policy estimates of reward from {found['sessions']:,} logged sessions of {found['users']:,} users "
        f"(probabilities of what was shown: {of}): per recommendation at the states of the log, where "
        f"it earned {found['logged_reward']:.3f}, then of the first recommendations; [95 % interval over users]; "
        f"{_UNKNOWN}: effective sample size below {found['least_effective']:g}; *: in part simulated",
        f"{'policy':<18}" + "".join(f"{head:>24}" for head in heads),
    ]
    for name, policy in found["policies"].items():
        step = policy["step"]
        cells = [f"{step['simulated']:.3f}", estimate_text(step["replay"]), estimate_text(step["doubly_robust"])]
        cells.append(f"{step['effective']:.0f}")
        for horizon, first in policy["first"].items():
            partly = "*" if 0 < first["corrected_steps"] < int(horizon) else ""
            simulated = _UNKNOWN if first["simulated"] is None else f"{first['simulated']:.2f}"
            cells += [simulated, estimate_text(first["per_decision"], 2)]
            cells.append(estimate_text(first["doubly_robust"], 2) + partly)
        lines.append(f"{name:<18}" + "".join(f"{cell:>24}" for cell in cells))
    warned = {name: policy["warning"] for name, policy in found["policies"].items() if policy["warning"]}
    lines += [f"WARNING: off-policy estimates of {name}: {warning}" for name, warning in warned.items()]
    return "\n".join(lines)

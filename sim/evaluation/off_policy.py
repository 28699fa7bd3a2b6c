"""What a policy would have earned, estimated from the sessions of another one: pure NumPy.

With rho_t = pi(a_t | s_t) / mu(a_t | s_t), the chance of what was shown by the policy over that by whoever showed it,
and w_t = rho_0 ... rho_t,

* **per decision** (Precup, Sutton and Singh 2000), self-normalised at each step:
  V = sum_t sum_i w_t^i r_t^i / sum_i w_t^i;
* **sequential doubly robust** (Jiang and Li 2016), self-normalised likewise (Thomas and Brunskill 2016):
  V = sum_t [sum_i w_t^i (r_t^i - q_t^i) / sum_i w_t^i + sum_i w_{t-1}^i v_t^i / sum_i w_{t-1}^i],
  where q predicts what a_t is worth and v is its mean over the policy's choices;
* **replay** (Li et al. 2011), at the states of the log: sum rho r / sum rho over all steps of all sessions. With a
  policy that chooses one item, these are the steps at which it would have shown what was shown, weighted by 1 / mu.

The effective sample size of weights is (sum w)^2 / sum w^2 (Kish 1965). It falls with every step: below a least one
there is no estimate. Sessions end when they end: a step's sums run over the sessions that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 1000
"""Of the bootstrap."""
_AT_A_TIME = 100


@dataclass(frozen=True)
class LoggedDecisions:
    """S sessions of at most T steps, as somebody else decided.

    Attributes:
        unit: [S] int whose each session is; sessions of different ones are independent.
        shown: [S, T] bool, which steps there are: the first ones of each session.
        reward: [S, T] what was earned.
        ratio: [S, T] rho.
        q: [S, T] predicted value of what was shown; None: no predictions.
        v: [S, T] its mean over the policy's choices.
    """

    unit: np.ndarray
    shown: np.ndarray
    reward: np.ndarray
    ratio: np.ndarray
    q: np.ndarray | None = None
    v: np.ndarray | None = None


def cumulative_weights(ratio: np.ndarray, shown: np.ndarray, most: float | None = None) -> np.ndarray:
    """Returns [S, T] w, 0 where nothing was shown.

    Args:
        ratio: [S, T] rho.
        shown: [S, T] bool.
        most: Larger weights are truncated to it, which biases the estimate (Ionides 2008); None: none are.
    """
    weight = np.cumprod(np.where(shown, ratio, 1.0), 1)
    return np.where(shown, weight if most is None else np.minimum(weight, most), 0.0)


def effective_size(weights: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns (sum w)^2 / sum w^2 along an axis (None: over all); 0 without a positive weight."""
    squares = np.square(weights).sum(axis)
    return np.asarray(np.square(weights.sum(axis)) / np.where(squares > 0, squares, 1.0))


def per_decision(decisions: LoggedDecisions, most: float | None = None, normalised: bool = True) -> np.ndarray:
    """Returns [T] what each step contributes to the value; `normalised` divides by sums of weights, not by sessions."""
    return _contributions(_totals(_columns(decisions, most)), normalised)["per_decision"]


def doubly_robust(decisions: LoggedDecisions, most: float | None = None, normalised: bool = True) -> np.ndarray:
    """Returns [T] what each step contributes to the doubly robust value; see `per_decision`."""
    return _contributions(_totals(_columns(decisions, most)), normalised)["doubly_robust"]


def _columns(decisions: LoggedDecisions, most: float | None) -> dict[str, np.ndarray]:
    """Returns [S, T] what the estimates are made of: sums over sessions of these."""
    shown = decisions.shown.astype(np.float64)
    weight = cumulative_weights(decisions.ratio, decisions.shown, most)
    before = np.concatenate([np.ones((len(weight), 1)), weight[:, :-1]], 1) * shown
    ratio = np.where(decisions.shown, decisions.ratio, 0.0)
    once = ratio if most is None else np.minimum(ratio, most)
    reward = np.where(decisions.shown, decisions.reward, 0.0)
    columns = {"shown": shown, "w": weight, "wr": weight * reward, "rho": once, "rho_r": once * reward, "ratio": ratio}
    if decisions.q is None or decisions.v is None:
        return columns
    q, v = np.where(decisions.shown, decisions.q, 0.0), np.where(decisions.shown, decisions.v, 0.0)
    return columns | {
        "w_residual": weight * (reward - q),
        "before": before,
        "before_v": before * v,
        "rho_q": once * q,
        "v": v,
    }


def _totals(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column.sum(0) for name, column in columns.items()}


def _contributions(total: Mapping[str, np.ndarray], normalised: bool) -> dict[str, np.ndarray]:
    """Returns [..., T] contributions of the steps from sums [..., T] over sessions."""
    found = {"per_decision": _ratio(total["wr"], total["w"] if normalised else total["shown"])}
    if "before" in total:
        by, by_before = (total["w"], total["before"]) if normalised else (total["shown"], total["shown"])
        found["doubly_robust"] = _ratio(total["w_residual"], by) + _ratio(total["before_v"], by_before)
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns above / below; 0 where nothing is below."""
    return above / np.where(below > 0, below, 1.0)


def off_policy_estimates(
    decisions: LoggedDecisions,
    simulated: np.ndarray | None,
    horizons: list[int],
    most_weight: float | None,
    least_effective: float,
) -> dict[str, Any]:
    """Estimates what the policy earns, with 95 % intervals: percentiles of a bootstrap over units.

    Args:
        decisions: Logged sessions, and the policy's chances.
        simulated: [T] what a simulation says of each step under the policy; None: nothing.
        horizons: Numbers of first steps whose total is estimated.
        most_weight: See `cumulative_weights`.
        least_effective: Below this effective sample size there is no estimate (None).

    Returns:
        mean_ratio: mean of rho, 1 where the chances are right and everything that the policy shows could be shown;
        step: of one step at the states of the log, "simulated" (mean of v), "replay", "doubly_robust",
        "predicted_replay" (replay of q in place of the rewards), "matches" (steps with a rho above 0) and "effective";
        first: by horizon the totals of the first steps, "simulated", "per_decision", "doubly_robust" and "effective",
        at the last of the steps. The doubly robust total is estimated for `corrected_steps`, as far as the effective
        sample size allows, and simulated for the others.
        An estimate is {"reward": value, "ci95": [low, high]}, or None where there is none.
    """
    columns = _columns(decisions, most_weight)
    sizes = effective_size(columns["w"], 0)
    known = int(np.argmin(np.append(sizes >= least_effective, False)))  # steps of which the log tells enough
    one_size = float(effective_size(columns["rho"]))
    resampled = _resampled(decisions.unit, columns)
    point, samples = (_values(total, horizons, simulated, known) for total in (_totals(columns), resampled))

    def estimate(name: str, enough: bool) -> dict[str, Any] | None:
        if not enough or name not in point:
            return None
        low, high = np.percentile(samples[name], [2.5, 97.5])
        return {"reward": float(point[name]), "ci95": [float(low), float(high)]}

    enough = one_size >= least_effective
    step = {
        "simulated": float(point["v"]) if "v" in point else None,
        "replay": estimate("replay", enough),
        "doubly_robust": estimate("step_doubly_robust", enough),
        "predicted_replay": estimate("predicted_replay", enough),
        "matches": int(np.sum(columns["rho"] > 0)),
        "effective": one_size,
    }
    first: dict[str, Any] = {}
    for horizon in horizons:
        corrected = min(known, horizon)
        simulates_rest = simulated is not None and len(simulated) >= horizon
        first[str(horizon)] = {
            "simulated": float(np.sum(simulated[:horizon])) if simulated is not None and simulates_rest else None,
            "per_decision": estimate(f"per_decision_{horizon}", known >= horizon),
            "doubly_robust": estimate(
                f"doubly_robust_{horizon}", corrected > 0 and (corrected == horizon or simulates_rest)
            ),
            "corrected_steps": corrected,
            "effective": float(sizes[horizon - 1]) if horizon <= len(sizes) else 0.0,
        }
    return {"mean_ratio": estimate("mean_ratio", True), "step": step, "first": first}


def _values(
    total: Mapping[str, np.ndarray], horizons: list[int], simulated: np.ndarray | None, known: int
) -> dict[str, np.ndarray]:
    """Returns the estimates by name from sums [..., T]; their leading axes are kept."""
    steps = _contributions(total, True)
    over = {name: column.sum(-1) for name, column in total.items()}
    found = {"mean_ratio": _ratio(over["ratio"], over["shown"]), "replay": _ratio(over["rho_r"], over["rho"])}
    if "v" in total:
        found["v"] = _ratio(over["v"], over["shown"])
        found["predicted_replay"] = _ratio(over["rho_q"], over["rho"])
        found["step_doubly_robust"] = found["v"] + found["replay"] - found["predicted_replay"]
    for horizon in horizons:
        found[f"per_decision_{horizon}"] = steps["per_decision"][..., :horizon].sum(-1)
        if "doubly_robust" in steps:
            rest = 0.0 if simulated is None else float(np.sum(simulated[known:horizon]))
            found[f"doubly_robust_{horizon}"] = steps["doubly_robust"][..., : min(known, horizon)].sum(-1) + rest
    return found


def _resampled(unit: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns [R, T] the sums over resampled units, of which each is drawn as often as there are units."""
    # Sums of each unit.
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=unit[order[0]] - 1))
    by_unit = np.add.reduceat(np.concatenate([*columns.values()], 1)[order], starts)
    # How often each is drawn; some resamples at a time, which bounds memory.
    random = np.random.default_rng(0)
    parts = []
    for _ in range(0, RESAMPLES, _AT_A_TIME):
        drawn = random.integers(len(by_unit), size=(_AT_A_TIME, len(by_unit)))
        drawn += len(by_unit) * np.arange(_AT_A_TIME)[:, None]
        times = np.bincount(drawn.ravel(), minlength=_AT_A_TIME * len(by_unit)).reshape(_AT_A_TIME, -1)
        parts.append(times @ by_unit)
    widths = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    return dict(zip(columns, np.split(np.concatenate(parts), widths, 1), strict=True))

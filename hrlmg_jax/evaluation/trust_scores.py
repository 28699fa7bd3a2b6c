"""How far learned users can be trusted: what policies earn from them against what they earn from the true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.tables.events import CLICK

_RESAMPLES = 2000
_WINDOW = 10
_CURVE_BINS = 10

THRESHOLDS = {"live_over_unmoved": 2.2, "reward_over_log": 0.7, "late_clicks_over_log": 3.0}
"""A value above is a warning; docs/user_models.md has hits and false alarms."""
_SAYS = {
    "live_over_unmoved": "they pay {value:.1f} times what they would pay if no answer changed them",
    "reward_over_log": "they pay {value:.1f} times as much per item as the best hundredth of logged sessions",
    "late_clicks_over_log": "they click {value:.1f} times as often at steps 40 to 60 as users in the log",
}


def agreement(learned: np.ndarray, true: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Compares the values of n policies in learned users with those in true ones.

    Returns:
        ratio: median of learned / true, and least and most; error: median and largest of |learned / true - 1|; within:
        how many policies are within 25 %; spearman: None without an order, with its 95 % interval (policies are
        resampled); regret: share of the best true value that is lost by taking the policy which the learned users value
        most.
    """
    ratio = learned / np.maximum(true, 1e-9)
    error = np.abs(ratio - 1)
    random = np.random.default_rng(seed)
    samples = [random.integers(len(true), size=len(true)) for _ in range(_RESAMPLES)]
    resampled = [order for rows in samples if (order := _spearman(learned[rows], true[rows])) is not None]
    return {
        "policies": len(true),
        "ratio": {"median": float(np.median(ratio)), "least": float(ratio.min()), "most": float(ratio.max())},
        "error": {"median": float(np.median(error)), "largest": float(error.max())},
        "within_25_percent": int(np.sum(error <= 0.25)),
        "spearman": _spearman(learned, true),
        "spearman_ci95": [float(bound) for bound in np.percentile(resampled, [2.5, 97.5])] if resampled else None,
        "regret": float(1 - true[np.argmax(learned)] / true.max()),
    }


def estimates_agreement(estimates: Sequence[dict[str, Any] | None], true: Sequence[float]) -> dict[str, Any]:
    """Compares off-policy estimates with true values.

    Args:
        estimates: By policy, with "reward" and "ci95"; None where there is none.
        true: By policy.

    Returns:
        policies: how many have an estimate, and of these, if there are any, ratio: median of estimate / true; error:
        median of |estimate / true - 1|; covered: the share whose interval holds the true value; spearman.
    """
    known = [(one, value) for one, value in zip(estimates, true, strict=True) if one is not None]
    if not known:
        return {"policies": 0}
    found, truth = np.asarray([one["reward"] for one, _ in known]), np.asarray([value for _, value in known])
    low, high = np.asarray([one["ci95"] for one, _ in known]).T
    ratio = found / np.maximum(truth, 1e-9)
    return {
        "policies": len(known),
        "ratio": float(np.median(ratio)),
        "error": float(np.median(np.abs(ratio - 1))),
        "covered": float(np.mean((low <= truth) & (truth <= high))),
        "spearman": _spearman(found, truth),
    }


def _spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Returns the rank correlation, or None where all values of one are equal."""
    from scipy.stats import spearmanr  # slow to import, needed by this computation only

    if min(len(np.unique(one)), len(np.unique(other))) < 2:
        return None
    return float(spearmanr(one, other)[0])


def windows_beyond_log(feedback: np.ndarray, logged: np.ndarray, shown: np.ndarray) -> float | None:
    """Returns the share of ten-step windows with more clicks than 99.9 % of the log's; None without such windows.

    Args:
        feedback: [n, T] simulated answers.
        logged: [m, t] those of logged sessions.
        shown: [m, t] bool, which of these there are.
    """

    def clicks(answers: np.ndarray) -> np.ndarray:
        if answers.shape[1] < _WINDOW:
            return np.zeros((len(answers), 0))
        return np.lib.stride_tricks.sliding_window_view(answers, _WINDOW, 1).sum(-1)

    whole = clicks(shown.astype(int)) == _WINDOW
    in_log, simulated = clicks((logged >= CLICK) & shown)[whole], clicks(feedback >= CLICK)
    if not in_log.size or not simulated.size:
        return None
    return float(np.mean(simulated > np.quantile(in_log, 0.999, method="higher")))


def weighted_calibration(chance: np.ndarray, happened: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    """Returns mean predictions and rates by decile of the predictions, rows weighted by a policy's own choices.

    Args:
        chance: [r] predicted probabilities of rows of the log.
        happened: [r] bool.
        weight: [r] how often the policy shows the row's item, over how often the log does.
    """
    order = np.argsort(chance, kind="stable")
    share = np.cumsum(weight[order]) / max(weight.sum(), 1e-12)
    number = np.minimum((share * _CURVE_BINS).astype(int), _CURVE_BINS - 1)
    predicted, observed, gap = [], [], 0.0
    for decile in range(_CURVE_BINS):
        rows = order[number == decile]
        if not weight[rows].sum():
            continue
        p, o = (float(np.average(values[rows], weights=weight[rows])) for values in (chance, happened))
        predicted.append(p)
        observed.append(o)
        gap += abs(p - o) * weight[rows].sum() / weight.sum()
    return {"calibration_error": float(gap), "predicted": predicted, "observed": observed}


def above_thresholds(signals: Mapping[str, Any]) -> dict[str, float]:
    """Returns the signals of a policy that are above the thresholds."""
    return {key: signals[key] for key, threshold in THRESHOLDS.items() if (signals.get(key) or 0.0) > threshold}


def warning(name: str, signals: Mapping[str, Any]) -> str | None:
    """Returns a sentence, where a policy's signals are above the thresholds."""
    over = above_thresholds(signals)
    if not over:
        return None
    said = "; ".join(_SAYS[key].format(value=value) for key, value in over.items())
    return f"{name} may live on the mistakes of the learned users: {said}"


def warning_of_users(signals: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns a sentence about learned users, where policies that played with them are above the thresholds.

    Args:
        signals: By policy; the sentence is about the one that is farthest above.
    """

    def excess(policy: str) -> float:
        return max((value / THRESHOLDS[key] for key, value in above_thresholds(signals[policy]).items()), default=0.0)

    worst = max(signals, key=excess, default=None)
    said = None if worst is None else warning(f"the fixed policy {worst}", signals[worst])
    return said and f"{said}; so may agents that train on them"

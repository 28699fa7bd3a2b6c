"""What a fitted user model is worth: log-loss, calibration, simulated rates."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.reports.tables import kind_of
from hrlmg_jax.evaluation.trust_scores import warning_of_users
from hrlmg_jax.evaluation.users_trial import try_users
from hrlmg_jax.sessions import describe_log
from hrlmg_jax.user_model.fit import log_loss
from hrlmg_jax.user_model.user_model import UserModel
from sim.datasets.sessions import SessionData
from sim.envs.fixed_policies import scripted_policy
from sim.envs.rollout import rollout
from sim.envs.session_env import SessionEnv, SessionParams
from sim.generators.funnel_truth import best_log_loss
from sim.tables.events import CLICK, FEEDBACK_NAMES, NUM_FEEDBACK, ORDER

_CALIBRATION_BINS = 15
_POSITIONS = (0, 1, 3, 10, 30)
_SIMULATED_SESSIONS = 1024
REPORTED_USERS = 5_000
"""Of each part, at most: millions of rows would take many minutes."""
LEAST_GAIN = 0.01
"""Share of the base rate's log-loss that a useful model saves."""
_SHOWN = FEEDBACK_NAMES[CLICK:]
PARTS = {"held_out": "held-out users", "test": "test part"}
"""What the simulator has not seen, as it is called in reports; a log that is not split has no test part."""


def report_on(
    model: UserModel, params: Any, data: SessionData, history_length: int, trial_sessions: int
) -> dict[str, Any]:
    """Returns how well the simulator predicts what it has not seen: held-out users, and the test part.

    Returns:
        `data`; "findings", see `UserModel`; under those of `PARTS` that the log has: see `score`; under "signals",
        unless there are no trial sessions: see `try_users`.
    """
    log = data.log
    base = np.bincount(log.feedback[data.rows("train")], minlength=NUM_FEEDBACK) / len(data.rows("train"))
    parts: dict[str, Any] = {"data": describe_log(data), "findings": model.findings(params)}
    for part in PARTS:
        rows = data.rows_of_some_users(part, REPORTED_USERS, 0)
        if not len(rows):
            continue
        predicted = model.predict(params, data, rows, history_length)
        parts[part] = score(predicted, log.feedback[rows], base, best_log_loss(log, rows))
        position = rows - log.session_starts()[log.session[rows]]
        parts[part]["positions"] = by_position(predicted, log.feedback[rows], base, position)
        for name, rate in simulated_rates(model, params, data, part, history_length).items():
            parts[part][name]["simulated_rate"] = rate
    if trial_sessions:
        parts["signals"] = try_users(model, params, data, history_length, trial_sessions)
    return parts


def simulated_rates(
    model: UserModel, params: Any, data: SessionData, part: str, history_length: int
) -> dict[str, float]:
    """Returns the rates of "click" (click or order) and "order" when the simulator answers to logged sessions itself.

    The items are the log's, the answers and so the later histories are sampled: errors that add up show here.
    """
    starts = data.log.session_starts()
    lengths = np.diff(starts)
    session = np.searchsorted(starts, data.first_rows(part)[:_SIMULATED_SESSIONS])
    steps = int(lengths[session].max())
    shown = np.arange(steps) < lengths[session][:, None]
    rows = np.where(shown, starts[session][:, None] + np.arange(steps), 0)
    env = SessionEnv(model, steps, history_length)
    users = model.in_sessions(params, data, starts[session])
    world = SessionParams(data.table, jnp.asarray(starts[session], jnp.int32), None, users)
    script = jnp.asarray(data.log.item[rows], jnp.int32)
    sessions = jnp.arange(len(session), dtype=jnp.int32)
    play = jax.jit(
        lambda world, script: rollout(env, world, scripted_policy(), script, sessions, jax.random.key(0), True)
    )
    feedback = np.asarray(play(world, script).feedback).T[shown]
    return {FEEDBACK_NAMES[least]: float(np.mean(feedback >= least)) for least in (CLICK, ORDER)}


def score(predicted: np.ndarray, feedback: np.ndarray, base: np.ndarray, best: float | None) -> dict[str, Any]:
    """Scores predicted probabilities.

    Args:
        predicted: [r, 3] probabilities of skip, click and order.
        feedback: [r] answers.
        base: [3] rates in the training rows, the constant prediction to beat.
        best: Log-loss of the truth, where it is known.

    Returns:
        log_loss (nats); base_log_loss; best_log_loss and gap_closed, the fraction of the way from base to best (or
        None); expected calibration errors, areas under the ROC curve (auc) and average precisions of "click" (click or
        order) and "order", beside their rates, logged and predicted; accuracy of the most likely answer; reliability
        curves. A figure that needs both answers to occur is None where one does not.
    """
    import sklearn.metrics  # slow to import, needed by this computation only

    loss, base_loss = log_loss(predicted, feedback), log_loss(np.tile(base, (len(feedback), 1)), feedback)
    report: dict[str, Any] = {
        "events": len(feedback),
        "log_loss": loss,
        "base_log_loss": base_loss,
        "best_log_loss": best,
        "gap_closed": None if best is None or best == base_loss else (base_loss - loss) / (base_loss - best),
        "accuracy": float(np.mean(np.argmax(predicted, 1) == feedback)),
        "accuracy_of_always_skip": float(np.mean(feedback < CLICK)),
    }
    for name, least in ((FEEDBACK_NAMES[CLICK], CLICK), (FEEDBACK_NAMES[ORDER], ORDER)):
        happened, chance = feedback >= least, predicted[:, least:].sum(1)
        both = happened.any() and not happened.all()
        report[name] = {
            "rate": float(happened.mean()),
            "predicted_rate": float(chance.mean()),
            "auc": float(sklearn.metrics.roc_auc_score(happened, chance)) if both else None,
            "average_precision": float(sklearn.metrics.average_precision_score(happened, chance)) if both else None,
            **calibration(chance, happened),
        }
    return report


def by_position(
    predicted: np.ndarray, feedback: np.ndarray, base: np.ndarray, position: np.ndarray
) -> list[dict[str, Any]]:
    """Returns how well the items at some positions of their sessions are predicted, where there are any.

    Args:
        predicted: [r, 3] probabilities.
        feedback: [r] answers.
        base: [3] rates in the training rows.
        position: [r] of the item in its session, from 0.

    Returns:
        In order: the positions "first" to "last" (from 1; None: and all later ones), events, log_loss and
        base_log_loss (nats), and the rates of "click" (click or order) and "order", as logged and as predicted.
    """
    found: list[dict[str, Any]] = []
    group = np.searchsorted(_POSITIONS, position, side="right") - 1
    for number in np.unique(group):
        rows = group == number
        last = _POSITIONS[number + 1] if number + 1 < len(_POSITIONS) else None
        rates: dict[str, Any] = {
            name: {
                "rate": float(np.mean(feedback[rows] >= least)),
                "predicted_rate": float(predicted[rows, least:].sum(1).mean()),
            }
            for name, least in ((FEEDBACK_NAMES[CLICK], CLICK), (FEEDBACK_NAMES[ORDER], ORDER))
        }
        losses = {
            "log_loss": log_loss(predicted[rows], feedback[rows]),
            "base_log_loss": log_loss(np.tile(base, (int(rows.sum()), 1)), feedback[rows]),
        }
        found.append({"first": _POSITIONS[number] + 1, "last": last, "events": int(rows.sum()), **losses, **rates})
    return found


def calibration(chance: np.ndarray, happened: np.ndarray) -> dict[str, Any]:
    """Returns the expected calibration error over bins of predictions, and each bin's means.

    The bins hold equally many predictions, but for equal ones, which share a bin.

    Args:
        chance: [r] predicted probabilities.
        happened: [r] bool.
    """
    parts = np.array_split(np.sort(chance), _CALIBRATION_BINS)
    number = np.searchsorted(np.unique([part[0] for part in parts[1:] if len(part)]), chance, side="right")
    bins = [np.flatnonzero(number == bin_number) for bin_number in np.unique(number)]
    predicted, observed = ([float(values[part].mean()) for part in bins] for values in (chance, happened))
    gaps = [len(part) * abs(p - o) for part, p, o in zip(bins, predicted, observed, strict=True)]
    return {
        "calibration_error": math.fsum(gaps) / len(chance),
        "reliability": {"predicted": predicted, "observed": observed, "events": [len(part) for part in bins]},
    }


def format_report(report: dict[str, Any]) -> str:
    """Returns the report as a table for people."""
    # How well it predicts, by part of the log.
    data, parts = report["data"], [part for part in PARTS if part in report]
    lines = [
        f"simulator of {data['name']}{kind_of(data)}: {data['events']:,} events, {data['users']:,} users, "
        f"{data['catalogue']:,} items",
        " " * 28 + "".join(PARTS[part].rjust(16) for part in parts),
    ]

    def line(label: str, group: str | None, key: str, form: str) -> None:
        values = [(report[part] if group is None else report[part][group])[key] for part in parts]
        cells = ["-" if value is None else format(value, form) for value in values]
        lines.append(f"{label:<28}" + "".join(cell.rjust(16) for cell in cells))

    line("events", None, "events", ",")
    line("log-loss", None, "log_loss", ".4f")
    line("  of the base rate", None, "base_log_loss", ".4f")
    line("  of the truth", None, "best_log_loss", ".4f")
    line("  gap closed", None, "gap_closed", ".1%")
    for name in _SHOWN:
        line(f"{name}: AUC", name, "auc", ".4f")
        line("  average precision", name, "average_precision", ".4f")
        line("  calibration error", name, "calibration_error", ".4f")
        line("  rate in the log", name, "rate", ".3%")
        line("  rate predicted", name, "predicted_rate", ".3%")
        line("  rate in simulation", name, "simulated_rate", ".3%")
    lines += _position_lines(report)
    # What it pays, and what that means.
    if "signals" in report:
        heads = {"live_over_unmoved": "live / unmoved", "reward_over_log": "reward / log"}
        heads |= {"late_clicks_over_log": "late clicks / log", "windows_beyond_log": "windows beyond"}
        lines += [f"{'fixed policies in it':<28}" + "".join(head.rjust(18) for head in heads.values())]
        for name, signals in report["signals"].items():
            values = ["-" if signals[key] is None else f"{signals[key]:.3f}" for key in heads]
            lines.append(f"{'  ' + name:<28}" + "".join(value.rjust(18) for value in values))
    return "\n".join([*lines, *remarks(report), *(f"WARNING: {said}" for said in verdicts(report))])


def _position_lines(report: dict[str, Any]) -> list[str]:
    """Returns a table of the test part (else of held-out users) by position; nothing of earlier versions' fits."""
    part = next((part for part in reversed(PARTS) if "positions" in report.get(part, {})), None)
    if part is None:
        return []
    heads = ["events", "log-loss", "base rate's", "clicks", "predicted", "orders", "predicted"]
    lines = [f"{'by position, ' + PARTS[part]:<28}" + "".join(head.rjust(12) for head in heads)]
    for at in report[part]["positions"]:
        where = f"  {at['first']}" + (
            "" if at["last"] == at["first"] else " on" if at["last"] is None else f" to {at['last']}"
        )
        rates = [f"{at[name][key]:.3%}" for name in _SHOWN for key in ("rate", "predicted_rate")]
        cells = [f"{at['events']:,}", f"{at['log_loss']:.4f}", f"{at['base_log_loss']:.4f}", *rates]
        lines.append(f"{where:<28}" + "".join(cell.rjust(12) for cell in cells))
    return lines


def remarks(report: dict[str, Any]) -> list[str]:
    """Returns what the fit has found out, and why figures of a report are absent, a sentence each."""
    said = [*report.get("findings", [])]  # fits of earlier versions have none
    if report["held_out"]["best_log_loss"] is None:
        said.append("the truth is known of generated logs alone: here, its log-loss and the gap to it stay empty")
    if any(report[part][name]["auc"] is None for part in ("held_out", "test") for name in _SHOWN):
        said.append("an AUC is empty where all answers of a part are alike")
    return said


def verdicts(report: dict[str, Any]) -> list[str]:
    """Returns why an agent should not be trusted to learn from these users, a sentence each."""
    paid = warning_of_users(report.get("signals", {}))  # fits of earlier versions have none
    return [*_weakness(report), *([] if paid is None else [paid])]


def _weakness(report: dict[str, Any]) -> list[str]:
    """Returns a sentence if the model predicts held-out users hardly better than constant rates do."""
    gain = 1 - report["held_out"]["log_loss"] / report["held_out"]["base_log_loss"]
    if gain >= LEAST_GAIN:
        return []
    better = "no better" if gain <= 0 else f"only {gain:.1%} better"
    return [
        f"the learned users predict the answers of held-out users {better} than the rates of skips, clicks and orders "
        "alone do: what trains on them learns little of taste (a longer log, another data.session_gap or a check of "
        "data.feedback_of_event may help)"
    ]

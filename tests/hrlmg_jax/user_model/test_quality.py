"""What the figures of a user model mean, where they are bad or absent."""

from typing import Any

import numpy as np
import pytest

from hrlmg_jax.evaluation.trust_scores import THRESHOLDS
from hrlmg_jax.user_model.quality import by_position, format_report, remarks, verdicts


def report(loss: float, best: float | None = 0.3, auc: float | None = 0.6) -> dict[str, Any]:
    """The report of a model whose base rates have a log-loss of 0.5."""
    answers = {"auc": auc, "average_precision": 0.2, "calibration_error": 0.1}
    answers |= dict.fromkeys(("rate", "predicted_rate", "simulated_rate"), 0.1)
    part = {"events": 5, "log_loss": loss, "base_log_loss": 0.5, "best_log_loss": best, "gap_closed": None}
    data = {"name": "log", "events": 10, "users": 2, "catalogue": 3}
    return {"data": data, **{name: {**part, "click": answers, "order": answers} for name in ("held_out", "test")}}


@pytest.mark.parametrize(
    ("loss", "said"), [(0.5, "no better than the rates"), (0.51, "no better"), (0.498, "only 0.4% better")]
)
def test_a_model_like_the_base_rates_is_named(loss, said):
    (warning,) = verdicts(report(loss))
    assert said in warning
    lines = format_report(report(loss)).splitlines()
    assert lines[-1] == f"WARNING: {warning}"
    assert lines[2].split() == ["events", "5", "5"]


def test_empty_rows_are_explained():
    assert remarks(report(0.4)) == []
    assert "known of generated logs alone" in remarks(report(0.4, best=None))[0]
    assert "an AUC is empty" in remarks(report(0.4, auc=None))[0]


def test_users_who_overpay_a_fixed_policy_are_named_by_the_worst():
    fine = dict.fromkeys([*THRESHOLDS, "windows_beyond_log"], 0.5)
    of = {"random": fine, "last_click": fine | {"live_over_unmoved": 2.5}, "rate_and_clicks": fine}
    of["rate_and_clicks"] = fine | {"live_over_unmoved": 3.1}
    assert verdicts({**report(0.4), "signals": {"random": fine}}) == []
    (warning,) = verdicts({**report(0.4), "signals": of})
    assert warning.startswith(
        "the fixed policy rate_and_clicks may live on the mistakes of the learned users: they pay 3.1"
    )
    lines = format_report({**report(0.4), "signals": of}).splitlines()
    assert lines[-1] == f"WARNING: {warning}"
    assert lines[-2].split() == ["rate_and_clicks", "3.100", "0.500", "0.500", "0.500"]
    # A fit that also predicts badly, and one of an earlier version.
    assert len(verdicts({**report(0.5), "signals": of})) == 2
    assert len(format_report(report(0.4)).splitlines()) == len(lines) - 5


def test_positions_by_hand():
    predicted = np.asarray([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0]])
    feedback, base = np.asarray([0, 2, 1, 0]), np.asarray([0.5, 0.3, 0.2])
    first, second, last = by_position(predicted, feedback, base, np.asarray([0, 1, 2, 45]))
    assert [(at["first"], at["last"], at["events"]) for at in (first, second, last)] == [
        (1, 1, 1),
        (2, 3, 2),
        (31, None, 1),
    ]
    assert second["log_loss"] == pytest.approx(-np.log(0.2 * 0.3) / 2)
    assert second["base_log_loss"] == pytest.approx(-np.log(0.2 * 0.3) / 2)
    assert last["base_log_loss"] == pytest.approx(-np.log(0.5))
    assert second["click"] == {"rate": 1.0, "predicted_rate": pytest.approx(0.45)}
    assert second["order"] == {"rate": 0.5, "predicted_rate": pytest.approx(0.15)}
    shown = report(0.4)
    shown["test"]["positions"] = [first, second, last]
    lines = format_report(shown).splitlines()
    start = lines.index(next(line for line in lines if line.startswith("by position, test part")))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["1", "2", "31"]
    assert lines[start + 3].split()[1:3] == ["on", "1"]
    assert lines[start + 2].split()[1:7] == ["to", "3", "2", "1.4067", "1.4067", "100.000%"]

"""What the figures of a user model mean, where they are bad or absent."""

from typing import Any

import pytest

from hrlmg_jax.user_model.quality import format_report, remarks, weakness


def report(loss: float, best: float | None = 0.3, auc: float | None = 0.6) -> dict[str, Any]:
    """The report of a model whose base rates have a log-loss of 0.5."""
    answers = {"auc": auc, "average_precision": 0.2, "calibration_error": 0.1}
    answers |= dict.fromkeys(("rate", "predicted_rate", "simulated_rate"), 0.1)
    part = {"log_loss": loss, "base_log_loss": 0.5, "best_log_loss": best, "gap_closed": None}
    data = {"name": "log", "events": 10, "users": 2, "catalogue": 3}
    return {"data": data, **{name: {**part, "click": answers, "order": answers} for name in ("held_out", "test")}}


@pytest.mark.parametrize(
    ("loss", "said"), [(0.5, "no better than the rates"), (0.51, "no better"), (0.498, "only 0.4% better")]
)
def test_a_model_like_the_base_rates_is_named(loss, said):
    (warning,) = weakness(report(loss))
    assert said in warning
    assert warning in format_report(report(loss)).splitlines()


def test_empty_rows_are_explained():
    assert remarks(report(0.4)) == []
    assert "known of generated logs alone" in remarks(report(0.4, best=None))[0]
    assert "an AUC is empty" in remarks(report(0.4, auc=None))[0]

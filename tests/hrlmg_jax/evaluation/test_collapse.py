"""How concentrated recommendations are, by hand, and the warning."""

from pathlib import Path

import numpy as np
import pytest

from harness.runs.run_folder import RunFolder
from hrlmg_jax.evaluation.collapse import (
    CollapseWatch,
    collapse_at_the_end,
    collapse_warning,
    share_of_items_used,
    share_of_items_used_at_a_step,
)


def test_share_of_items_used_by_hand():
    items = np.array([[0, 1], [0, 1], [0, 2], [0, 3], [0, 4]])  # of ten recommendations five are 0, two are 1
    assert share_of_items_used(items, 20) == pytest.approx(4 / 20)  # nine of ten: 0, 1 and two others
    assert share_of_items_used(np.zeros((5, 1), int), 20) == pytest.approx(1 / 20)
    # At the first step one of five items that could differ, at the second all four (four fifths are too few).
    assert share_of_items_used_at_a_step(items, 20) == pytest.approx((1 + 4) / 2 / 5)
    assert share_of_items_used_at_a_step(items, 4) == pytest.approx((1 + 4) / 2 / 4)


def test_one_list_for_everyone_is_seen_although_no_session_repeats_an_item():
    everyone = np.tile(np.arange(300), (256, 1))
    assert share_of_items_used(everyone, 2000) == pytest.approx(270 / 2000)
    assert share_of_items_used_at_a_step(everyone, 2000) == pytest.approx(1 / 256)


def found(used: float, at_a_step: float) -> dict[str, float]:
    return {"validation_items_used": used, "validation_items_used_at_a_step": at_a_step}


def test_the_warning_comes_once_and_says_what_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert collapse_warning(found(0.01, 0.01)) is None
    watch = CollapseWatch(RunFolder(tmp_path))
    for used, at_a_step in ((0.2, 0.3), (0.2, 0.004), (0.009, 0.3)):
        watch.look_at(found(used, at_a_step))
    errors = capsys.readouterr().err
    assert errors.count("WARNING") == 1
    assert str(tmp_path) in errors
    assert "0.40% of the items that they could get at the same step" in errors
    assert "agent.network.action_norm=unit" in errors
    assert "of the catalogue" in (collapse_warning(found(0.009, 0.3)) or "")


def test_only_the_last_validation_decides_at_the_end():
    rows = [{"step": 1.0}, found(0.001, 0.001), found(0.5, 0.5), {"step": 3.0}]
    assert collapse_at_the_end(rows) is None
    assert collapse_at_the_end([*rows, found(0.5, 0.001)]) is not None
    assert collapse_at_the_end([{"step": 1.0}]) is None

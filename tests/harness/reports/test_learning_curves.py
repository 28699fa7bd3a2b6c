"""Means over seeds at each step, by hand."""

import numpy as np
import pytest
from run_folders import make_run

from harness.reports.learning_curves import curve_rows, learning_curve, plot_learning_curves
from harness.reports.results import Estimate, estimate_over_seeds
from harness.runs.index import find_runs


def test_mean_and_interval_over_seeds(tmp_path):
    for seed, values in ((0, (1.0, 3.0)), (1, (2.0,))):
        rows = [
            {"step": 10 * n, "episodes": 100 * n, "seconds": (2.0 + seed) * n, "reward": value}
            for n, value in enumerate(values, 1)
        ]
        last = {"step": 90, "episodes": 900, "seconds": 9.0}
        make_run(tmp_path / str(seed), rows=[*rows, last], settings={"seed": seed})
    make_run(tmp_path / "nothing_yet", settings={"seed": 2})
    runs = find_runs([str(tmp_path)], "eval.json").runs
    first, second = learning_curve(runs, "reward")
    # 1 and 2: mean 1.5, standard error 1/2, t(0.975, 1) = 12.7062.
    assert (first.step, first.episodes, first.seconds, first.seeds) == (10, 100, 2.5, 2)
    assert first.value == pytest.approx((1.5, 1.5 - 6.3531, 1.5 + 6.3531), abs=1e-4)
    assert (second.step, second.value, second.seeds) == (20, Estimate(3.0, 3.0, 3.0), 1)
    assert curve_rows("reward", "x", [second]) == [["x", "reward", 20, 200, 4.0, 3.0, 3.0, 3.0, 1]]
    path = tmp_path / "curves.png"
    plot_learning_curves(path, "a $\\broken$ title", {"reward": {"x": [first, second]}, "nothing": {}})
    assert path.read_bytes().startswith(b"\x89PNG")
    pictures = {path.read_bytes()}
    for over in ("step", "seconds"):
        plot_learning_curves(path, "a $\\broken$ title", {"reward": {"x": [first, second]}, "nothing": {}}, over)
        pictures.add(path.read_bytes())
    assert len(pictures) == 3


def test_estimates():
    rows = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]])
    # Over users: s = 1.290994, standard error 0.645497, t(0.975, 3) = 3.182446.
    assert estimate_over_seeds(rows[:1]) == pytest.approx((2.5, 2.5 - 2.054260, 2.5 + 2.054260), abs=1e-5)
    assert estimate_over_seeds(rows) == pytest.approx((3.0, 3.0 - 6.353102, 3.0 + 6.353102), abs=1e-5)
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.5000 ± 0.2500"
    assert str(Estimate(0.5, 0.5, 0.5)) == "0.5000"

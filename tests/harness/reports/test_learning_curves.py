"""Means over seeds at each step, by hand."""

import numpy as np
import pytest
from run_folders import make_run

from harness.reports.learning_curves import curve, curves_table, plot_learning_curves, read_curves
from harness.reports.results import Estimate
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
    curves = read_curves({"x": runs, "nothing": []}, ["reward", "other"])
    first, _ = curve(curves, "reward", "x").iter_rows(named=True)
    # 1 and 2: mean 1.5, standard error 1/2, t(0.975, 1) = 12.7062.
    assert [first[key] for key in ("step", "episodes", "seconds", "seeds")] == [10, 100, 2.5, 2]
    assert [first[key] for key in ("mean", "low", "high")] == pytest.approx([1.5, 1.5 - 6.3531, 1.5 + 6.3531], abs=1e-4)
    assert curves_table(curves).rows[1] == ("x", "reward", 20, 200, 4.0, 3.0, 3.0, 3.0, 1)
    assert len(curves) == 2
    path, panels = tmp_path / "curves.png", {"reward": "reward", "other": "nothing"}
    pictures = set()
    for over in ("episodes", "step", "seconds"):
        plot_learning_curves(path, "a $\\broken$ title", curves, panels, over, {"reward": {"a $\\list$": 2.0}})
        pictures.add(path.read_bytes())
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(pictures) == 3


def test_curves_keep_the_order_of_labels_and_metrics(tmp_path):
    make_run(
        tmp_path / "run", rows=[{"step": 2, "episodes": 8, "b": 1.0, "a": 2.0}, {"step": 1, "episodes": 4, "a": 3.0}]
    )
    runs = find_runs([str(tmp_path)], "eval.json").runs
    curves = read_curves({"z": runs, "y": runs}, ["b", "a"])
    assert curves.select("metric", "runs", "step").rows() == [
        *(("b", "z", 2), ("b", "y", 2), ("a", "z", 1), ("a", "z", 2), ("a", "y", 1), ("a", "y", 2))
    ]
    assert all(np.isnan(seconds) for seconds in curves["seconds"])  # the rows have none


def test_runs_of_one_unit_are_one_value(tmp_path):
    for fold, seed, value in ((0, 0, 1.0), (0, 1, 3.0), (1, 0, 4.0)):
        rows = [{"step": 1, "episodes": 8, "reward": value}]
        make_run(tmp_path / f"{fold}{seed}", rows=rows, settings={"seed": seed, "data.fold": fold})
    runs = find_runs([str(tmp_path)], "eval.json").runs
    (point,) = read_curves({"x": runs}, ["reward"], lambda run: run.settings["data.fold"]).iter_rows(named=True)
    # Folds have 2 and 4: standard error 1, t(0.975, 1) = 12.7062.
    assert (point["mean"], point["seeds"], point["values"]) == (3.0, 2, [2.0, 4.0])
    assert point["high"] == pytest.approx(15.7062, abs=1e-4)


def test_runs_with_points_at_different_steps_are_read_between_them(tmp_path):
    points = {0: [(10, 1.0), (30, 3.0)], 1: [(20, 4.0), (40, 8.0)], 2: [(20, 0.0), (30, 3.0)]}
    for seed, of_run in points.items():
        rows = [{"step": step, "episodes": 8 * step, "seconds": step / 5, "reward": value} for step, value in of_run]
        make_run(tmp_path / str(seed), rows=rows, settings={"seed": seed})
    runs = find_runs([str(tmp_path)], "eval.json").runs
    found = read_curves({"x": runs}, ["reward"]).select("step", "episodes", "seconds", "values").rows()
    # At 20 the first has 2, at 30 the second 6; at 10 and 40 there is one run of three.
    assert found == [(20, 160, 4.0, [2.0, 4.0, 0.0]), (30, 240, 6.0, [3.0, 6.0, 3.0])]


def test_estimates():
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.5000 ± 0.2500"
    assert str(Estimate(0.5, 0.5, 0.5)) == "0.5000"

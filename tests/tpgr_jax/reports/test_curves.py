"""Learning curves of runs without any."""

import pytest
from run_folders import make_run

from harness.errors import UserError
from harness.settings import read_settings
from tpgr_jax.reports.curves import CurvesConfig, report_curves


def report(folder):
    settings = {"report": "curves", "runs": [str(folder)], "data_name": None, "out": str(folder / "out")}
    report_curves(read_settings(CurvesConfig, settings))


def test_agents_that_do_not_train_have_no_curves(tmp_path):
    make_run(tmp_path / "a", [1.0, 2.0], {"agent.name": "linear_ucb"})
    with pytest.raises(UserError, match=r"no learning curve|has a learning curve: linear_ucb learn.*\n.*report table2"):
        report(tmp_path)


def test_runs_that_have_not_got_so_far_are_named(tmp_path):
    make_run(tmp_path / "a")
    with pytest.raises(UserError, match=r"no run there has metrics yet: .*/a \(no checkpoint yet\)\n  Wait"):
        report(tmp_path)

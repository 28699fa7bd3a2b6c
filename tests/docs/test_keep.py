"""docs/runs/keep.py: what is kept of runs is what reports read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from run_folders import make_run, make_session_run

from harness.reports.system_results import RunsConfig
from harness.runs.run_folder import RunFolder, read_arrays, write_arrays
from hrlmg_jax.reports import results as hrl_mg
from tpgr_jax.reports import results as tpgr

KEEP = Path(__file__).parents[2] / "docs" / "runs" / "keep.py"


def kept(source: Path, target: Path) -> str:
    command = [sys.executable, str(KEEP), str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_reports_read_the_same_of_what_is_kept(tmp_path):
    source, target = tmp_path / "runs", tmp_path / "kept"
    rows = [{"step": 5, "reward": 0.1}, {"step": 10, "reward": 0.2, "test_reward": 0.3}]
    run = make_run(source / "sweep" / "0", [1.0, 2.0, 4.5], {"data.root": "/home/somebody/data"}, rows, checkpoint=1000)
    items = {"items": np.arange(6).reshape(3, 2)}
    write_arrays(run / "eval.npz", read_arrays(run / "eval.npz", None) | items)
    assert kept(source, target) == f"1 runs kept in {target}\n"
    copy = RunFolder(target / "sweep" / "0")
    assert not copy.checkpoints.exists()
    assert copy.read_config()["data"]["root"] == "data"
    assert copy.metrics.read_text().count("\n") == 1
    assert "items" not in read_arrays(copy.path / "eval.npz", None)
    values = []
    for folder in (source, target):
        found = tpgr.comparable_runs(RunsConfig(report="table2", runs=[str(folder)], data_name=None, out=str(tmp_path)))
        values.append(tpgr.SYSTEM.read(tpgr.SYSTEM.methods(found.runs), tpgr.TEST).results[0].values["reward"])
    np.testing.assert_array_equal(*values)


def test_runs_of_sessions_are_kept_too(tmp_path):
    make_session_run(tmp_path / "runs" / "0", [10.0, 20.0])
    kept(tmp_path / "runs", tmp_path / "kept")
    assert [run.status for run in hrl_mg.SYSTEM.runs([str(tmp_path / "kept")]).runs] == ["finished"]

"""The list of all runs: of both systems, and of runs that are not whole."""

import json

import pytest
from run_folders import make_run, make_session_run

from harness.reports.run_list import RunListConfig, list_runs
from hrlmg_jax.reports.results import SYSTEM as HRL_MG
from hrlmg_jax.reports.results import hrl_mg_runs
from tpgr_jax.reports.results import SYSTEM


def listed(capsys, folder, find=SYSTEM.runs, system=SYSTEM, out=None):
    list_runs(RunListConfig("runs", [str(folder)], out), find, system)
    return capsys.readouterr().out.splitlines()


def test_progress_results_and_what_cannot_be_read(tmp_path, capsys):
    rows = [{"step": step, "test_reward": reward} for step, reward in ((10, 0.5), (20, 0.25))]
    rows.append({"step": 30, "seconds": 1234.0})
    settings = {"seed": 7, "env.alpha": 0.1}
    make_run(tmp_path / "a", settings=settings, rows=rows, checkpoint=30, name="x\x1b[1m", synthetic=True)
    make_run(tmp_path / "b", [1, 2], {"agent.name": "popularity"}, step=0)
    (make_run(tmp_path / "c") / "config.yaml").write_text("")
    head, a, b, unreadable = listed(capsys, tmp_path)
    assert head.split()[:5] == ["folder", "method", "data", "alpha", "seed"]
    wanted = [str(tmp_path / "a"), "TPGR", "x", "[1m", "(SYNTHETIC)", "0.1", "7", "interrupted", "30/1000"]
    assert a.split() == [*wanted, "0.2500", "0.5000", "(10)", "1,234", "-"]
    # A method that is only fitted has no steps, and yet a result.
    assert b.split()[3:] == ["0.1", "0", "finished", "no", "training", "-", "-", "-", "1.5000"]
    assert unreadable.startswith("not readable: ")


@pytest.mark.parametrize("policies", [None, [], {}, {"own": 1}, {"own": {"reward": None}}])
def test_a_result_without_the_metric_does_not_hide_the_run(tmp_path, capsys, policies):
    path = make_run(tmp_path / "a", [1, 2]) / "eval.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"policies": policies}))
    assert listed(capsys, tmp_path)[1].split()[-1] == "-"


def test_the_list_says_what_is_not_real(tmp_path, capsys):
    make_session_run(tmp_path / "a", [1.0], name="log", synthetic=False, order_proxy="is_like")
    head, line = listed(capsys, tmp_path, hrl_mg_runs, HRL_MG)
    assert head.split()[:6] == ["folder", "method", "data", "alpha", "M", "seed"]
    assert "log (ORDERS ARE A PROXY: is_like)" in line
    assert "SYNTHETIC" not in line


def test_the_list_is_written_where_out_says(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a", [1, 2])
    (make_run(tmp_path / "runs" / "b") / "config.yaml").write_text("")
    lines = listed(capsys, tmp_path / "runs", out=str(tmp_path / "out"))
    assert lines[-1] == f"written to {tmp_path / 'out'}: runs.md, runs.csv"
    text = (tmp_path / "out" / "runs.md").read_text()
    assert f"| {tmp_path / 'runs' / 'a'} | TPGR | movielens_1m |" in text
    assert "## Not readable" in text
    assert "1.5000" in (tmp_path / "out" / "runs.csv").read_text()

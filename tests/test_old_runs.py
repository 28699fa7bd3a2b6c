"""Run folders that earlier versions made (tests/old_runs/README.md).

TPGR's resume and evaluate to the numbers of that time; HRL-MG's are refused, because their logs were built otherwise.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_lines import checkpoint_steps, metrics_without_times

from harness.commands.old_names import current_metrics

FOLDER = Path(__file__).parent / "old_runs" / "5e63f8e"
TOLERANCE = {"rel": 1e-5, "abs": 1e-6}  # other processors round otherwise
RESULTS = ["eval"]
REFUSED = (
    r"run: its log was built otherwise \(sampled skips and histories knew the future\), so only commit 5e63f8e can "
)


class OldRun(NamedTuple):
    """A stored folder.

    Attributes:
        agent: Its name.
        steps: How far it is trained further; the stored checkpoint is of half as many.
        seeds: Folders of the runs in it.
    """

    agent: str
    steps: int
    seeds: tuple[str, ...] = ("",)


RUNS = [
    OldRun("tpgr", 8),
    OldRun("tpgr_plus", 8),
    OldRun("dqn_r", 8, ("seed_0", "seed_1")),
]


def assert_contains(found: Any, expected: Any, where: str) -> None:
    """Compares JSON values, numbers to the tolerance; what is found may have more keys."""
    if isinstance(expected, dict):
        assert expected.keys() <= found.keys(), f"{where} lacks {sorted(expected.keys() - found.keys())}"
        for key, value in expected.items():
            assert_contains(found[key], value, f"{where}: {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_contains(found[number], value, f"{where}: {number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, **TOLERANCE), where
    else:
        assert found == expected, where


def assert_same_arrays(found: Path, expected: Path) -> None:
    with np.load(found, allow_pickle=False) as ours, np.load(expected, allow_pickle=False) as theirs:
        for name in theirs.files:
            if theirs[name].dtype.kind == "f":
                np.testing.assert_allclose(ours[name], theirs[name], TOLERANCE["rel"], TOLERANCE["abs"], err_msg=name)
            else:
                np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def results(folder: Path, names: list[str]) -> dict[str, Any]:
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


@pytest.fixture
def copied(tmp_path):
    """Returns a function that copies a stored run folder to `run` in the folder of the test."""

    def copy(agent: str) -> Path:
        return Path(shutil.copytree(FOLDER / agent / "run", tmp_path / "run"))

    return copy


@pytest.mark.parametrize(
    "run", [RUNS[0], *(pytest.param(run, marks=pytest.mark.long) for run in RUNS[1:])], ids=lambda run: run.agent
)
def test_an_old_run_resumes_to_the_numbers_of_then(run, copied, run_command_line, tmp_path):
    folder = copied(run.agent)
    arguments = ["resume=run", f"train.steps={run.steps}", "devices.count=1"]
    finished = run_command_line("tpgr_jax.train", *arguments)
    assert finished.returncode == 0, finished.stderr
    for seed in run.seeds:
        before, now, then = FOLDER / run.agent / "run" / seed, folder / seed, FOLDER / run.agent / "resumed" / seed
        assert checkpoint_steps(before) == [run.steps // 2]
        assert max(checkpoint_steps(now)) == run.steps
        old_rows, new_rows = ([*map(current_metrics, metrics_without_times(path))] for path in (before, then))
        rows = metrics_without_times(now)
        assert rows[: len(old_rows)] == old_rows
        assert_contains(rows[len(old_rows) :], new_rows, "metrics.jsonl")
        assert_contains(results(now, RESULTS), results(then, RESULTS), seed or "run")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize(
    "run",
    [pytest.param(run, marks=[] if run.agent == "tpgr" else [pytest.mark.long], id=run.agent) for run in RUNS],
)
def test_an_old_run_evaluates_to_the_numbers_of_then(run, copied, run_command_line, tmp_path):
    seed = run.seeds[-1]
    folder, before = copied(run.agent) / seed, FOLDER / run.agent / "run" / seed
    files = [f"{name}.{ending}" for name in RESULTS for ending in ("json", "npz")]
    for name in files:
        (folder / name).unlink()
    finished = run_command_line("tpgr_jax.evaluate", f"run={folder}")
    assert finished.returncode == 0, finished.stderr
    assert_contains(results(folder, RESULTS), results(before, RESULTS), "run")
    for name in RESULTS:
        assert_same_arrays(folder / f"{name}.npz", before / f"{name}.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("command", ["train resume=run train.steps=16", "evaluate run=run"])
def test_an_old_run_on_a_log_is_refused_in_one_sentence(command, copied, run_command_line):
    folder = copied("hrl_mg")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    name, *arguments = command.split()
    finished = run_command_line(f"hrlmg_jax.{name}", *arguments)
    assert finished.returncode == 2
    assert re.search(REFUSED, finished.stderr)
    assert "Traceback" not in finished.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_reports_know_old_runs(run_command_line):
    finished = run_command_line("hrlmg_jax.report", "runs", str(FOLDER))
    for folder in ("hrl_mg/", "hrl_mg_memory/"):
        assert re.search(folder + REFUSED, finished.stdout + finished.stderr)
    finished = run_command_line("tpgr_jax.report", "runs", str(FOLDER))
    assert finished.returncode == 0, finished.stderr
    for folder, method in {"tpgr/run": "TPGR", "tpgr_plus/run": "TPGR+", "dqn_r/run/seed_1": "DQN-R"}.items():
        (line,) = [line for line in finished.stdout.splitlines() if folder in line]
        assert f" {method} " in line
        assert " finished " in line

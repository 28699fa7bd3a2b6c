"""Studies on a training command without JAX: what ends, fails, is pruned, is killed, and goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_study
import pytest
import yaml

from harness.errors import UserError

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _training_can_be_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.chdir(tmp_path)


def _run(trials=3, workers=1, pace=0.0, pruner="none", low=0.1, high=0.5):
    """Runs a study in the folder `study`."""
    fake_study.run_study("study", *map(str, (trials, workers, pace, pruner, low, high)))


def _start(*words):
    """Starts a study in a process of its own; the words are trials, workers, pace, pruner, low and high."""
    command = [sys.executable, "-m", "fake_study", "study", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors + out
    assert "Traceback" not in errors
    return out, errors


def _trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "study" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def _starts(folder: Path, number: int) -> int:
    path = folder / "study" / "trials" / f"{number:04}" / "starts.txt"
    return len(path.read_text().split()) if path.exists() else 0


def _wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_trials_are_runs_and_the_best_becomes_a_configuration(tmp_path, capsys):
    _run(trials=4, workers=2)
    out = capsys.readouterr().out
    trials = _trials(tmp_path)
    assert [row["state"] for row in trials] == ["complete"] * 4
    assert float(trials[0]["rate"]) == 0.1  # trial 0 is the default
    for row in trials:
        assert float(row["validation reward"]) == pytest.approx(1 - (float(row["rate"]) - 0.3) ** 2)
        stored = yaml.safe_load((tmp_path / row["run folder"] / "config.yaml").read_text())
        assert float(stored["rate"]) == float(row["rate"])
    best = max(trials, key=lambda row: float(row["validation reward"]))
    assert yaml.safe_load((tmp_path / "study" / "tuned" / "best.yaml").read_text()) == {"rate": float(best["rate"])}
    assert out.count("\ntrial ") + out.startswith("trial ") == 4
    assert "best so far" in out
    for name in ("history.png", "settings.png", "trials.md"):
        assert (tmp_path / "study" / name).stat().st_size
    # Nothing is pickled: the journal is lines of JSON.
    assert [json.loads(line) for line in (tmp_path / "study" / "journal.jsonl").read_text().splitlines()]


def test_more_trials_continue_a_study_without_repeating_draws(tmp_path):
    _run(trials=2)
    first = _trials(tmp_path)
    _run(trials=4)
    trials = _trials(tmp_path)
    assert trials[:2] == first
    assert len({row["rate"] for row in trials}) == 4
    assert [_starts(tmp_path, number) for number in range(4)] == [1, 1, 1, 1]


def test_a_trial_that_diverges_fails_and_the_study_goes_on(tmp_path, capsys):
    _run(trials=3, low=0.9, high=1.0)
    out = capsys.readouterr().out
    trials = _trials(tmp_path)
    assert [row["state"] for row in trials] == ["fail"] * 3
    assert "training diverged" in trials[0]["reason"]
    assert "failed: training diverged" in out
    assert not (tmp_path / "study" / "tuned").exists()


def test_a_mistake_of_the_user_ends_the_study(tmp_path):
    with pytest.raises(UserError, match="rate is 0\n  Choose another"):
        _run(trials=3, low=0.0, high=0.0)
    assert _starts(tmp_path, 1) == 0


def test_bad_trials_are_pruned(tmp_path):
    # The default is near the best; the others are not, and slow enough to be seen before they end.
    _run(trials=3, pace=0.3, pruner="median", low=0.3, high=0.8)
    trials = _trials(tmp_path)
    assert trials[0]["state"] == "complete"
    pruned = [row for row in trials[1:] if row["state"] == "pruned"]
    assert pruned
    for row in pruned:
        rows = (tmp_path / row["run folder"] / "metrics.jsonl").read_text().splitlines()
        assert 2 <= len(rows) < 10


def test_an_interrupted_study_resumes_its_trial(tmp_path):
    process = _start(2, 1, 0.3, "none", 0.1, 0.5)
    metrics = tmp_path / "study" / "trials" / "0000" / "metrics.jsonl"
    _wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2)
    process.send_signal(signal.SIGTERM)
    _finished(process)
    assert len(metrics.read_text().splitlines()) < 10
    _run(trials=2, pace=0.3)
    assert [row["state"] for row in _trials(tmp_path)] == ["complete"] * 2
    assert [_starts(tmp_path, number) for number in range(2)] == [2, 1]


def test_after_kill_9_the_rerun_waits_for_the_orphan_and_counts_its_trial(tmp_path):
    process = _start(2, 1, 0.3, "none", 0.1, 0.5)
    metrics = tmp_path / "study" / "trials" / "0000" / "metrics.jsonl"
    _wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2)
    process.kill()
    process.communicate()
    with (tmp_path / "study" / "journal.jsonl").open("a") as journal:
        journal.write('{"op_code": 9, "half a li')  # the kill came in the middle of a write
    _run(trials=2, pace=0.3)
    assert [row["state"] for row in _trials(tmp_path)] == ["complete"] * 2
    assert len(metrics.read_text().splitlines()) == 10  # the orphan went on, and nobody trained beside it


def test_two_commands_share_a_study(tmp_path):
    both = [_start(4, 1, 0.05, "none", 0.1, 0.5) for _ in range(2)]
    for process in both:
        _finished(process)
    assert len(_trials(tmp_path)) == 4
    assert [_starts(tmp_path, number) for number in range(5)] == [1, 1, 1, 1, 0]

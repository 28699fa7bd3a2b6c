"""Budgets of training: where it ends, which state counts within each, and what a resumed run makes of both."""

import itertools
import os
import signal
from types import SimpleNamespace

import jax
import pytest
from counting_agent import noisy_counter

import harness.training.loop as loop
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from harness.training.budgets import BudgetsConfig, counted_step
from harness.training.parallel_seeds import SeedRun

ROWS = [
    {"step": 1, "episodes": 10, "seconds": 1.0, "test_reward": 9.0, "selection_reward": 0.1},
    {"step": 2, "episodes": 20, "seconds": 2.0},
    {"step": 3, "episodes": 30, "seconds": 3.0, "test_reward": 0.0, "selection_reward": 0.3},
    {"step": 4, "episodes": 40, "seconds": 4.0, "test_reward": 1.0, "selection_reward": 0.3},
    {"step": 5, "episodes": 50, "seconds": 5.0, "test_reward": 2.0, "selection_reward": 0.9},
]


def _without_selection(rows):
    return [{key: row[key] for key in row if key != "selection_reward"} for row in rows]


def test_the_best_by_selection_users_counts_and_never_by_test_users():
    assert counted_step(ROWS, "episodes", 40) == 3  # the earlier of equals
    assert counted_step(ROWS, "seconds", 2.5) == 1
    assert counted_step(ROWS, "episodes", 1000) == 5
    assert counted_step(ROWS, "episodes", 9) is None


def test_without_selection_users_the_last_evaluation_counts():
    rows = _without_selection(ROWS)
    assert counted_step(rows, "episodes", 45) == 4
    assert counted_step(rows, "seconds", 2.9) == 1  # step 2 was not evaluated


def test_impossible_budgets_are_refused():
    with pytest.raises(UserError, match=r"budgets\.episodes is 0"):
        read_settings(BudgetsConfig, {"episodes": 0}, "train.budgets")
    assert read_settings(BudgetsConfig, {}).limits == {}


@pytest.fixture(autouse=True)
def _a_second_per_chunk(monkeypatch):
    """A clock by which fitting takes a second, and each chunk another."""
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def _train(path, evaluate=lambda state: {"test_reward": float(state["total"])}, **budgets):
    """Trains in chunks of 2 steps and 8 episodes, evaluated every 4 steps."""
    path.mkdir(exist_ok=True)
    schedule = loop.ScheduleConfig(100, 2, 4, 4, 1, budgets=BudgetsConfig(**budgets))
    run = SeedRun(noisy_counter(), RunFolder(path), jax.random.key(3), evaluate)
    loop.run_training([run], schedule, {"data": "counter"})
    return read_rows(path / "metrics.jsonl")


def _kept(path):
    with Checkpoints(path / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.steps


def test_training_ends_when_all_budgets_are_spent_and_is_read_at_each(tmp_path):
    rows = _train(tmp_path / "run", episodes=24, seconds=2.5)
    # After step 2 the clock says 2 s, and the next chunk would end at 3 s; episodes are spent after step 6.
    assert [(row["step"], row["episodes"], row["seconds"]) for row in rows] == [(2, 8, 2.0), (4, 16, 3.0), (6, 24, 4.0)]
    assert all("test_reward" in row for row in rows)  # at 2 and 6 because a budget ends there
    assert counted_step(rows, "seconds", 2.5) == 2
    assert counted_step(rows, "episodes", 24) == 6
    assert _kept(tmp_path / "run") == [2, 6]  # of which 2 is not among the newest


def test_the_state_that_selection_users_chose_keeps_its_checkpoint(tmp_path):
    def evaluate(state):
        return {"test_reward": 0.0, "selection_reward": -abs(float(state["step"]) - 4)}

    _train(tmp_path / "run", evaluate, episodes=80)
    assert _kept(tmp_path / "run") == [4, 20]


def test_a_finished_run_that_is_resumed_trains_no_further(tmp_path):
    rows = _train(tmp_path / "run", seconds=5.5)
    assert rows[-1]["seconds"] == 5.0
    assert _train(tmp_path / "run", seconds=5.5) == rows
    assert _train(tmp_path / "run", seconds=7.5)[-1]["seconds"] == 7.0


def test_seconds_and_choices_go_on_after_an_interruption(tmp_path):
    whole = _train(tmp_path / "whole", episodes=48, seconds=4.5)

    def interrupt(state):
        if int(state["step"]) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"test_reward": float(state["total"])}

    with pytest.raises(loop.Interruption):
        _train(tmp_path / "parts", interrupt, episodes=48, seconds=4.5)
    assert _train(tmp_path / "parts", episodes=48, seconds=4.5) == whole
    assert _kept(tmp_path / "parts") == _kept(tmp_path / "whole") == [6, 12]

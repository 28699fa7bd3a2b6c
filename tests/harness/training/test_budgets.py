"""Budgets of training: where it ends, which state counts within each, and what a resumed run makes of both."""

import itertools
import os
import signal
import threading
from types import SimpleNamespace

import jax
import pytest
from counting_agent import noisy_counter
from jax._src.monitoring import unregister_event_duration_listener  # JAX has no public way to end listening

import harness.training.loop as loop
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from harness.training.budgets import BudgetsConfig, candidate_rows, counted_step
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
    assert counted_step(ROWS, "episodes", BudgetsConfig(40)) == 3  # the earlier of equals
    assert counted_step(ROWS, "seconds", BudgetsConfig(seconds=2.5)) == 1
    assert counted_step(ROWS, "episodes", BudgetsConfig(1000)) == 5
    assert counted_step(ROWS, "episodes", BudgetsConfig(9)) is None


def test_without_selection_users_the_last_evaluation_counts():
    rows = _without_selection(ROWS)
    assert counted_step(rows, "episodes", BudgetsConfig(45)) == 4
    assert counted_step(rows, "seconds", BudgetsConfig(seconds=2.9)) == 1  # step 2 was not evaluated


def test_with_a_number_of_evaluations_only_those_after_parts_of_the_budget_count():
    rows = [{"step": n, "episodes": 10 * n, "seconds": 5.0 * n, "selection_reward": 1 - n / 100} for n in range(1, 13)]
    of_two = BudgetsConfig(105, evaluations=2)
    assert [row["step"] for row in candidate_rows(rows, "episodes", of_two)] == [6, 10]  # 52.5 and 105 episodes
    assert counted_step(rows, "episodes", of_two) == 6
    assert [row["step"] for row in candidate_rows(rows[:8], "episodes", of_two)] == [6, 8]
    assert [row["step"] for row in candidate_rows(rows[:8], "episodes", of_two, ended=False)] == [6]
    assert counted_step(rows, "seconds", BudgetsConfig(seconds=20, evaluations=1)) == 4


def test_impossible_budgets_are_refused():
    with pytest.raises(UserError, match=r"budgets\.episodes is 0"):
        read_settings(BudgetsConfig, {"episodes": 0}, "train.budgets")
    assert read_settings(BudgetsConfig, {}).limits == {}
    with pytest.raises(UserError, match=r"train\.budgets\.evaluations is 20, and there is no budget"):
        read_settings(BudgetsConfig, {"evaluations": 20}, "train.budgets")


@pytest.fixture(autouse=True)
def _a_second_per_chunk(monkeypatch):
    """A clock by which fitting takes a second, and each chunk another."""
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def _train(path, evaluate=lambda state: {"test_reward": float(state["total"])}, steps=100, agent=None, **budgets):
    """Trains in chunks of 2 steps and 8 episodes, evaluated every 4 steps."""
    path.mkdir(exist_ok=True)
    schedule = loop.ScheduleConfig(steps, 2, 4, 4, 1, budgets=BudgetsConfig(**budgets))
    run = SeedRun(agent or noisy_counter(), RunFolder(path), jax.random.key(3), evaluate)
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
    budgets = BudgetsConfig(24, 2.5)
    assert counted_step(rows, "seconds", budgets) == 2
    assert counted_step(rows, "episodes", budgets) == 6
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


@pytest.mark.parametrize(("episodes_per_step", "expected"), [(2, [40, 80, 120, 160]), (8, [48, 80, 128, 160])])
def test_methods_of_any_batch_choose_among_equally_many_states(tmp_path, episodes_per_step, expected):
    agent = noisy_counter()._replace(episodes_per_step=episodes_per_step)
    rows = _train(tmp_path / "run", agent=agent, episodes=160, evaluations=4)
    assert [row["episodes"] for row in rows if "test_reward" in row] == expected


def test_a_state_that_counts_is_kept_while_states_that_do_not_are_evaluated(tmp_path):
    rewards = {10: 0.1, 12: 0.5, 18: 0.9, 24: 0.2}

    def evaluate(state):
        return {"test_reward": 0.0, "selection_reward": rewards.get(int(state["step"]), 0.0)}

    rows = _train(tmp_path / "run", evaluate, episodes=96, seconds=10.5, evaluations=2)
    budgets = BudgetsConfig(96, 10.5, 2)
    assert [row["step"] for row in candidate_rows(rows, "episodes", budgets)] == [12, 24]
    assert [row["step"] for row in candidate_rows(rows, "seconds", budgets)] == [10, 18]
    assert _kept(tmp_path / "run") == [12, 18, 24]


class _Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: self.now))

    def agent(self, seconds_of_chunk):
        """An agent whose chunk that ends after step n takes `seconds_of_chunk(n)`, half of it each step."""
        counter = noisy_counter()

        def pass_time(step):
            self.now += seconds_of_chunk(int(step) // 2 * 2 + 2) / 2

        def train_step(state, world):
            jax.debug.callback(pass_time, state["step"], ordered=True)
            return counter.train_step(state, world)

        return counter._replace(train_step=train_step)


def test_compilation_counts_in_no_run_and_no_resumed_one(tmp_path, monkeypatch):
    clock = _Clock(monkeypatch)

    def compiled(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            clock.now += 1000.0

    agent = clock.agent(lambda step: 1.0)
    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        _train(tmp_path / "run", steps=5, agent=agent)  # the last chunk is shorter: another program
        jax.clear_caches()  # as in a new process
        rows = _train(tmp_path / "run", steps=8, agent=agent)
    finally:
        unregister_event_duration_listener(compiled)
    assert [row["seconds"] for row in rows] == [1.0, 2.0, 2.5, 3.0, 4.0]


def test_fitting_does_not_share_the_processor_with_compilation_where_seconds_count(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(loop, "_compile", lambda *_: threads.append(threading.current_thread()))
    _train(tmp_path / "seconds", steps=2, seconds=100.0)
    _train(tmp_path / "episodes", steps=2, episodes=100)
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


def test_seconds_measured_elsewhere_count_in_place_of_the_clock(tmp_path, monkeypatch):
    slow_machine = _Clock(monkeypatch).agent(lambda step: 100.0 * step)
    rows = _train(tmp_path / "run", agent=slow_machine, seconds=2.0, seconds_per_step=0.25)
    assert [(row["step"], row["seconds"]) for row in rows] == [(2, 0.5), (4, 1.0), (6, 1.5), (8, 2.0)]
    assert rows[-1]["episodes_per_second"] == 8 / 800


def test_the_last_state_within_a_budget_is_evaluated_though_chunks_vary(tmp_path, monkeypatch):
    seconds = {2: 1.0, 4: 3.0, 6: 1.0, 8: 1.0, 10: 1.0, 12: 1.0}
    rows = _train(tmp_path / "run", agent=_Clock(monkeypatch).agent(seconds.get), seconds=7.5, evaluations=1)
    # After 5 s the slowest chunk would end at 8 s, after 7 s even the fastest would end beyond.
    assert [(row["step"], row["seconds"]) for row in rows] == [(2, 1.0), (4, 4.0), (6, 5.0), (8, 6.0), (10, 7.0)]
    assert [row["step"] for row in rows if "test_reward" in row] == [6, 8, 10]
    assert candidate_rows(rows, "seconds", BudgetsConfig(seconds=7.5, evaluations=1)) == [rows[-1]]
    assert _kept(tmp_path / "run") == [10]

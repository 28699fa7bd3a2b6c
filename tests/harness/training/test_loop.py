import json
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting_agent import noisy_counter
from quick_compilation import compiled

from harness.compute.quick_compilation import quick_compilation
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from harness.training import loop
from harness.training.agent import Agent
from harness.training.loop import Interruption, ScheduleConfig, run_training
from harness.training.parallel_seeds import SeedRun, split_worlds

SCHEDULE = {
    "steps": 10,
    "log_every": 2,
    "evaluate_every": 4,
    "checkpoint_every": 4,
    "max_to_keep": 2,
}


def counted(state):
    return {"test_reward": float(state["total"])}


def train(path: Path, evaluate=None, agent=None, seed=3, **changes):
    return train_together([path], [evaluate or counted], [agent or noisy_counter()], seed, **changes)[0]


def train_together(paths, evaluates=None, agents=None, seed=3, **changes):
    seed_runs = []
    for number, path in enumerate(paths):
        path.mkdir(exist_ok=True, parents=True)
        agent = agents[number] if agents else noisy_counter()
        evaluate = evaluates[number] if evaluates else counted
        seed_runs.append(SeedRun(agent, RunFolder(path), jax.random.key(seed + number), evaluate))
    return run_training(seed_runs, ScheduleConfig(**{**SCHEDULE, **changes}), {"data": "counter"})


def rows_without_times(path: Path):
    timed = {"seconds", "episodes_per_second"}
    return [{key: row[key] for key in row.keys() - timed} for row in read_rows(path / "metrics.jsonl")]


def test_logs_evaluates_and_checkpoints_when_asked(tmp_path):
    state = train(tmp_path / "run")
    rows = rows_without_times(tmp_path / "run")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert [row["episodes"] for row in rows] == [8, 16, 24, 32, 40]
    assert [row["step"] for row in rows if "test_reward" in row] == [4, 8, 10]
    assert rows[-1]["test_reward"] == float(state["total"])
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps == [8, 10]


def test_pretraining_happens_once_before_the_first_step(tmp_path):
    steps = [float(jax.random.normal(jax.random.fold_in(jax.random.key(3), step))) for step in range(10)]
    first = train(tmp_path / "run", steps=4)
    again = train(tmp_path / "run")
    np.testing.assert_allclose(float(again["total"]), 100 + sum(steps), rtol=1e-6)
    assert float(first["total"]) > 90


def test_last_chunk_may_be_shorter(tmp_path):
    train(tmp_path / "run", steps=5)
    assert [row["step"] for row in rows_without_times(tmp_path / "run")] == [2, 4, 5]


def test_a_run_that_ended_between_log_points_goes_on_at_them(tmp_path):
    train(tmp_path / "run", steps=5)
    train(tmp_path / "run", steps=10)
    rows = rows_without_times(tmp_path / "run")
    assert [row["step"] for row in rows] == [2, 4, 5, 6, 8, 10]
    assert [row["step"] for row in rows if "test_reward" in row] == [4, 5, 8, 10]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path, number):
    whole = train(tmp_path / "whole")

    def interrupt(state):
        if int(state["step"]) == 4:
            os.kill(os.getpid(), number)
        return {"test_reward": float(state["total"])}

    with pytest.raises(Interruption, match="after step") as stopped:
        train(tmp_path / "parts", interrupt)
    assert stopped.value.signal_number == number
    resumed = train(tmp_path / "parts")
    assert float(resumed["total"]) == float(whole["total"])
    assert rows_without_times(tmp_path / "parts") == rows_without_times(tmp_path / "whole")


@pytest.mark.parametrize("step", [6, 10])
def test_a_signal_between_checkpoints_saves_first(tmp_path, step):
    whole = train(tmp_path / "whole", evaluate_every=2)

    def interrupt(state):
        if int(state["step"]) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"test_reward": float(state["total"])}

    with pytest.raises(Interruption, match=f"SIGTERM after step {step}"):
        train(tmp_path / "parts", interrupt, evaluate_every=2)
    assert Checkpoints(tmp_path / "parts" / "checkpoints").steps[-1] == step
    resumed = train(tmp_path / "parts", evaluate_every=2)
    assert float(resumed["total"]) == float(whole["total"])
    assert rows_without_times(tmp_path / "parts") == rows_without_times(tmp_path / "whole")


def test_fewer_steps_than_done_are_refused(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(UserError, match=r"train\.steps is 4, the run has already done 10"):
        train(tmp_path / "run", steps=4)


def test_rows_say_what_data_they_are_of(tmp_path):
    train(tmp_path / "run")
    assert all(row["data"] == "counter" for row in rows_without_times(tmp_path / "run"))


def test_a_run_goes_on_past_a_damaged_newest_checkpoint(tmp_path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", steps=8)
    for file in (tmp_path / "parts" / "checkpoints" / "8" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    resumed = train(tmp_path / "parts")
    assert float(resumed["total"]) == float(whole["total"])
    assert Checkpoints(tmp_path / "parts" / "checkpoints").steps == [8, 10]
    assert rows_without_times(tmp_path / "parts") == rows_without_times(tmp_path / "whole")


def test_rows_after_the_checkpoint_are_done_again(tmp_path):
    train(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def die(state):
        if int(state["step"]) == 8:
            raise Killed
        return {"test_reward": float(state["total"])}

    with pytest.raises(Killed):
        train(tmp_path / "parts", die)
    assert [row["step"] for row in rows_without_times(tmp_path / "parts")] == [2, 4, 6]
    train(tmp_path / "parts")
    assert rows_without_times(tmp_path / "parts") == rows_without_times(tmp_path / "whole")


def test_seconds_go_on_after_a_resume(tmp_path):
    train(tmp_path / "run", steps=4)
    before = read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["seconds"]
    train(tmp_path / "run")
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["seconds"] > before


def test_nan_stops_the_run_naming_metric_step_and_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"reward not finite in the steps up to 8\n.*step 4"):
        train(tmp_path / "run", agent=noisy_counter(broken_at=7))
    assert [row["step"] for row in rows_without_times(tmp_path / "run")] == [2, 4, 6]


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before


def test_rows_are_json(tmp_path):
    train(tmp_path / "run")
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    ("key", "value"), [("steps", 0), ("log_every", 0), ("evaluate_every", 3), ("checkpoint_every", 5)]
)
def test_impossible_schedules_name_their_key(key, value):
    with pytest.raises(UserError, match=rf"train\.{key}"):
        read_settings(ScheduleConfig, {**SCHEDULE, key: value}, "train")


def keeper(patience: int) -> Agent:
    """The counter, keeping the best total it was evaluated with; stops after `patience` without a better."""

    def keep(state, found):
        better = found["test_reward"] > float(state["best"])
        best = jnp.float32(max(found["test_reward"], float(state["best"])))
        return state | {"best": best, "stale": jnp.int32(0) if better else state["stale"] + 1}

    plain = noisy_counter()

    def train_step(state, world):
        following, metrics = plain.train_step(state, world)
        return state | following, metrics

    return plain._replace(
        init=lambda key, world: plain.init(key, world) | {"best": jnp.float32(-jnp.inf), "stale": jnp.int32(0)},
        train_step=train_step,
        after_evaluation=keep,
        finished=lambda state: bool(state["stale"] >= patience),
    )


def test_a_learner_sees_its_evaluations_and_may_end_the_run_early(tmp_path):
    falling = iter([3.0, 5.0, 4.0, 4.5, 9.0])
    state = train(tmp_path / "run", lambda state: {"test_reward": next(falling)}, keeper(2), steps=40, max_to_keep=9)
    assert float(state["best"]) == 5
    assert int(state["step"]) == 16  # two evaluations after the best one, at step 8
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "test_reward" in row] == [4, 8, 12, 16]

    again = train(tmp_path / "run", lambda state: pytest.fail("a finished run goes on"), keeper(2), steps=40)
    assert int(again["step"]) == 16
    assert float(again["best"]) == 5


def test_what_an_evaluation_left_in_the_state_survives_a_kill(tmp_path):
    found = {4: 7.0, 8: 2.0}

    def evaluate(state):
        return {"test_reward": found[int(state["step"])]}

    train(tmp_path / "run", evaluate, keeper(9), steps=8)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    state = train(tmp_path / "run", evaluate, keeper(9), steps=8)
    assert (float(state["best"]), int(state["stale"])) == (7.0, 1)


def three_counters():
    """Members with worlds of their own: a table that all share, and a number that each has for itself."""
    plain, table = noisy_counter(), jnp.arange(10.0)

    def train_step(state, world):
        following, metrics = plain.train_step(state, world["own"])
        return following, metrics | {"looked_up": world["table"][state["step"]] + world["own"]}

    def run(number):
        return plain._replace(
            world={"table": table, "own": jnp.float32(number), "nothing": None},
            train_step=train_step,
            pretrain=lambda state: state | {"total": state["total"] + 100 * number},
        )

    return [run(number) for number in range(3)]


def assert_same_runs(paths, states, others, other_states):
    for path, state, other, other_state in zip(paths, states, others, other_states, strict=True):
        assert rows_without_times(path) == rows_without_times(other)
        assert Checkpoints(path / "checkpoints").steps == Checkpoints(other / "checkpoints").steps
        for leaf, other_leaf in zip(jax.tree.leaves(state), jax.tree.leaves(other_state), strict=True):
            assert (leaf == other_leaf).all()


@pytest.fixture
def single_runs(tmp_path):
    """Three runs, one after another."""
    paths = [tmp_path / f"single_{number}" for number in range(3)]
    agents = three_counters()
    return paths, [train(path, agent=agents[number], seed=3 + number) for number, path in enumerate(paths)]


def folders(tmp_path, number=3):
    return [tmp_path / "group" / f"seed_{seed}" for seed in range(number)]


def test_members_equal_single_runs(tmp_path, single_runs):
    states = train_together(folders(tmp_path), agents=three_counters())
    assert_same_runs(folders(tmp_path), states, *single_runs)


def test_members_side_by_side_are_close_to_single_runs(tmp_path, single_runs, monkeypatch):
    monkeypatch.setattr("harness.training.parallel_seeds._in_sequence", lambda: False)
    states = train_together(folders(tmp_path), agents=three_counters())
    for state, path, single, single_path in zip(states, folders(tmp_path), *reversed(single_runs), strict=True):
        np.testing.assert_allclose(state["total"], single["total"], rtol=1e-6)
        for row, other in zip(rows_without_times(path), rows_without_times(single_path), strict=True):
            assert row.pop("data") == other.pop("data")
            assert row == pytest.approx(other, rel=1e-5)


def test_only_tables_that_differ_are_stacked():
    shared, own = split_worlds([agent.world for agent in three_counters()])
    assert shared["table"].shape == (10,)
    assert shared["own"] is own["table"] is None
    np.testing.assert_array_equal(own["own"], [0, 1, 2])


@pytest.mark.parametrize("saved", [4, 8])
def test_after_a_kill_between_saves_members_go_on_from_their_common_step(tmp_path, single_runs, saved):
    train_together(folders(tmp_path), agents=three_counters(), steps=saved)
    shutil.rmtree(folders(tmp_path)[1] / "checkpoints" / str(saved))
    states = train_together(folders(tmp_path), agents=three_counters())
    assert_same_runs(folders(tmp_path), states, *single_runs)


def test_a_damaged_checkpoint_of_one_member_takes_all_back(tmp_path, single_runs):
    train_together(folders(tmp_path), agents=three_counters(), steps=8)
    for file in (folders(tmp_path)[2] / "checkpoints" / "8" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    states = train_together(folders(tmp_path), agents=three_counters())
    assert_same_runs(folders(tmp_path), states, *single_runs)


def test_members_trained_too_far_apart_are_refused(tmp_path):
    first, second = folders(tmp_path, 2)
    train_together([first, second], steps=4)
    train(first, steps=10, max_to_keep=1)
    with pytest.raises(UserError, match="no checkpoint of the same step"):
        train_together([first, second])
    assert Checkpoints(first / "checkpoints").steps == [10]


def test_several_members_always_keep_two_checkpoints(tmp_path):
    train_together(folders(tmp_path, 2), max_to_keep=1)
    assert [Checkpoints(folder / "checkpoints").steps for folder in folders(tmp_path, 2)] == [[8, 10]] * 2


def test_a_signal_saves_all_members(tmp_path):
    def interrupt(state):
        os.kill(os.getpid(), signal.SIGTERM)
        return counted(state)

    with pytest.raises(Interruption, match="after step 4"):
        train_together(folders(tmp_path, 2), [counted, interrupt], checkpoint_every=8)
    assert [Checkpoints(folder / "checkpoints").steps for folder in folders(tmp_path, 2)] == [[4], [4]]


def test_nan_names_the_member(tmp_path):
    worlds = [jnp.float32(1), jnp.float32(jnp.nan)]
    agents = [noisy_counter()._replace(world=world) for world in worlds]
    with pytest.raises(UserError, match=r"seed_1: training diverged: reward not finite"):
        train_together(folders(tmp_path, 2), agents=agents)


def test_training_ends_when_all_members_are_finished(tmp_path):
    first, second = (iter(values) for values in ([5.0, 4.0, 3.0, 2.0], [5.0, 6.0, 4.0, 3.0]))
    evaluates = [lambda state: {"test_reward": next(first)}, lambda state: {"test_reward": next(second)}]
    agent = keeper(2)
    states = train_together(folders(tmp_path, 2), evaluates, [agent, agent], steps=40)
    assert [int(state["step"]) for state in states] == [16, 16]
    assert [float(state["best"]) for state in states] == [5, 6]


@pytest.mark.parametrize(("number", "large"), [(1, 2**28), (2, 2**28), (2, 0)])
def test_the_training_step_is_compiled_once(tmp_path, monkeypatch, number, large):
    monkeypatch.setattr(loop, "_LARGE_STATES", large)
    monkeypatch.setattr(loop, "return_free_memory", lambda: done.append("returned"))
    done = []
    plain = keeper(9)

    def train_step(state, world):
        done.append("compiled")
        return plain.train_step(state, world)

    def pretrain(state):  # the first that sees a state
        done.append("initialised")
        return state

    def init(key, world):  # with a number of weak type, which steps make strong
        return plain.init(key, world) | {"total": jnp.full((), 0.0)}

    agent = plain._replace(init=init, train_step=train_step, pretrain=pretrain)
    train_together(folders(tmp_path, number), agents=[agent] * number)
    assert done.count("compiled") == 1
    if not large:
        assert done == ["compiled", "returned", *["initialised"] * number]


@pytest.mark.parametrize("few_steps", [False, True])
def test_a_step_that_runs_for_a_short_time_is_optimised_less(monkeypatch, few_steps):
    monkeypatch.setattr(loop, "quick_compilation", lambda: {"no_such_option": 1})
    agent = noisy_counter()
    chunk = loop._compiled_chunk.__wrapped__(few_steps)
    states, worlds = [agent.init(jax.random.key(0), agent.world)], split_worlds([agent.world])
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option") if few_steps else nullcontext():
        chunk(agent.train_step, agent.partition, states, *worlds, 2)


@pytest.mark.parametrize(("number", "few_steps"), [(1, False), (1, True), (2, True)])
def test_runs_compile_as_users_do(tmp_path, number, few_steps):
    paths, agents = folders(tmp_path, number), [keeper(9)._replace(few_steps=few_steps)] * number
    unoptimised = train_together(paths, agents=agents, steps=4)
    with compiled(optimised=True):
        assert quick_compilation()
        train_together(paths, agents=agents)  # resumed
        states = train_together(folders(tmp_path / "new", number), agents=agents, steps=4)
    for state, other in zip(states, unoptimised, strict=True):
        np.testing.assert_allclose(state["total"], other["total"], rtol=1e-6)

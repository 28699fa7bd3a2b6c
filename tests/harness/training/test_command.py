"""What training commands do before and after they train."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from harness.phases import Phases
from harness.runs.composition import composed_values
from harness.runs.provenance import Origin
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import Run
from harness.training.command import check_system, opened_runs, say_what_comes_next
from harness.training.loop import Interruption, ScheduleConfig

FACTS = {"name": "x", "checksum": "sha256:aa", "table": "sha256:bb", "users": 2, "items": 3}
ORIGIN = Origin(FACTS, "x.csv", {"held": np.arange(2)}, "held", "seed", "tree.npz")
SCHEDULE = ScheduleConfig(10, 5, 5, 5, 1)


def failing(path, error, resume=False, begins=False):
    runs = [Run({"seed": 0}, RunFolder(path))]
    with contextlib.suppress(type(error)), opened_runs(runs, resume, SCHEDULE, ORIGIN, Phases()) as begin:
        assert (path / "config.yaml").exists()
        if begins:
            begin()
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("wrong"), ZeroDivisionError()])
def test_a_run_that_fails_before_training_leaves_nothing(tmp_path, error):
    failing(tmp_path / "run", error)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_has_begun_or_saved_its_state_stays(tmp_path):
    failing(tmp_path / "begun", KeyboardInterrupt(), begins=True)
    failing(tmp_path / "saved", Interruption(2, 3))
    failing(tmp_path / "saved", KeyboardInterrupt(), resume=True)
    for name in ("begun", "saved"):
        assert {path.name for path in (tmp_path / name).iterdir()} >= {"config.yaml", "run.json", "ids.npz"}


def test_several_seeds_leave_nothing_either(tmp_path):
    runs = [Run({"seed": seed, "num_seeds": 1}, RunFolder(tmp_path / "group" / f"seed_{seed}")) for seed in (0, 1)]
    with contextlib.suppress(KeyboardInterrupt), opened_runs(runs, False, SCHEDULE, ORIGIN, Phases()):
        raise KeyboardInterrupt
    assert list((tmp_path / "group").iterdir()) == []


def test_a_finished_run_says_so(tmp_path, capsys):
    runs = [Run({"seed": 0}, RunFolder(tmp_path / "run"))]
    with opened_runs(runs, False, SCHEDULE, ORIGIN, Phases()) as begin:
        begin()
    (tmp_path / "run" / "checkpoints" / "10").mkdir(parents=True)
    assert capsys.readouterr().err == ""
    with opened_runs(runs, True, SCHEDULE, ORIGIN, Phases()):
        pass
    assert capsys.readouterr().err == "finished: all of its 10 steps are done; with train.steps=MORE it goes on\n"


def test_what_comes_next_names_the_run(capsys):
    say_what_comes_next("hrlmg_jax", RunFolder(Path("a b")))
    said = capsys.readouterr()
    assert said.out == "run folder: a b\n"
    assert """python -m hrlmg_jax.evaluate 'run="a b"'""" in said.err
    assert "python -m hrlmg_jax.report runs" in said.err


def test_runs_of_the_other_system_are_named(tmp_path):
    values = composed_values("train", [])
    check_system(values, "tpgr_jax", RunFolder(tmp_path), "evaluate", "run")
    with pytest.raises(UserError, match=r"run of tpgr_jax, not of hrlmg_jax\n  Use python -m tpgr_jax\.evaluate run=/"):
        check_system(values, "hrlmg_jax", RunFolder(tmp_path), "evaluate", "run")

"""A tuning command for tests: `python -m fake_study FOLDER TRIALS WORKERS PACE PRUNER LOW HIGH`, on `fake_training`."""

import sys
from pathlib import Path

from harness.commands.command import run_command
from harness.interruption import StopRequest
from harness.tuning.command import Workers
from harness.tuning.report import report_study
from harness.tuning.space import read_space
from harness.tuning.study import Plan, TrialStore, require_optuna
from harness.tuning.trial_run import Objective


def main() -> None:
    run_study(*sys.argv[1:])


def run_study(folder: str, trials: str, workers: str, pace: str, pruner: str, low: str, high: str) -> None:
    require_optuna()
    space = {"rate": {"low": float(low), "high": float(high)}}
    defaults = {"rate": float(low)}
    pruning = [pruner, 1, 2]
    plan = Plan("fake_training", [f"pace={pace}"], [], space, defaults, "best", pruning, 0, int(trials))
    store = TrialStore(Path(folder), plan, read_space(space, defaults), 0)
    with StopRequest() as stop:
        Workers(store, Objective("test_reward", None, best=True)).run(int(workers), stop)
    report_study(store, "fake_study")


if __name__ == "__main__":
    run_command(main)

"""What the tuning commands share: from a composed configuration to a finished study."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.errors import UserError
from harness.interruption import StopRequest
from harness.runs.run_folder import plain_config, remove_if_empty
from harness.settings import read_settings
from harness.tuning.report import brief, cell_of, report_study
from harness.tuning.space import read_space
from harness.tuning.study import (
    PLAN,
    Plan,
    StudyConfig,
    TrialStore,
    require_optuna,
    store_plan,
    stored_plan,
    study_lock,
)
from harness.tuning.trial_run import Objective, TrialRun

_OF_THE_COMMAND = ("study", "trials", "workers", "worker")
_OF_THE_STUDY = ("value", "pruner", "unpruned_trials", "unpruned_evaluations")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TunedSystem:
    """What the tuning command of a system must know.

    Attributes:
        tune: Its module.
        train: The module of the training command.
        fixed: Arguments that keep test users out of every trial.
        metric: Of an evaluation on validation users, in metrics.jsonl.
        result: JSON and metric of methods that are fitted without training; None: there are none.
    """

    tune: str
    train: str
    fixed: tuple[str, ...]
    metric: str
    result: tuple[str, str] | None


def run_study(composed: DictConfig, schema: type[StudyConfig], system: TunedSystem) -> None:
    """Begins, continues or joins a study, and ends with its report.

    Args:
        composed: The configuration of a trial, and the keys of `StudyConfig`.
        schema: The settings of both.
        system: Whose command this is.

    Raises:
        UserError: Impossible settings, other settings than the study has, or a mistake that stopped a trial.
        SystemExit: The command was interrupted and the trials' states are saved (exit code 128 + signal).
    """
    require_optuna()
    values = {key: value for key, value in plain_config(composed).items() if key != "resume"}
    config = read_settings(schema, values)
    folder = _folder(config)
    plan = _agreed_plan(folder, config, values, system)
    dimensions = read_space(plan.space, plan.defaults)
    objective = Objective(system.metric, system.result, plan.value == "best")
    store = TrialStore(folder, plan, dimensions, config.worker)
    print(
        f"study: {folder} ({len(store.ended())} of {plan.trials} trials have ended); "
        f"{', '.join(dimension.key for dimension in dimensions)}",
        file=sys.stderr,
    )
    try:
        with StopRequest() as stop:
            Workers(store, objective).run(config.workers, stop)
    finally:
        report_study(store, system.tune)
    if stop.signal_number:
        print(f"stopped; continue with: python -m {system.tune} study={folder}", file=sys.stderr)
        raise SystemExit(128 + stop.signal_number)


class Workers:
    """Threads that run trials, each in a process of its own."""

    def __init__(self, store: TrialStore, objective: Objective) -> None:
        """Starts nothing yet.

        Args:
            store: The trials.
            objective: What they maximise.
        """
        self._store, self._objective = store, objective
        self._stop, self._errors = threading.Event(), list[BaseException]()
        self._runs: list[TrialRun] = []

    def run(self, number: int, stop: StopRequest) -> None:
        """Runs trials until all have ended, or a stop is asked for, or a worker fails.

        Raises:
            UserError: A mistake of the user ended a trial.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                time.sleep(_POLL_SECONDS)
                if stop.signal_number:
                    self._stop.set()
        finally:
            self._stop.set()
            if any(thread.is_alive() for thread in threads):  # asked a second time
                for run in self._runs:
                    run.stop(kill=True)
        if self._errors:
            raise self._errors[0]

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and (claimed := self._store.next_trial()):
                trial, settings, claim = claimed
                with claim:
                    self._run(trial, settings)
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def _run(self, trial: Any, settings: dict[str, Any]) -> None:
        """Runs one trial to its end, unless a stop is asked for: then it stays unfinished and resumable."""
        from optuna.trial import TrialState

        plan = self._store.plan
        run = TrialRun(self._store.trial_folder(trial.number), plan.module, [*plan.arguments, *plan.fixed], settings)
        # The process of a command that was killed may still be at work: wait for it, then see what is left to do.
        while run.busy_elsewhere:
            if self._stop.wait(_POLL_SECONDS):
                return
        # Train, report each evaluation, and stop a bad trial early.
        run.start()
        self._runs.append(run)
        reported = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
        pruned = False
        while (code := run.exit_code()) is None:
            time.sleep(_POLL_SECONDS)
            if self._stop.is_set():
                run.stop()
                return
            for number, value in enumerate(self._objective.evaluations(run.folder)[reported:], reported + 1):
                trial.report(value, number)
                reported = number
            if reported and trial.should_prune():
                run.stop()
                pruned = run.exit_code() != 0  # it may have come to its end meanwhile
                break
        # Tell the study.
        if pruned:
            self._end(trial, settings, TrialState.PRUNED, None, f"after {reported} evaluations")
        elif code or run.exit_code():
            reason = run.failure()
            trial.set_user_attr("reason", reason)
            self._end(trial, settings, TrialState.FAIL, None, reason)
        elif (result := self._objective.value(run.folder)) is None:
            raise UserError(
                f"the run recorded no {self._objective.metric}",
                where=str(run.folder),
                do="Let trials come to an evaluation: train.steps at least train.evaluate_every.",
            )
        else:
            self._end(trial, settings, TrialState.COMPLETE, result, "")

    def _end(self, trial: Any, settings: dict[str, Any], state: Any, value: float | None, reason: str) -> None:
        self._store.study.tell(trial.number, value, state=state)
        best = self._store.best()
        said = f"{value:.4f}" if value is not None else f"{'failed' if state.name == 'FAIL' else 'pruned'}: {reason}"
        so_far = f"best so far {best.value:.4f} (trial {best.number})" if best else "none complete yet"
        shown = " ".join(f"{key}={brief(cell_of(setting))}" for key, setting in settings.items())
        print(f"trial {trial.number}: {said}; {so_far}; {shown}", flush=True)


def _folder(config: StudyConfig) -> Path:
    """Returns the study's folder; one of its own for each job of a sweep, unless they share a study."""
    own = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        if config.study is not None:
            remove_if_empty(own)
        return Path(config.study or own)
    return Path(config.study or time.strftime("studies/%Y-%m-%d/%H-%M-%S"))


def _agreed_plan(folder: Path, config: StudyConfig, values: dict[str, Any], system: TunedSystem) -> Plan:
    """Returns the plan of the study in the folder, or stores one for a new study.

    Raises:
        UserError: The study there has another one.
    """
    overrides = list(HydraConfig.get().overrides.task)
    given = {override.split("=", 1)[0].lstrip("+~") for override in overrides}
    plan = _new_plan(config, values, system, overrides)  # before there is a folder: it may be a mistake
    with study_lock(folder):
        stored = stored_plan(folder)
        if stored is None:
            store_plan(folder, plan)
            return plan
        if given - set(_OF_THE_COMMAND):
            if differing := stored.unlike(plan):
                raise UserError(
                    f"the study there has other settings ({', '.join(differing)})",
                    where=str(folder / PLAN),
                    do=f"Continue it with study={folder} alone (and trials=, workers=), or choose another folder.",
                )
        elif stored.module != system.train:
            raise UserError(f"is a study of {stored.module}", where=str(folder), do="Use that system's command.")
        if "trials" in given and config.trials != stored.trials:
            stored = Plan(**{**vars(stored), "trials": config.trials})
            store_plan(folder, stored)
    return stored


def _new_plan(config: StudyConfig, values: dict[str, Any], system: TunedSystem, overrides: Sequence[str]) -> Plan:
    own = (*_OF_THE_COMMAND, *_OF_THE_STUDY, "space")
    arguments = [one for one in overrides if one.split("=", 1)[0].lstrip("+~").split(".")[0].split("@")[0] not in own]
    arguments = [one for one in arguments if not one.split("=", 1)[0].endswith("@space")]
    dimensions = read_space(config.space, values)
    return Plan(
        module=system.train,
        arguments=[*_search_path(), *arguments],
        fixed=list(system.fixed),
        space=config.space or {},
        defaults={dimension.key: dimension.default for dimension in dimensions},
        value=config.value,
        pruner=[config.pruner, config.unpruned_trials, config.unpruned_evaluations],
        seed=values["seed"],
        trials=config.trials,
    )


def _search_path() -> list[str]:
    """Returns the arguments that let trials find the user's own configurations, as this command did."""
    hydra = HydraConfig.get()
    given = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    own = [f"--config-dir={path}" for path in given]
    return [*own, *(one for one in hydra.overrides.hydra if one.startswith("hydra.searchpath"))]

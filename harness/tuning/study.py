"""A study: its folder, its plan, and the trials that Optuna keeps there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UserError
from harness.runs.run_folder import RunFolder, make_folder, read_json, write_json
from harness.settings import Count, CountOrZero
from harness.tuning.space import Dimension

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.jsonl"
"""Optuna's storage: lines of JSON, of which the last may be half written after a kill."""
PLAN = "study.json"
TRIALS = "trials"
_NAME = "study"


def require_optuna() -> None:
    """Imports Optuna, and silences what it reports of each trial.

    Raises:
        UserError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(
            "tuning needs Optuna, which is not installed",
            do="pip install -e '.[tune]' (or pip install 'optuna>=5,<6').",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How to tune (`conf/study.yaml`); the rest of the configuration is that of the trials.

    Attributes:
        study: Folder of a study to begin, continue or join; None begins one.
        trials: In all, those before included.
        workers: Trials at a time.
        worker: Number of this command among several that share a study.
        value: Which evaluation of a trial counts.
        pruner: What ends trials early.
        unpruned_trials: Complete trials before the first is pruned.
        unpruned_evaluations: Evaluations of each trial before it can be pruned.
        space: What varies, nested as the settings are.
    """

    study: str | None
    trials: Count
    workers: Count
    worker: CountOrZero
    value: Literal["best", "last"]
    pruner: Literal["median", "none"]
    unpruned_trials: CountOrZero
    unpruned_evaluations: CountOrZero
    space: dict[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """What all trials of a study share, kept in `study.json` so that every command that joins does the same.

    Attributes:
        module: The training command.
        arguments: Its arguments but for the settings that vary.
        fixed: Further arguments, which keep test users out.
        space: What varies.
        defaults: Settings of trial 0.
        value: Which evaluation of a trial counts.
        pruner: What ends trials early, with its two numbers.
        seed: Of the sampler.
        trials: How many.
    """

    module: str
    arguments: list[str]
    fixed: list[str]
    space: dict[str, Any]
    defaults: dict[str, Any]
    value: str
    pruner: list[Any]
    seed: int
    trials: int

    def unlike(self, other: Plan) -> list[str]:
        """Returns the names of what differs, but for the number of trials."""
        first, second = asdict(self), asdict(other)
        return [name for name in first if name != "trials" and first[name] != second[name]]


class TrialStore:
    """The trials of a study, shared by threads and by commands, on this machine or others."""

    def __init__(self, folder: Path, plan: Plan, dimensions: list[Dimension], worker: int) -> None:
        """Opens the study, or creates it with the published default as its first trial.

        Args:
            folder: Of the study.
            plan: Of the study.
            dimensions: What varies.
            worker: Number of this command, for its sampler's seed.
        """
        self.folder, self.plan, self._dimensions = folder, plan, dimensions
        self._thread_lock = threading.Lock()
        self._claimed: set[int] = set()
        with self._locked():
            self.study = self._open(worker)
            if not self.study.get_trials(deepcopy=False):
                defaults = {dimension.key: dimension.stored_default for dimension in dimensions}
                self.study.enqueue_trial(defaults, skip_if_exists=True)

    def trial_folder(self, number: int) -> Path:
        """Returns the run folder of a trial."""
        return self.folder / TRIALS / f"{number:04}"

    def next_trial(self) -> tuple[Trial, dict[str, Any], ExitStack] | None:
        """Claims a trial: one that a stopped command left unfinished, or else a new one.

        Returns:
            The trial, its settings, and the claim, to be closed when the trial has ended; None: all are taken.
        """
        from optuna.trial import Trial, TrialState

        with self._locked():
            trials = self.study.get_trials(deepcopy=False)
            for unfinished in [trial for trial in trials if trial.state == TrialState.RUNNING]:
                if claim := self._claim(unfinished.number):
                    trial = Trial(self.study, unfinished._trial_id)
                    return trial, self._settings(trial), claim
            if sum(trial.state != TrialState.WAITING for trial in trials) >= self.plan.trials:
                return None
            trial = self.study.ask()
            claim = self._claim(trial.number)
            assert claim is not None
            return trial, self._settings(trial), claim

    def ended(self) -> list[FrozenTrial]:
        """Returns the trials that have ended, by number."""
        from optuna.trial import TrialState

        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state not in (TrialState.RUNNING, TrialState.WAITING)
        ]

    def settings_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the settings of a trial by dotted key."""
        return {one.key: one.of_stored(trial.params[one.key]) for one in self._dimensions if one.key in trial.params}

    def best(self) -> FrozenTrial | None:
        """Returns the trial of the highest value; None while none is complete."""
        from optuna.trial import TrialState

        complete = [trial for trial in self.ended() if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)

    def _open(self, worker: int) -> Study:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        journal = self.folder / JOURNAL
        _drop_half_line(journal)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        name, trials, evaluations = self.plan.pruner
        pruner = optuna.pruners.MedianPruner(trials, evaluations) if name == "median" else optuna.pruners.NopPruner()
        study = optuna.create_study(
            storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True, pruner=pruner
        )
        # A command that continues must not draw again what was drawn before.
        drawn = len(study.get_trials(deepcopy=False))
        seed = (self.plan.seed + 1009 * drawn + 7919 * worker) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study

    def _settings(self, trial: Trial) -> dict[str, Any]:
        return {dimension.key: dimension.suggest(trial) for dimension in self._dimensions}

    def _claim(self, number: int) -> ExitStack | None:
        """Returns the claim on a trial; None where another thread or command has it."""
        if number in self._claimed:  # even where the file system has no locks
            return None
        claims = self.folder / "claims" / f"{number:04}"
        make_folder(claims)
        stack = ExitStack()
        try:
            stack.enter_context(RunFolder(claims).locked())
        except UserError:
            return None
        self._claimed.add(number)
        return stack

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread_lock, study_lock(self.folder):
            yield


def study_lock(folder: Path) -> AbstractContextManager[None]:
    """Keeps other commands from creating a study or claiming a trial meanwhile."""
    make_folder(folder / "claims")
    return RunFolder(folder / "claims").locked(wait=True)


def stored_plan(folder: Path) -> Plan | None:
    """Returns the plan of the study in a folder; None without one.

    Raises:
        UserError: It is damaged.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    stored = read_json(path)
    try:
        return Plan(**stored)
    except TypeError:
        raise UserError("is not the plan of a study", where=str(path), do="Restore the file.") from None


def store_plan(folder: Path, plan: Plan) -> None:
    """Writes the plan."""
    write_json(folder / PLAN, asdict(plan))


def _drop_half_line(journal: Path) -> None:
    """Removes a last line that a kill cut short: Optuna would append to it and then read neither."""
    from optuna.storages.journal import JournalFileSymlinkLock

    if not journal.exists():
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    try:
        with journal.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()

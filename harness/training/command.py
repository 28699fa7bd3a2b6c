"""What every training command shares: new and resumed run folders, and interruption."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from harness.commands.command_words import override_value
from harness.commands.configuration import commands_of, system_of_run
from harness.compute.compilation_cache import keep_compiled_programs
from harness.compute.devices import DevicesConfig, cores_as_devices
from harness.compute.processes import (
    agreed_path,
    check_same_settings,
    expect_processes,
    is_first_process,
    join_processes,
    meet,
    silent_unless_first,
)
from harness.compute.vector_width import choose_vector_width
from harness.errors import UserError
from harness.phases import Phases
from harness.runs.composition import shell_command
from harness.runs.index import flattened, newest_checkpoint
from harness.runs.provenance import Origin, record_resumption, record_seconds
from harness.runs.run_folder import (
    RunFolder,
    discard_if_empty,
    emptied_on_failure,
    make_folder,
    plain_config,
    remove_if_empty,
)
from harness.runs.seeds import Run, check_alike, group_of, new_runs, runs_in
from harness.settings import read_settings
from harness.training.loop import Interruption, ScheduleConfig, check_steps

_RESUMABLE_KEYS = (
    *("train.steps", "train.budgets.episodes", "train.budgets.seconds", "train.max_to_keep"),
    *("data.root", "data.cache", "data.path"),
)
_NEXT = {
    "evaluate": "tests it again, also earlier checkpoints",
    "recommend": "recommends to people",
    "serve": "answers over HTTP",
    "report": "lists all runs and what they reached",
}
"""Commands after training, and what they do."""
_DEVICES = "devices."  # never restored from the folder: they describe where this process runs
_PLACES = ("path", "root", "cache")


def start_or_resume(
    composed: DictConfig,
    command: str,
    train: Callable[[list[Run], bool, Phases], None],
    per_seed: Sequence[str] = (),
) -> None:
    """Calls `train(runs, resumed, phases)` with the runs that a composed configuration asks for.

    Args:
        composed: The configuration; its key `resume` names a folder, or is null for a new run in Hydra's output folder.
        command: The module's name, for messages.
        train: Trains one run, or the runs of several seeds together, and records its time in `phases`.
        per_seed: Keys whose values may differ between seeds that train together.

    Raises:
        SystemExit: Training was interrupted and its state saved (exit code 128 + signal).
        UserError: Raised by `train`, or for a setting that a resumed run cannot change.
    """
    own = Path(str(HydraConfig.get().runtime.output_dir if composed.resume is None else composed.resume))
    start_in(own, composed, command, train, per_seed)


def start_in(
    own: Path,
    composed: DictConfig,
    command: str,
    train: Callable[[list[Run], bool, Phases], None],
    per_seed: Sequence[str] = (),
) -> None:
    """Does what `start_or_resume` does, in a folder of one's own choice."""
    resume = composed.resume is not None
    expect_processes(composed.devices)
    with discard_if_empty(own):
        keep_compiled_programs()
        choose_vector_width(RunFolder(own) if resume else None)
        devices = read_settings(DevicesConfig, composed.devices, "devices")
        cores_as_devices(devices)
        join_processes(devices)
        with silent_unless_first():
            _start_or_resume(composed, command, train, per_seed, own, resume)


def _start_or_resume(
    composed: DictConfig,
    command: str,
    train: Callable[[list[Run], bool, Phases], None],
    per_seed: Sequence[str],
    own: Path,
    resume: bool,
) -> None:
    phases = Phases()
    folder = RunFolder(agreed_path(own))
    if own.absolute() != folder.path.absolute():
        remove_if_empty(own)  # Hydra has made one for each process
    try:
        if resume:
            overrides = HydraConfig.get().overrides.task
            devices = OmegaConf.to_container(composed.devices)
            stored = runs_in(folder)
            check_system(stored[0].values, command.partition(".")[0], folder, "train", "resume")
            runs = [
                Run({**_with_overrides(run.values, composed, overrides), "devices": devices}, run.folder)
                for run in stored
            ]
        else:
            runs = new_runs(composed, folder)
        check_alike(runs, per_seed)
        check_same_settings(_of_all_processes(runs))
        train(runs, resume, phases)
        meet()  # else the others would leave while the first one may still fail to write
    except Interruption as stopped:
        print(f"{stopped}; continue with: python -m {command} resume={folder.path}", file=sys.stderr)
        raise SystemExit(128 + stopped.signal_number) from None


@contextmanager
def opened_runs(
    runs: Sequence[Run],
    resume: bool,
    schedule: ScheduleConfig,
    origin: Origin,
    phases: Phases,
) -> Iterator[Callable[[], None]]:
    """Locks run folders while runs train in them, and writes their configurations and provenance.

    Yields a function to call when training begins: only then does the folder of a resumed run change, and until then a
    new one is emptied again if the run fails or is interrupted. However the run ends (except by a kill), its record
    then says where this process spent its time.

    Args:
        runs: One run, or those of several seeds.
        resume: Whether the folders belong to earlier runs; a new run's folder must not hold a run.
        schedule: The schedule of all runs.
        origin: Of all runs: recorded in new ones, compared with the record of resumed ones.
        phases: Times of this process, for the record.

    Raises:
        UserError: A folder is in use, holds another run or other data, or has been trained further than `schedule`.
    """
    group = group_of(runs)
    # The group's configuration is written after those of its runs: if it exists, so do they.
    every = [*runs, *([group] if group else [])]
    with ExitStack() as locks:
        keep = locks.enter_context(emptied_on_failure(every[-1].folder.path)) if is_first_process() else None
        if is_first_process():
            for run in reversed(every):
                make_folder(run.folder.path)
                locks.enter_context(run.folder.locked())
                if not resume:
                    run.folder.check_unused()
            if not resume:
                for run in every:
                    run.folder.start(run.values)
            for run in runs:
                if not run.folder.provenance.exists():
                    origin.record(run.folder)
        meet()  # the run folders are there
        records = [origin.check(run.folder) for run in runs]
        for run in runs if resume else []:
            check_steps(schedule, run.folder)
        if resume and all(newest_checkpoint(run.folder) >= schedule.steps for run in runs):
            print(
                f"finished: all of its {schedule.steps:,} steps are done; with train.steps=MORE it goes on",
                file=sys.stderr,
            )
        began = False

        def begin() -> None:
            nonlocal began
            if keep:
                keep()
            if resume:
                for run in every:
                    run.folder.write_config(run.values)
                for run, record in zip(runs, records, strict=True):
                    record_resumption(run.folder, record)
            began = True

        try:
            yield begin
        except Interruption:  # what comes before training has saved its state
            if keep:
                keep()
            raise
        finally:
            for run in runs if began and is_first_process() else []:
                with suppress(UserError):  # report what ended the run, not this
                    record_seconds(run.folder, phases.seconds())


def check_system(values: Mapping[str, Any], system: str, folder: RunFolder, command: str, key: str) -> None:
    """Checks that a stored run is one of this system.

    Args:
        values: Its configuration.
        system: The package.
        folder: Its folder.
        command: Last word of the command that reads it.
        key: What names the folder there.

    Raises:
        UserError: It is a run of the other system; the message has that one's command.
    """
    its = system_of_run(values)
    if its not in (None, system):
        do = f"python -m {its}.{command} {key}={override_value(str(folder.path))}"
        raise UserError(f"is a run of {its}, not of {system}", where=str(folder.path), do=f"Use {do}")


def say_what_comes_next(system: str, folder: RunFolder) -> None:
    """Prints the run folder and the commands that read it.

    Args:
        system: The package whose run it is.
        folder: Of a run that has ended.
    """
    print(f"run folder: {folder.path}")
    commands, run = commands_of(system), override_value(str(folder.path))
    for name, does in _NEXT.items():
        if name in commands:
            word = f"run={run}" if name != "report" else "runs"
            print(f"  {shell_command(f'{system}.{name}', [word]):<60} {does}", file=sys.stderr)


def _of_all_processes(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the settings that processes of a run share, by dotted key: not which one each is or has its files."""
    own = ("devices.process", *(f"data.{place}" for place in _PLACES), "items.path", "simulator.root")
    settings = dict(flattened(runs[0].values)) | {"num_seeds": len(runs)}
    return {key: value for key, value in settings.items() if key not in own}


def with_absolute_places(data: dict[str, Any]) -> dict[str, Any]:
    """Returns settings of data or items with absolute paths, so that a run can be continued from another folder."""
    places = {key: str(Path(data[key]).expanduser().absolute()) for key in _PLACES if data.get(key) is not None}
    return {**data, **places}


def relocated(values: dict[str, Any], root: str | None, cache: str | None, path: str | None) -> dict[str, Any]:
    """Returns a run's configuration with new data locations; None keeps a location."""
    config = OmegaConf.create(values)
    for key, place in (("root", root), ("cache", cache), ("path", path)):
        if place is not None:
            OmegaConf.update(config, f"data.{key}", place)
    return plain_config(config)


def _with_overrides(values: dict[str, Any], composed: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Applies the overrides that a resumed run allows; any other would make it a different run."""
    config = OmegaConf.create(values)
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key in _RESUMABLE_KEYS:
            OmegaConf.update(config, key, OmegaConf.select(composed, key))
        elif key != "resume" and not key.startswith(_DEVICES):
            raise UserError(
                f"{override} cannot be combined with resume, which continues a run with its own configuration",
                do=f"Leave it out (only {', '.join(_RESUMABLE_KEYS)} and {_DEVICES}* may change), or start a new run.",
            )
    return plain_config(config)

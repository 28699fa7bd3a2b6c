"""Finds the runs below folders: what each is, how far it got, and which differ only in their seed."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.runs.run_folder import RunFolder, read_json

DEFAULT_FOLDERS = ("outputs", "multirun")
_NOT_SEARCHED = "checkpoints"
_PLACES = tuple(f"data.{name}" for name in ("root", "cache", "path", "obtain", "max_unpacked_gib", "name"))
"""Settings that change no table."""


class Status(enum.StrEnum):
    """How far a run got."""

    FINISHED = "finished"
    UNTESTED = "learned from everything, nothing to test with"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    NO_CHECKPOINT = "no checkpoint yet"


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder describes it.

    Attributes:
        folder: The run folder.
        values: The configuration.
        data: Its record of the data (name, checksum, whether synthetic and more); empty if it stopped before that was
            written.
        status: How far it got.
        step: Step of the newest checkpoint; 0 without one.
        seeds_together: Number of seeds that train together in one program, this one included.
        settings: The configuration by dotted key.
    """

    folder: RunFolder
    values: Mapping[str, Any]
    data: Mapping[str, Any]
    status: Status
    step: int
    seeds_together: int = 1
    settings: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Derives `settings`."""
        object.__setattr__(self, "settings", dict(flattened(self.values)))

    @property
    def data_name(self) -> str:
        """The name of the data set."""
        return str(self.data.get("name", self.settings.get("data.name")))


class RunsFound(NamedTuple):
    """Runs in the order of their folders, and one message per folder that looks like a run but cannot be read."""

    runs: list[RunRecord]
    unreadable: list[str]


class RunGroup(NamedTuple):
    """Runs with equal settings, apart from ignored ones, and the settings that distinguish them from other groups."""

    runs: list[RunRecord]
    distinction: dict[str, Any]


def flattened(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested settings with their dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def find_runs(folders: Sequence[str] | None, result: str) -> RunsFound:
    """Searches folders for runs; seeds that train together count as separate runs.

    Args:
        folders: Where to search, at any depth; None searches `outputs` and `multirun` below the working directory, if
            they exist.
        result: Name of the JSON file that a finished run writes. It contains the `step` of the run or, where the
            tested step may be an earlier one, the `newest_checkpoint` at that time.

    Raises:
        UserError: A folder that was named does not exist.
    """
    if folders is None:
        folders = [folder for folder in DEFAULT_FOLDERS if Path(folder).is_dir()]
    found: dict[Path, RunRecord | None] = {}
    unreadable = []
    for root in folders:
        if not Path(root).is_dir():
            raise UserError("there is no such folder", where=str(root), do="Name folders that hold runs.")
        for folder in _folders_with_configuration(Path(root)):
            place = folder.path.resolve()
            if place not in found:
                try:
                    found[place] = _read_run(folder, result)
                except UserError as error:
                    found[place] = None
                    unreadable.append(str(error).splitlines()[0])
    return RunsFound([run for run in found.values() if run is not None], unreadable)


def searched(folders: Sequence[str] | None) -> str:
    """Returns the folders that `find_runs` searches, for messages."""
    return " or ".join(folders or DEFAULT_FOLDERS)


def newest_checkpoint(folder: RunFolder) -> int:
    """Returns the step of a run's newest checkpoint; 0 without one."""
    # Orbax gives a checkpoint its final name (the step) only when it is complete.
    names = os.listdir(folder.checkpoints) if folder.checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def finished(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Returns the runs that are finished."""
    return [run for run in runs if run.status is Status.FINISHED]


def check_comparable(
    runs: Sequence[RunRecord],
    keys: Sequence[str],
    unless: Mapping[str, str] | None = None,
    worlds: Sequence[str] = (),
) -> None:
    """Checks that the results of runs can be compared.

    Args:
        keys: Dotted keys whose settings must agree; the checksum of the data and the hash of the table built from them
            must agree as well.
        unless: Advice by key, where there is more to do than to choose other runs.
        worlds: Dotted keys of numeric settings; where they differ the data are others, and so is their checksum.

    Raises:
        UserError: A setting differs; the message names the key, the values and two runs.
    """
    first_of_world: dict[Any, RunRecord] = {}
    for run in runs:
        _check_same_table(first_of_world.setdefault(numbers_of(run, worlds), run), run)
    checksum = "the data's checksum"
    for run, key in product(runs, (checksum, *keys)):
        both = first_of_world[numbers_of(run, worlds)] if key == checksum else runs[0], run
        first, other = (one.data.get("checksum") if key == checksum else one.settings.get(key) for one in both)
        if first != other:
            first, other = (_described(one) if key == checksum else one.settings.get(key) for one in both)
            names = sorted({one.data_name for one in runs})
            several = f" one data set with data_name=NAME ({', '.join(names)}), or some" if len(names) > 1 else ""
            raise UserError(
                f"{key} is {first} in {both[0].folder.path} and {other} in {run.folder.path}, so their results "
                "cannot be mixed",
                do=f"Choose{several} folders with runs=FOLDER,FOLDER{(unless or {}).get(key, '')}.",
            )


def _check_same_table(first: RunRecord, other: RunRecord) -> None:
    """Raises UserError if two runs read the same files as different tables, naming the settings that differ."""
    if first.data.get("checksum") != other.data.get("checksum"):
        return
    tables = [run.data.get("table") for run in (first, other)]
    if None in tables or tables[0] == tables[1]:  # runs of earlier commits did not record the hash
        return
    both = {key: (first.settings.get(key), other.settings.get(key)) for key in {**first.settings, **other.settings}}
    differing = [
        f"{key} is {values[0]} and {values[1]}"
        for key, values in sorted(both.items())
        if key.startswith("data.") and key not in _PLACES and _comparable(values[0]) != _comparable(values[1])
    ]
    cause = ", ".join(differing) or f"{str(tables[0])[:19]}... and {str(tables[1])[:19]}..., by different code"
    raise UserError(
        f"{first.folder.path} and {other.folder.path} are about different tables of the same data ({cause}), so their "
        "results cannot be mixed",
        do="Choose folders with runs=FOLDER,FOLDER.",
    )


def group_by_settings(runs: Sequence[RunRecord], ignored: Callable[[str], bool]) -> list[RunGroup]:
    """Groups runs that are equal apart from some settings, such as the seed.

    Args:
        ignored: Whether a dotted key may differ within a group.

    Returns:
        The groups in the order of their first runs. A group's `distinction` holds the settings in which groups differ;
        None stands for a setting that a group lacks.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        # A key that an older run does not have is one whose default, null, changes nothing.
        settings = {key: value for key, value in run.settings.items() if value is not None and not ignored(key)}
        kept = {key: _comparable(value) for key, value in settings.items()}
        groups.setdefault(json.dumps(kept, sort_keys=True), []).append(run)
    firsts = [group[0].settings for group in groups.values()]
    keys = sorted({key for settings in firsts for key in settings if not ignored(key)})
    differing = [key for key in keys if len({_comparable(settings.get(key)) for settings in firsts}) > 1]
    return [
        RunGroup(group, {key: first.get(key) for key in differing})
        for first, group in zip(firsts, groups.values(), strict=True)
    ]


def label_of(method: str, distinction: Mapping[str, Any]) -> str:
    """Returns a method's name with the settings that distinguish it from its variants."""
    return f"{method} with {settings_text(distinction)}" if distinction else method


def settings_text(settings: Mapping[str, Any]) -> str:
    """Returns settings as a user would write them."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def difference_from(first: RunGroup, other: RunGroup) -> str:
    """Explains why the runs of another group are not counted with those of the first, the largest."""
    settings = {key: value for key, value in other.distinction.items() if first.distinction[key] != value}
    return f"differs from most runs: {settings_text(settings)}"


def newest_of_each_seed(
    runs: Sequence[RunRecord], result: str, left_out: list[str], more: Sequence[str] = ()
) -> list[RunRecord]:
    """Returns the newest run of each seed, ascending; the others are repetitions, which must not count twice.

    Args:
        runs: Runs that differ only in their seed.
        result: Name of the file whose modification time decides.
        left_out: Gets a message for each repetition.
        more: Dotted keys of numeric settings that count as part of the seed; null, or none, comes first.
    """
    newest: dict[Any, RunRecord] = {}
    for run in sorted(runs, key=lambda run: (run.folder.path / result).stat().st_mtime_ns):
        newest[numbers_of(run, ("seed", *more))] = run
    kept = [newest[seed] for seed in sorted(newest)]
    repeated = [run for run in runs if run not in kept]
    left_out += [f"{run.folder.path}: an older repetition of seed {run.settings['seed']}" for run in repeated]
    return kept


def numbers_of(run: RunRecord, keys: Sequence[str]) -> tuple[float, ...]:
    """Returns numeric settings, in dots, in a form that sorts: -1 for those that are null or that a run lacks."""
    return tuple(-1 if (value := run.settings.get(key)) is None else value for key in keys)


def _comparable(value: Any) -> str:
    """Returns a setting in a form in which equal ones compare equal, also 1 and 1.0."""
    return repr(float(value)) if type(value) is int else repr(value)


def _described(run: RunRecord) -> str:
    return f"{str(run.data.get('checksum'))[:19]}... ({run.data_name})"


def _folders_with_configuration(root: Path) -> Iterator[RunFolder]:
    for path, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name != _NOT_SEARCHED)
        if RunFolder(Path(path)).config.name in files:
            yield RunFolder(Path(path))


def _read_run(folder: RunFolder, result: str) -> RunRecord | None:
    """Reads a run; None for the group folder of several seeds."""
    values = folder.read_config()
    if values.get("num_seeds", 1) != 1:
        return None
    evaluated = (folder.path / result).exists()
    described = folder.path / result if evaluated else folder.provenance
    record = read_json(described) if described.exists() else {}
    data = record.get("data", {}) if isinstance(record, dict) else None
    if not isinstance(data, dict) or (data and not {"name", "checksum", "synthetic"} <= data.keys()):
        raise UserError("its files do not describe the data", where=str(folder.path))
    step = newest_checkpoint(folder)
    status = _status(folder, values, evaluated, record, step)
    return RunRecord(folder, values, data, status, step, _seeds_together(folder))


def _status(
    folder: RunFolder, values: Mapping[str, Any], evaluated: bool, record: Mapping[str, Any], step: int
) -> Status:
    if folder.is_locked():
        return Status.RUNNING
    if _for_use(values["data"]) and "seconds" in record and step in (0, values["train"]["steps"]):
        return Status.UNTESTED
    if evaluated and step <= record.get("newest_checkpoint", record.get("step", step)):
        return Status.FINISHED
    return Status.INTERRUPTED if step else Status.NO_CHECKPOINT


def _for_use(data: Mapping[str, Any]) -> bool:
    everybody = data.get("test_fraction") == 0 and data.get("fold") is None
    return everybody or data.get("split") == "none"


def _seeds_together(folder: RunFolder) -> int:
    group = RunFolder(folder.path.resolve().parent)
    if not group.config.is_file():
        return 1
    number = group.read_config().get("num_seeds", 1)
    return number if isinstance(number, int) else 1

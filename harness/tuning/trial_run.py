"""The run of one trial: a training command in a process of its own, watched through its run folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands.command import EXIT_USER_ERROR
from harness.commands.command_words import override_value
from harness.errors import UserError
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder, make_folder, read_json
from harness.training.loop import DIVERGED

LOG = "train.log"
"""What the training command printed, in the run folder of the trial."""
_NOT_MISTAKES = (DIVERGED, "not enough memory")  # of the settings tried, although the exit code is the same


@dataclass(frozen=True)
class Objective:
    """What a study maximises.

    Attributes:
        metric: In the rows of metrics.jsonl that belong to an evaluation on validation users.
        result: JSON and metric of methods that are fitted without training, which have no rows; None: there are none.
        best: Whether the best evaluation of a trial counts, or its last.
    """

    metric: str
    result: tuple[str, str] | None
    best: bool

    def evaluations(self, folder: Path) -> list[float]:
        """Returns the evaluations of a run in order; of seeds that train together the means, where all have one."""
        folders = [path for path in (folder, *sorted(folder.glob("seed_*"))) if RunFolder(path).metrics.exists()]
        of_runs = [_by_step(RunFolder(path).metrics, self.metric) for path in folders]
        steps = sorted(set.intersection(*map(set, of_runs))) if of_runs else []
        return [sum(run[step] for run in of_runs) / len(of_runs) for step in steps]

    def value(self, folder: Path) -> float | None:
        """Returns the value of a finished run; None if it left none."""
        if evaluations := self.evaluations(folder):
            return max(evaluations) if self.best else evaluations[-1]
        if self.result is None:
            return None
        name, metric = self.result
        results = [read_json(path) for path in (folder / name, *sorted(folder.glob(f"seed_*/{name}"))) if path.exists()]
        own = [float(next(iter(result["policies"].values()))[metric]) for result in results]
        return sum(own) / len(own) if own else None


class TrialRun:
    """The process that trains in a trial's run folder."""

    def __init__(self, folder: Path, module: str, arguments: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Keeps what the command line is made of.

        Args:
            folder: The run folder.
            module: The training command.
            arguments: Of all trials.
            settings: The trial's own, by dotted key.
        """
        self.folder = folder
        own = [f"{key}={override_value(value)}" for key, value in settings.items()]
        self._new = [module, *arguments, *own, f"hydra.run.dir={override_value(str(folder.absolute()))}"]
        devices = [one for one in arguments if one.startswith("devices.")]  # no run takes them from its folder
        self._resumed = [module, f"resume={override_value(str(folder.absolute()))}", *devices]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def busy_elsewhere(self) -> bool:
        """Whether a process that is not ours trains in the folder: that of a command that was killed."""
        return self._process is None and self.folder.is_dir() and RunFolder(self.folder).is_locked()

    def start(self) -> None:
        """Starts the training, or continues it."""
        make_folder(self.folder)
        words = self._resumed if RunFolder(self.folder).config.exists() else self._new
        with (self.folder / LOG).open("ab") as log:
            self._log_start = log.tell()
            # A session of its own: Ctrl-C reaches the tuning command alone, which passes it on.
            self._process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        """Returns the exit code; None while the process runs."""
        assert self._process is not None
        return self._process.poll()

    def stop(self, kill: bool = False) -> None:
        """Asks the training to save its state and end, and waits; or ends it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait()

    def failure(self) -> str:
        """Returns why the process failed.

        Raises:
            UserError: By a mistake of the user, which other trials would repeat.
        """
        assert self._process is not None
        code = self._process.returncode
        with (self.folder / LOG).open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode("utf-8", "replace").splitlines()
        begin = max((number for number, line in enumerate(lines) if line.startswith("error: ")), default=None)
        said = lines[begin:] if begin is not None else [line for line in lines if line.strip()][-1:]
        message = "\n".join(said).removeprefix("error: ")
        if code == EXIT_USER_ERROR and not any(text in message for text in _NOT_MISTAKES):
            raise UserError(message, where=str(self.folder))
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return message.splitlines()[0] if message else f"exit code {code}"


def _by_step(metrics: Path, name: str) -> dict[int, float]:
    return {row["step"]: float(row[name]) for row in read_rows(metrics) if name in row}

"""A sweep (Hydra's multirun): says which job runs and which failed, and ends with a table of all jobs."""

from __future__ import annotations

import atexit
import json
import math
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from harness.commands.command import EXIT_BUG, EXIT_USER_ERROR, describe_error
from harness.commands.command_words import override_value
from harness.reports.tables import Table, markdown_list, markdown_table, write_report
from harness.runs.composition import shell_command
from harness.runs.run_folder import read_json

IN_FOLDER = "hydra.run.dir"
"""The key of the folder of a single run."""
RECORD = "sweep.jsonl"
"""A row per finished or failed job, in the sweep folder; `sweep.md` and `sweep.csv` are made from it."""


class SweepReport(Callback):
    """Hydra's callback for the jobs of a sweep, whatever launcher runs them (`hydra.callbacks` in `conf/train*.yaml`).

    Launchers that start processes pickle the callback; the file `RECORD` brings together what the jobs report.
    A failed job does not stop the others: the callback takes its error from Hydra, which would raise the first one at
    the end and say nothing of the rest.
    """

    def __init__(
        self,
        train: str,
        report: str,
        result: str,
        metric: str,
        compared: Sequence[str] | None = None,
        otherwise: str = "",
        again: str = IN_FOLDER,
    ) -> None:
        """Takes the arguments from the configuration.

        Args:
            train: The training command's module.
            report: Module and name of the report that shows the runs of the sweep.
            result: JSON that a finished run leaves (`harness.reports.results.write_results`).
            metric: The metric of the run's own policy that the table shows.
            compared: Keys whose sweeps that report shows; None: any.
            otherwise: The report, likewise, for sweeps over other keys.
            again: The key with which a job that failed runs again in its folder.
        """
        self.compared, self.otherwise, self.again = compared, otherwise, again
        self.train, self.report, self.result, self.metric = train, report, result, metric
        self.folder: Path | None = None  # None outside a sweep
        self.jobs: int | None = None  # None where only the sweeper knows
        self.swept: list[str] = []
        self.started = 0.0
        self.ended = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Counts the jobs and removes the record of an earlier sweep in the same folder."""
        self.folder = Path(str(config.hydra.sweep.dir))
        params = config.hydra.sweeper.get("params") or {}
        overrides = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        parsed = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(overrides)}
        swept = {key: one for key, one in parsed.items() if one.is_sweep_override()}
        self.swept = list(swept)
        if all(one.is_discrete_sweep() and one.value_type is not ValueType.GLOB_CHOICE_SWEEP for one in swept.values()):
            self.jobs = math.prod(len(list(one.sweep_string_iterator())) for one in swept.values())
        (self.folder / RECORD).unlink(missing_ok=True)
        atexit.register(self._report_if_stopped)  # Hydra tells callbacks nothing of Ctrl-C and SIGTERM

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Says which job starts."""
        self.started = time.monotonic()
        if self.folder is not None:
            print(f"{self._name(config)}: {' '.join(self._choices(config))}", file=sys.stderr, flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Prints a failure and records the job."""
        if self.folder is None:
            return
        row: dict[str, Any] = {
            "job": config.hydra.job.num,
            "overrides": list(config.hydra.overrides.task),
            "swept": self._choices(config),
            "status": "finished",
            "seconds": round(time.monotonic() - self.started, 1),
            "folder": str(self.folder / str(config.hydra.sweep.subdir)),
        }
        if job_return.status is JobStatus.FAILED:
            error = job_return._return_value  # the public property raises it
            message, code = describe_error(error) or ("".join(traceback.format_exception(error)), EXIT_BUG)
            row |= {"status": "failed", "error": message, "code": code}
            print(f"error: {self._name(config)} failed: {message}", file=sys.stderr, flush=True)
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None
        else:
            row["result"] = self._result_in(Path(row["folder"]))
        with (self.folder / RECORD).open("a") as file:  # one write per row: rows of parallel jobs do not mix
            file.write(json.dumps(row) + "\n")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table of all jobs and writes it into the sweep folder.

        Raises:
            SystemExit: Jobs failed: 2 if the user can fix every failure, else 1.
        """
        if self.folder is None:
            return
        self.ended = True
        codes = [row.get("code", 0) for row in self._write_report(self.folder)]
        if any(codes):
            raise SystemExit(EXIT_BUG if EXIT_BUG in codes else EXIT_USER_ERROR)

    def _report_if_stopped(self) -> None:
        """Writes the table of a sweep that was stopped."""
        if self.folder is not None and not self.ended:
            self._write_report(self.folder)

    def _write_report(self, folder: Path) -> list[dict[str, Any]]:
        """Prints the table of all jobs, writes it into the sweep folder, and returns a row per job."""
        record = folder / RECORD
        rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        recorded = {row["job"]: row for row in rows}
        unknown: dict[str, Any] = {
            "swept": [],
            "status": "not finished",
            "seconds": None,
            "folder": "",
            "code": EXIT_BUG,
        }
        numbers = range(self.jobs) if self.jobs is not None else sorted(recorded)
        rows = [recorded.get(job, {"job": job, **unknown}) for job in numbers]
        write_report(folder, "sweep", *self._report(rows))
        return rows

    def _report(self, rows: list[dict[str, Any]]) -> tuple[list[str], Table]:
        """Returns the Markdown lines and the numbers of the table of all jobs."""
        # The table: a row per job.
        heads = ["job", "overrides", "status", self.metric, "seconds", "run folder"]
        shown = []
        for row in rows:
            result = f"{row['result']:.4f}" if row.get("result") is not None else ""
            shown.append(
                [f"{row['job'] + 1}", " ".join(row["swept"]), row["status"], result, f"{row['seconds'] or ''}"]
            )
            shown[-1].append(row["folder"] if row["status"] == "finished" else "")
        failed = [row for row in rows if row["status"] != "finished"]
        lines = [f"# Sweep: {len(rows) - len(failed)} of {len(rows)} jobs finished", "", *markdown_table(heads, shown)]
        # What failed, and how to run it again.
        if failed:
            errors = [f"job {row['job'] + 1}: {_in_a_line(row.get('error', row['status']))}" for row in failed]
            again = [shell_command(self.train, self._again(row)) for row in failed if "overrides" in row]
            lines += ["", "## Not finished", "", *markdown_list(errors), "", "```bash", *again, "```"]
        # What shows the runs together.
        if len(failed) < len(rows):
            fits = self.compared is None or set(self.swept) <= set(self.compared)
            module, name = (self.report if fits else self.otherwise).split()
            lines += ["", "## Report", "", "```bash", shell_command(module, [name, str(self.folder)]), "```"]
        numbers = [
            [*cells[:3], row.get("result"), row["seconds"], cells[5], row.get("error")]
            for cells, row in zip(shown, rows, strict=True)
        ]
        return lines, Table([*heads, "error"], numbers)

    def _again(self, row: dict[str, Any]) -> list[str]:
        """Returns the arguments that run a job again in its own folder, where reports on the sweep find it."""
        key = self.again
        if key == IN_FOLDER and (Path(row["folder"]) / "config.yaml").exists():
            return [f"resume={override_value(row['folder'])}"]
        return [*row["overrides"], f"{key}={override_value(row['folder'])}"]

    def _name(self, config: DictConfig) -> str:
        of = "" if self.jobs is None else f" of {self.jobs}"
        return f"job {config.hydra.job.num + 1}{of}"

    def _choices(self, config: DictConfig) -> list[str]:
        """Returns the overrides that tell a job from the others."""
        overrides = [str(override) for override in config.hydra.overrides.task]
        return [one for one in overrides if one.split("=")[0] in self.swept] or overrides

    def _result_in(self, folder: Path) -> float | None:
        """Returns the metric of the run's own policy, a mean over the seeds that trained together."""
        paths = [folder / self.result, *folder.glob(f"seed_*/{self.result}")]
        results = [read_json(path) for path in paths if path.exists()]
        own = [next(iter(result["policies"].values()))[self.metric] for result in results]
        return float(np.mean(own)) if own else None


def _in_a_line(error: str) -> str:
    """Returns a message on one line; of a traceback the last one."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1] if lines[0].startswith("Traceback") else "; ".join(lines)

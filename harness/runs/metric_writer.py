"""The metrics writer of every run: rows in metrics.jsonl and the same numbers as TensorBoard events."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from harness.commands.old_names import current_metrics
from harness.errors import UserError
from harness.runs.run_folder import write_atomically, writing


class MetricWriter(AbstractContextManager["MetricWriter"]):
    """Appends one row per log point; a resumed run first drops the rows after its checkpoint."""

    def __init__(self, path: Path, last_step: int, labels: dict[str, Any] | None = None) -> None:
        """Opens `path` (metrics.jsonl) for a run that continues after `last_step` (0: a new run).

        Args:
            path: The file; TensorBoard events are written to the same folder.
            last_step: Rows of later steps are dropped.
            labels: Constants for every row, such as the data set.

        Raises:
            UserError: The file cannot be read or written.
        """
        rows = [row for row in read_rows(path) if row["step"] <= last_step] if path.exists() else []
        if last_step and (not rows or rows[-1]["step"] < last_step):
            print(f"warning: {path} lacks rows up to step {last_step}, the step of the checkpoint", file=sys.stderr)
        text = "".join(_line(row) for row in rows)
        write_atomically(path, lambda temporary: temporary.write_text(text))
        self._path, self._labels = path, labels or {}
        with self._reported():
            self._file = path.open("a")
            self._events = SummaryWriter(str(path.parent), purge_step=last_step + 1)
            self._events.add_text("labels", json.dumps(self._labels), last_step)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes one row; `values` are numbers by name.

        Raises:
            UserError: The file cannot be written.
        """
        with self._reported():
            self._file.write(_line({"step": step, **self._labels, **values}))
            self._file.flush()
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()

    def _reported(self) -> AbstractContextManager[None]:
        return writing(self._path, then=", then continue the run with resume=FOLDER")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Closes both files; an earlier error takes precedence over a failure to close."""
        with nullcontext() if error is None else suppress(OSError, UserError), self._reported():
            try:
                self._file.close()
            finally:
                self._events.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl; a last line cut short by a kill is ignored.

    Raises:
        UserError: The file is missing, or damaged before its last line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=str(path), do="Restore the file.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise UserError("is damaged", where=f"{path}, line {number}", do="Restore or delete the line.")
    return rows


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return current_metrics(row) if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"

"""One metrics writer for every run: rows in metrics.jsonl and the same numbers as TensorBoard events."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from harness.run_folder import write_atomically
from sim.errors import UserError


class MetricWriter:
    """Appends one row per log point; a resumed run drops the rows after its checkpoint first."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Opens `path` (metrics.jsonl) for a run that continues after `last_step` (0 = a new run).

        Raises:
            UserError: The file cannot be read or written.
        """
        rows = [row for row in read_rows(path) if row["step"] <= last_step] if path.exists() else []
        text = "".join(_line(row) for row in rows)
        write_atomically(path, lambda temporary: temporary.write_text(text))
        self._file = path.open("a")
        self._events = SummaryWriter(str(path.parent), purge_step=last_step + 1 if last_step else None)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes one row; `values` are numbers by name."""
        self._file.write(_line({"step": step, **values}))
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def __enter__(self) -> MetricWriter:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes both files."""
        self._file.close()
        self._events.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl; a last line cut short by a kill is left out.

    Raises:
        UserError: Missing file, or damage anywhere but in the last line.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=str(path), do="Restore the file.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number == len(lines):
                break
            raise UserError("is damaged", where=f"{path}, line {number}", do="Restore or delete the line.") from None
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"

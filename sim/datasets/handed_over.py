"""Training on data that are handed over in Python: a path, or a table in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from harness.phases import Phases
from harness.runs.seeds import Run
from harness.training.from_python import overrides_of, run_folder, train_in
from sim.files.frames import as_file

Train = Callable[[list[Run], bool, Phases], None]


def train_on(
    table: Any,
    kind: tuple[str, str],
    folder: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    command: tuple[str, str, Train],
    per_seed: Sequence[str] = (),
) -> Path:
    """Trains on a table as a command does on `data.path`; returns the run folder.

    Args:
        table: A path, a data frame, or a mapping of names to columns; None: what the settings name.
        kind: What the table holds, which names its file in the run folder, and the data set that reads it.
        folder: The run folder; None: outputs/DAY/TIME.
        settings: Keys of the configuration, see `harness.training.from_python.overrides_of`.
        command: Configuration, module and `train` of the command.
        per_seed: See `harness.training.command.start_or_resume`.

    Raises:
        UserError: A mistake in settings or data; then nothing is left behind.
        KeyboardInterrupt: Ctrl-C; the state is saved if training had begun.
    """
    name, reader = kind
    place = run_folder(folder)
    with nullcontext() if table is None else as_file(table, place, name) as path:
        given = settings if path is None else _with_path(settings, reader, path)
        configuration, module, train = command
        train_in(place, configuration, module, train, overrides_of(given), per_seed)
    return place


def _with_path(settings: Mapping[str, Any], reader: str, path: Path) -> dict[str, Any]:
    chosen = settings.get("data", {})
    keys = {f"data.{key}": value for key, value in chosen.items()} if isinstance(chosen, Mapping) else {}
    data = reader if isinstance(chosen, Mapping) else chosen
    return {**settings, "data": data, **keys, "data.path": str(path.absolute())}

"""How wide the vectors are that XLA computes with on a CPU.

On processors with AVX-512 XLA uses vectors of 256 bits unless it is told otherwise; wider ones take a fifth off a
training step. Sums in another order differ in their last bits, so a run keeps the width that it began with.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from jax._src.xla_bridge import backends_are_initialized  # JAX has no public way to ask

from harness.errors import UserError
from harness.runs.run_folder import RunFolder, read_json
from harness.runs.seeds import runs_in

KEY = "vector_width"
"""Of `run.json`: bits."""

_FLAG = "--xla_cpu_prefer_vector_width"
_WIDEST, _USUAL = 512, 256


def choose_vector_width(run: RunFolder | None = None) -> None:
    """Makes XLA compute with the widest vectors of this processor, or with those that a run began with.

    A width that the user has set in XLA_FLAGS stays, as does that of a process that computes already; if a run began
    with another one, a line says so.

    Args:
        run: A run that is to be continued or evaluated.
    """
    recorded = None if run is None else _recorded(run)
    wanted = recorded or (_WIDEST if _has_avx512() else None)
    if wanted and _set_width() is None and not backends_are_initialized():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}={wanted}".strip()
    if run is not None and recorded and recorded != vector_width():
        print(
            f"notice: {run.path} began with vectors of {recorded} bits, this process computes with {vector_width()}: "
            f"the last digits of its numbers may differ ({_FLAG} in XLA_FLAGS)",
            file=sys.stderr,
        )


def vector_width() -> int:
    """Returns the width that is in use, in bits."""
    return _set_width() or _USUAL


def _set_width() -> int | None:
    found = re.findall(rf"{_FLAG}=(\d+)", os.environ.get("XLA_FLAGS", ""))
    return int(found[-1]) if found else None


def _recorded(run: RunFolder) -> int | None:
    """Returns the width that a run, or the first of a group, began with; None if it has not begun, or is damaged."""
    try:
        record = read_json(runs_in(run)[0].folder.provenance)
    except UserError:  # what reads the run next says what is wrong
        return None
    # Runs of earlier commits used XLA's own choice.
    width = record.get(KEY, _USUAL) if isinstance(record, dict) else None
    return width if isinstance(width, int) else None


def _has_avx512() -> bool:
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False

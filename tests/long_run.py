"""Trains for hours and watches memory, processor time per step and the run folder.

`PYTHONPATH=. python tests/long_run.py SYSTEM [--hours 2]` with SYSTEM tpgr or hrl_mg trains on the embedded data until
the time is over, stops the run with SIGTERM and compares the first tenth of the samples (after the first checkpoint)
with the last one. Processor seconds are compared, not wall seconds, so that other work on the machine does not count.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from command_lines import checkpoint_steps

_FOR_EVER = ["train.steps=100000000", "train.log_every=10", "train.evaluate_every=200", "train.checkpoint_every=50"]
COMMANDS = {
    "tpgr": ["tpgr_jax.train", *_FOR_EVER],
    "hrl_mg": ["hrlmg_jax.train", *_FOR_EVER],
}


class Sample(NamedTuple):
    """What is seen of a running command.

    Attributes:
        seconds: Since its start.
        step: Training steps done.
        resident: Memory in MiB.
        processor: Seconds of processor time used.
        checkpoints: Number of them.
        stored: MiB in the run folder.
    """

    seconds: float
    step: int
    resident: float
    processor: float
    checkpoints: int
    stored: float


def watch(command: list[str], folder: Path, hours: float, every: float) -> tuple[list[Sample], int]:
    """Runs a command for some hours; returns samples and its exit code."""
    run, started = folder / "run", time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, f"hydra.run.dir={run}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    samples: list[Sample] = []
    try:
        while process.poll() is None and time.monotonic() < started + 3600 * hours:
            time.sleep(every)
            if process.poll() is None and checkpoint_steps(run):
                samples.append(_sample(process.pid, run, time.monotonic() - started))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    return samples, process.returncode


def _sample(pid: int, run: Path, seconds: float) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(status[status.index("VmRSS:") :].split()[1]) / 1024
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    processor = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    with (run / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
        step = json.loads(file.read().rpartition(b"\n")[0].splitlines()[-1])["step"]
    stored = 0
    for place, _, names in os.walk(run):
        for name in names:
            with suppress(FileNotFoundError):  # an old checkpoint that is being removed
                stored += (Path(place) / name).stat().st_size
    return Sample(seconds, step, resident, processor, len(checkpoint_steps(run)), stored / 2**20)


def describe(samples: list[Sample]) -> str:
    """Returns what became of memory and speed from the first tenth of the samples to the last."""
    tenth = max(2, len(samples) // 10)
    first, last = samples[:tenth], samples[-tenth:]
    resident = [statistics.median(sample.resident for sample in part) for part in (first, last)]
    costs = [(part[-1].processor - part[0].processor) / (part[-1].step - part[0].step) for part in (first, last)]
    end = samples[-1]
    return (
        f"{end.seconds / 3600:.2f} h, {end.step:,} steps: resident {samples[0].resident:,.0f} MiB at first, "
        f"{end.resident:,.0f} MiB at last (medians of the first and last tenth {resident[0]:,.0f} and "
        f"{resident[1]:,.0f}); processor time per step {1000 * costs[0]:,.1f} ms and {1000 * costs[1]:,.1f} ms; "
        f"{end.checkpoints} checkpoints, run folder {samples[0].stored:,.1f} to {end.stored:,.1f} MiB"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=list(COMMANDS))
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between samples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, code = watch(COMMANDS[options.system], Path(folder), options.hours, options.every)
    for sample in samples[:: max(1, len(samples) // 20)]:
        print({name: round(value, 1) for name, value in sample._asdict().items()})
    print(f"{options.system}: {describe(samples)}; exit code {code}")
    raise SystemExit(code != 128 + signal.SIGTERM)


if __name__ == "__main__":
    main()

"""What the benchmark commands share: timing, the machine's own rate, sections in processes of their own, one table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from harness.compute.devices import AUTOMATIC, cores_as_devices
from harness.compute.vector_width import choose_vector_width
from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.provenance import describe_environment
from harness.runs.run_folder import write_atomically
from harness.settings import Settings, read_settings

_GIB = 2**30
Name = TypeVar("Name")


@dataclass(frozen=True)
class Line:
    """One measurement.

    Attributes:
        name: What was measured.
        value: The number.
        unit: Of it.
        target: What it is to reach; None where it is only reported.
        at_most: Whether the target is an upper bound.
        note: How it came about.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `short`, or nothing without a target; `not measured` for NaN."""
        if math.isnan(self.value):
            return "not measured"
        if self.target is None:
            return ""
        return "pass" if (self.value <= self.target if self.at_most else self.value >= self.target) else "short"


Section = Callable[[bool], list[Line]]
"""`smoke -> lines`; with smoke the smallest sizes, which only show that it runs."""


def composed_settings(schema: type[Settings], name: str, *overrides: str) -> Settings:
    """Returns the settings that `conf/NAME.yaml` composes with overrides, as for the training command.

    Raises:
        UserError: An impossible setting.
    """
    return read_settings(schema, composed_values(name, overrides))


def seconds_of(run: Callable[[], Any], repeats: int = 5) -> float:
    """Returns the median duration of `run`, which is called once before to compile; waits for JAX's results."""
    return alternating_seconds({"": run}, repeats)[""]


def alternating_seconds(runs: Mapping[Name, Callable[[], Any]], repeats: int) -> dict[Name, float]:
    """Returns the median duration of each run, timed in turns: whatever disturbs the machine disturbs them alike.

    Each is called once before to compile; waits for JAX's results.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    durations: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            jax.block_until_ready(run())
            durations[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in durations.items()}


def matrix_product_rate(size: int = 2048) -> float:
    """Returns the float32 operations per second of a large matrix product on this device (best of several)."""
    factor = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda first, second: jnp.matmul(first, second, precision="highest"))
    best = min(seconds_of(lambda: product(factor, factor), 1) for _ in range(8))
    return 2 * size**3 / best


def peak_memory() -> float:
    """Returns the largest resident size of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB


def fitted_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Returns the slope of log(seconds) against log(size) by least squares."""
    return statistics.linear_regression([*map(math.log, sizes)], [*map(math.log, seconds)]).slope


def in_own_process(module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """Runs `python -m MODULE ARGUMENTS` and returns the JSON value that it prints last.

    A process of its own gives a section its own peak memory, and a failure ends only the section.

    Raises:
        UserError: It failed; the message has the end of what it wrote.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command[2:])} failed with code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_point(module: str, point: Callable[..., Any], smoke: bool, **settings: Any) -> Any:
    """Calls a function of a benchmark in a process of its own (not for `smoke`), so that its peak memory is its own."""
    if smoke:
        return point(**settings)
    return in_own_process(module, ["--point", point.__name__, json.dumps(settings)])


def run_benchmark(
    module: str,
    sections: Mapping[str, Section],
    points: Sequence[Callable[..., Any]],
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of a benchmark: runs sections one after the other and prints one table.

    Args:
        module: Its own name, to start sections with.
        sections: By name, in order.
        points: Functions that sections call in processes of their own (`measure_point`).
    """
    # Arguments; the hidden ones make this process one section, or one point, of another.
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Measures speed and memory.")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: shows that every section runs")
    parser.add_argument(
        "--only", nargs="+", choices=list(sections), metavar="SECTION", help=f"of: {', '.join(sections)}"
    )
    parser.add_argument("--out", type=Path, help="folder for bench.json and bench.md")
    parser.add_argument("--section", choices=list(sections), help=argparse.SUPPRESS)
    parser.add_argument("--point", nargs=2, metavar=("NAME", "JSON"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    choose_vector_width()
    cores_as_devices(AUTOMATIC)
    if options.point:
        name, settings = options.point
        print(json.dumps({point.__name__: point for point in points}[name](**json.loads(settings))))
        return
    if options.section:
        print(json.dumps([dataclasses.asdict(line) for line in sections[options.section](False)]))
        return
    # Sections, each in its own process and with the share of time that others took from this machine.
    results: dict[str, list[Line]] = {}
    stolen = {}
    for name in options.only or sections:
        started, stolen_before = time.monotonic(), _stolen_seconds()
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            if options.smoke:
                results[name] = sections[name](True)
            else:
                results[name] = [Line(**line) for line in in_own_process(module, ["--section", name])]
        except UserError as failure:
            print(f"error: {failure}", file=sys.stderr)
            results[name] = [Line(f"section {name} failed", math.nan, "")]
        cores_seconds = (time.monotonic() - started) * (os.cpu_count() or 1)
        share = (_stolen_seconds() - stolen_before) / cores_seconds
        stolen[name] = None if math.isnan(share) else share
    # The record and its table.
    record = {
        "date": date.today().isoformat(),
        "smoke": options.smoke,
        "cores": os.cpu_count(),
        **describe_environment(),
        "stolen": stolen,
        "sections": {name: [dataclasses.asdict(line) for line in lines] for name, lines in results.items()},
    }
    table = format_table(record, results)
    print(table)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1)
        write_atomically(options.out / "bench.json", lambda path: path.write_text(text))
        write_atomically(options.out / "bench.md", lambda path: path.write_text(table + "\n"))
    if any(line.name.endswith(" failed") for lines in results.values() for line in lines):
        raise SystemExit(1)


def _stolen_seconds() -> float:
    """Returns how long this virtual machine's cores have had to wait for others' so far; NaN where nobody counts."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return math.nan


def format_table(record: Mapping[str, Any], results: Mapping[str, Sequence[Line]]) -> str:
    """Returns the results as a Markdown table with the machine above it."""
    versions = record["versions"]
    stolen = [f"{name} {share:.0%}" for name, share in record["stolen"].items() if share is not None]
    lines = [
        f"{record['date']}, {record['device']}, {record['cores']} cores, Python {record['python']}, "
        f"jax {versions['jax']}, jaxlib {versions['jaxlib']}"
        f"{', SMOKE: sizes too small to say anything' if record['smoke'] else ''}",
        *([f"Processor time that other virtual machines took: {', '.join(stolen)}"] if stolen else []),
        "",
        "| section | measurement | value | target | verdict | note |",
        "|---|---|---|---|---|---|",
    ]
    for section, measured in results.items():
        for line in measured:
            bound = "<=" if line.at_most else ">="
            target = "" if line.target is None else f"{bound} {line.target:,.4g} {line.unit}"
            value = "" if math.isnan(line.value) else f"{line.value:,.4g} {line.unit}"
            lines.append(f"| {section} | {line.name} | {value} | {target} | {line.verdict} | {line.note} |")
    return "\n".join(lines)

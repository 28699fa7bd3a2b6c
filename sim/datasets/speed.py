"""How fast large logs are read, and in how much memory: a section of a benchmark."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from harness.reports.benchmark import Line, measure_point, peak_memory
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.datasets.events import load_log, log_statistics
from sim.datasets.log_settings import LogConfig
from sim.tables.plausibility import log_warnings
from sim.tables.summary import log_summary

TABLE_1 = {"rows": 8_600_000, "items": 553_156}
"""The size of the log in the paper's Table 1."""
LARGE = {"rows": 100_000_000, "items": 553_156}
_ROWS_AT_A_TIME = 1_000_000
_EVENTS_PER_SESSION = 10
_DAYS = 30
_SECONDS_PER_DAY = 86_400


def write_log(path: str, rows: int, items: int) -> None:
    """Writes a log in order of time as CSV and as Parquet: integer users and items, event names, sessions as texts."""
    import polars as pl

    users = max(1, rows // 20)
    with Path(path).open("wb") as file:
        for begin in range(0, rows, _ROWS_AT_A_TIME):
            # Sessions of about ten events, whole within these rows; popular items come first.
            number = min(_ROWS_AT_A_TIME, rows - begin)
            random = np.random.default_rng([0, begin])
            session = np.sort(random.integers(0, max(1, number // _EVENTS_PER_SESSION), number))
            user = random.integers(0, users, session[-1] + 1)[session]
            second = random.integers(0, _SECONDS_PER_DAY, session[-1] + 1)[session] + np.arange(number) % 600
            columns = {
                "user": user + 500_000_000,
                "item": (items * random.random(number) ** 3).astype(np.int64) + 1_000_000,
                "time": 1_700_000_000 + begin * _DAYS // rows * _SECONDS_PER_DAY + second,
                "event": random.choice(np.array(["skip", "click", "order"]), number, p=[0.9, 0.09, 0.01]),
                "session": pl.Series(session + begin).hash(1).cast(pl.String).str.replace(r"^(.{6})", "session-$1-"),
            }
            pl.DataFrame(columns).sort("time", maintain_order=True).write_csv(file, include_header=begin == 0)
    pl.scan_csv(path).sink_parquet(Path(path).with_suffix(".parquet"), row_group_size=_ROWS_AT_A_TIME)


def read_log(path: str, cache: str) -> dict[str, float]:
    """Times what `python -m sim.data data=events_csv data.path=PATH data.session_column=session` does."""
    overrides = ["data=events_csv", f"data.path={path}", f"data.cache={cache}", "data.session_column=session"]
    config = read_settings(LogConfig, composed_values("data_statistics", overrides)["data"], "data")
    started, cpu = time.perf_counter(), time.process_time()
    log = load_log(config)
    seconds = time.perf_counter() - started
    log_statistics(log), log_summary(log), log_warnings(log)
    return {
        "seconds": seconds,
        "all": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "memory": peak_memory(),
        "rows": float(log.num_events),
    }


def bench_logs(module: str, smoke: bool) -> list[Line]:
    """Reading generated logs of Table 1's size and of 10^8 events, as CSV and Parquet (10 GB of temporary files).

    Args:
        module: The benchmark, which calls `write_log` and `read_log` in processes of their own.
        smoke: Only a small log.
    """
    lines = []
    for size in ({"rows": 2_000, "items": 300},) if smoke else (TABLE_1, LARGE):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.csv"
            measure_point(module, write_log, smoke, path=str(path), **size)
            for kind in ("csv", "parquet"):
                file = path.with_suffix(f".{kind}")
                cache = str(Path(folder) / f"cache of {kind}")
                point = measure_point(module, read_log, smoke, path=str(file), cache=cache)
                name = f"{size['rows']:,} events, {size['items']:,} items, {kind}"
                seconds = f"with the statistics {point['all']:.0f} s, {point['cpu']:.0f} s of processors"
                note = f"{file.stat().st_size / 2**30:.2f} GiB; {seconds}"
                target = 60.0 if size == TABLE_1 else None
                lines.append(Line(f"{name}: read", point["seconds"], "s", target, note=note))
                lines.append(Line(f"{name}: peak memory", point["memory"], "GiB", 8e9 / 2**30))
    return lines

"""Measures speed and memory of HRL-MG: `python -m hrlmg_jax.bench [--smoke] [--only SECTION ...] [--out FOLDER]`."""

from __future__ import annotations

from functools import partial

from harness.commands.command import run_command
from harness.reports.benchmark import Section, run_benchmark
from hrlmg_jax.benchmark.paper_size import bench_paper_size
from hrlmg_jax.benchmark.recommending import bench_recommend
from hrlmg_jax.benchmark.retrieval import bench_retrieval
from hrlmg_jax.benchmark.steps import bench_rollout, bench_training
from sim.datasets.speed import bench_logs, read_log, write_log

MODULE = "hrlmg_jax.bench"
SECTIONS: dict[str, Section] = {
    "training": bench_training,
    "rollout": bench_rollout,
    "retrieval": bench_retrieval,
    "recommend": bench_recommend,
    "logs": partial(bench_logs, MODULE),
    "paper_size": bench_paper_size,
}


def main() -> None:
    """Measures what the arguments of this process ask for."""
    run_benchmark(MODULE, SECTIONS, (write_log, read_log))


if __name__ == "__main__":
    run_command(main)

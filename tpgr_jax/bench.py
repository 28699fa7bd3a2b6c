"""Measures speed and memory of TPGR: `python -m tpgr_jax.bench [--smoke] [--only SECTION ...] [--out FOLDER]`."""

from __future__ import annotations

from harness.commands.command import run_command
from harness.reports.benchmark import Section, run_benchmark
from tpgr_jax.benchmark.catalogue import (
    bench_catalogue,
    bench_tree,
    bench_value_tree,
    catalogue_point,
    tree_point,
    value_tree_point,
)
from tpgr_jax.benchmark.commands import bench_seeds, bench_start
from tpgr_jax.benchmark.environments import bench_gym
from tpgr_jax.benchmark.netflix import bench_netflix, netflix_point, netflix_value_tree_point
from tpgr_jax.benchmark.parts import MODULE
from tpgr_jax.benchmark.recommending import bench_recommend, bench_serve, recommend_point
from tpgr_jax.benchmark.steps import bench_decisions, bench_step
from tpgr_jax.benchmark.table3 import bench_table3

SECTIONS: dict[str, Section] = {
    "step": bench_step,
    "table3": bench_table3,
    "decisions": bench_decisions,
    "start": bench_start,
    "seeds": bench_seeds,
    "tree": bench_tree,
    "netflix": bench_netflix,
    "catalogue": bench_catalogue,
    "value_tree": bench_value_tree,
    "recommend": bench_recommend,
    "serve": bench_serve,
    "gym": bench_gym,
}
POINTS = (catalogue_point, value_tree_point, tree_point, netflix_point, netflix_value_tree_point, recommend_point)


def main() -> None:
    """Measures what the arguments of this process ask for."""
    run_benchmark(MODULE, SECTIONS, POINTS)


if __name__ == "__main__":
    run_command(main)

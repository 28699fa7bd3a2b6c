"""Fits the user-feedback simulator to a log: `python -m hrlmg_jax.fit_simulator [data=NAME] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from harness.compilation_cache import keep_compiled_programs
from harness.loop import Interruption
from harness.run_folder import plain_config
from hrlmg_jax.settings import FitConfig
from hrlmg_jax.simulator import format_report, obtain_simulator, simulator_folder
from hrlmg_jax.system import load_data
from sim.command import run_command, task
from sim.settings import read_settings


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="fit_simulator")
@task
def main(composed: DictConfig) -> None:
    """Fits the simulator of the configured log, or finds it fitted, and prints its report."""
    keep_compiled_programs()
    config = read_settings(FitConfig, composed)
    data = load_data(config)
    folder = simulator_folder(config, data)
    try:
        simulator = obtain_simulator(config, plain_config(composed), data)
    except Interruption as stopped:
        print(f"{stopped}; the same command continues the fit in {folder.path}", file=sys.stderr)
        raise SystemExit(128 + stopped.signal_number) from None
    print(format_report(simulator.report))
    print(f"simulator folder: {folder.path}")


if __name__ == "__main__":
    run_command(main)

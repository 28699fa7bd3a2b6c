"""Fits the user-feedback simulator to a log: `python -m hrlmg_jax.fit_simulator [data=NAME] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.compute.compilation_cache import keep_compiled_programs
from harness.compute.vector_width import choose_vector_width
from harness.runs.run_folder import plain_config
from harness.settings import read_settings
from harness.training.loop import Interruption
from hrlmg_jax.problem import load_data
from hrlmg_jax.sessions import say_what_was_understood
from hrlmg_jax.user_model.quality import format_report
from hrlmg_jax.user_model.settings import FitConfig
from hrlmg_jax.user_model.store import obtain_simulator, simulator_folder


@hydra_command("fit_simulator")
def main(composed: DictConfig) -> None:
    """Fits the simulator of the configured log, or finds it fitted, and prints its report."""
    keep_compiled_programs()
    choose_vector_width()
    config = read_settings(FitConfig, composed)
    data = load_data(config)
    say_what_was_understood(data)
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

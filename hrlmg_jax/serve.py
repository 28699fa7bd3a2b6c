"""Serves what runs recommend over HTTP: `python -m hrlmg_jax.serve run=RUN_FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.settings import read_settings
from hrlmg_jax.recommender import StoredSessionRun, load
from sim.recommend.serve_command import ServeConfig, serve_runs


@dataclass(frozen=True, kw_only=True)
class Config(ServeConfig, StoredSessionRun):
    """Which runs are served, and where (`conf/serve_hrl_mg.yaml`)."""


@hydra_command("serve_hrl_mg")
def main(composed: DictConfig) -> None:
    """Serves until it is stopped."""
    serve_runs(read_settings(Config, composed), load)


if __name__ == "__main__":
    run_command(main)

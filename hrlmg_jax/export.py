"""A run as StableHLO with its arrays, for use without this package: `python -m hrlmg_jax.export run=RUN out=FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.settings import read_settings
from hrlmg_jax.recommender import StoredSessionRun, load
from sim.recommend.export_command import ExportConfig, export_run


@dataclass(frozen=True, kw_only=True)
class Config(ExportConfig, StoredSessionRun):
    """Which run is exported (`conf/export_hrl_mg.yaml`)."""


@hydra_command("export_hrl_mg")
def main(composed: DictConfig) -> None:
    """Writes the export."""
    settings = read_settings(Config, composed)
    export_run(settings, load(settings))


if __name__ == "__main__":
    run_command(main)

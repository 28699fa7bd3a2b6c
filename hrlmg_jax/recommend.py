"""What a run recommends: `python -m hrlmg_jax.recommend run=RUN_FOLDER user=ID`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.settings import read_settings
from hrlmg_jax.recommender import StoredSessionRun, load
from sim.recommend.command import RecommendConfig, answer


@dataclass(frozen=True, kw_only=True)
class Config(RecommendConfig, StoredSessionRun):
    """What is asked of which run (`conf/recommend_hrl_mg.yaml`)."""


@hydra_command("recommend_hrl_mg")
def main(composed: DictConfig) -> None:
    """Prints the list of one user, or writes those of many."""
    settings = read_settings(Config, composed)
    answer(settings, load(settings))


if __name__ == "__main__":
    run_command(main)

"""Tunes an agent: `python -m hrlmg_jax.tune [+experiment=jdata] [agent=NAME] [KEY=VALUE ...]`."""

from __future__ import annotations

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.runs.run_folder import register_run_folder_resolver
from harness.tuning.command import TunedSystem, run_study
from hrlmg_jax.settings import TuneConfig

SYSTEM = TunedSystem(
    tune="hrlmg_jax.tune",
    train="hrlmg_jax.train",
    fixed=("evaluation.final=false",),
    metric="validation_reward",
    result=None,  # methods without training have nothing to tune
)
register_run_folder_resolver()  # conf/train_hrl_mg.yaml needs it while Hydra composes


@hydra_command("tune_hrl_mg")
def main(composed: DictConfig) -> None:
    """Begins, continues or joins a study."""
    run_study(composed, TuneConfig, SYSTEM)


if __name__ == "__main__":
    run_command(main)

"""Tunes a method: `python -m tpgr_jax.tune [+experiment=movielens] [agent=NAME] [KEY=VALUE ...]`."""

from __future__ import annotations

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.runs.run_folder import register_run_folder_resolver
from harness.tuning.command import TunedSystem, run_study
from tpgr_jax.settings import TuneConfig

SYSTEM = TunedSystem(
    tune="tpgr_jax.tune",
    train="tpgr_jax.train",
    fixed=("data.validation=true",),
    metric="test_reward",  # with data.validation of the validation users, who take the place of the test users
    result=("eval.json", "reward"),
)
register_run_folder_resolver()  # conf/train.yaml needs it while Hydra composes


@hydra_command("tune")
def main(composed: DictConfig) -> None:
    """Begins, continues or joins a study."""
    run_study(composed, TuneConfig, SYSTEM)


if __name__ == "__main__":
    run_command(main)

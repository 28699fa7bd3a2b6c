"""Tests a run online and offline: `python -m hrlmg_jax.evaluate run=RUN_FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import hydra
import jax
from omegaconf import DictConfig

from harness.command import CONFIGURATION, run_command, task
from harness.compilation_cache import keep_compiled_programs
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import read_single_run
from harness.settings import Integer, read_settings
from harness.training.command import relocated
from hrlmg_jax.evaluation.evaluate_run import Comparison
from hrlmg_jax.problem import check_same_origin, load_data, make_problem
from hrlmg_jax.registry import build_method
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.store import FILE


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate (`conf/evaluate_hrl_mg.yaml`)."""

    run: str | None
    checkpoint: Integer | None
    actors: Literal["best", "last"]
    data_root: str | None
    data_cache: str | None
    data_path: str | None

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        if self.run is None:
            raise UserError("no run given", do="Name a run folder: python -m hrlmg_jax.evaluate run=RUN_FOLDER")


@hydra.main(version_base="1.3", config_path=CONFIGURATION, config_name="evaluate_hrl_mg")
@task
def main(composed: DictConfig) -> None:
    """Restores a run from its folder and tests it beside simple opponents."""
    evaluate(read_settings(EvaluateConfig, composed))


def evaluate(settings: EvaluateConfig) -> None:
    """Tests one checkpoint of a run and writes the results into its folder.

    Raises:
        UserError: No run folder, or a group of them; no or damaged checkpoint, another log than the run was trained on.
    """
    keep_compiled_programs()
    folder = RunFolder(Path(settings.run or ""))
    values = relocated(read_single_run(folder), settings.data_root, settings.data_cache, settings.data_path)
    config = read_settings(RunConfig, values)
    if not (folder.path / FILE).exists():
        raise UserError(
            "the run has no simulator (it stopped before training began)",
            where=str(folder.path),
            do=f"Continue it: python -m hrlmg_jax.train resume={folder.path}",
        )
    data = load_data(config.fit(), config.longest_session)
    check_same_origin(data, folder)
    problem = make_problem(config.fit(), values, data, folder, config.longest_session)
    method, comparison = build_method(problem, config.agent), Comparison(config, problem)
    if method.agent is None:
        comparison.test(method.best(None), config.seed, folder, 0)
        return
    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        newest = max(checkpoints.steps, default=0)
        like = jax.jit(method.agent.init)(jax.random.key(config.seed), method.agent.world)
        step, state, _ = checkpoints.restore(like, settings.checkpoint)
    best = settings.actors == "best"
    tested = method.step_of_best(state) if best else step
    print(f"checkpoint of step {step} of {folder.path}: actors of step {tested}")
    # The result of the newest checkpoint's best actors keeps its place.
    suffix = ("" if step == newest else f"_step_{step}") + ("" if best else "_last")
    comparison.test(method.best(state) if best else method.newest(state), config.seed, folder, tested, suffix)
    print(f"written: online{suffix}.json, .npz, offline{suffix}.json, .npz")


if __name__ == "__main__":
    run_command(main)

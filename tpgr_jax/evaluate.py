"""Evaluates a run: `python -m tpgr_jax.evaluate run=RUN_FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import hydra
import jax
from omegaconf import DictConfig

from harness.command import CONFIGURATION, run_command, task
from harness.compilation_cache import keep_compiled_programs
from harness.devices import DevicesConfig, cores_as_devices
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import read_single_run
from harness.settings import Count, CountOrZero, Integer, read_settings
from harness.training.command import relocated
from tpgr_jax.evaluation import USERS_PER_BATCH, evaluate_method, format_table, write_evaluation
from tpgr_jax.problem import Problem, check_same_origin, make_problem
from tpgr_jax.settings import RunConfig, devices_of, make_method
from tpgr_jax.tree.item_vectors import tree_path


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate (`conf/evaluate.yaml`)."""

    run: str | None
    checkpoint: Integer | None
    users_per_batch: Count | None
    data_root: str | None
    data_cache: str | None
    data_path: str | None
    devices_count: CountOrZero | None

    def __post_init__(self) -> None:
        """Checks ranges; raises UserError naming the key."""
        if self.run is None:
            raise UserError("no run given", do="Name a run folder: python -m tpgr_jax.evaluate run=RUN_FOLDER")


@hydra.main(version_base="1.3", config_path=CONFIGURATION, config_name="evaluate")
@task
def main(composed: DictConfig) -> None:
    """Restores a run from its folder and prints the paper's four metrics beside those of simple opponents."""
    evaluate(read_settings(EvaluateConfig, composed))


def evaluate(settings: EvaluateConfig) -> None:
    """Evaluates one checkpoint of a run and writes `eval.json` and `eval.npz` into its folder.

    Raises:
        UserError: No run folder, or a group of them; no or damaged checkpoint, other data than the run was trained on.
    """
    keep_compiled_programs()
    devices = DevicesConfig(count=settings.devices_count)
    cores_as_devices(devices)
    folder = RunFolder(Path(settings.run or ""))
    config = read_settings(
        RunConfig, relocated(read_single_run(folder), settings.data_root, settings.data_cache, settings.data_path)
    )
    if config.agent.on_a_tree and not tree_path(folder).exists():
        raise UserError(
            "the run has no tree (it stopped before training began)",
            where=str(folder.path),
            do=f"Continue it: python -m tpgr_jax.train resume={folder.path}",
        )
    problem = make_problem(config.data, config.env)
    check_same_origin(problem, folder)
    with devices_of(replace(config, devices=devices), problem.data.num_items):
        _evaluate_checkpoint(settings, config, problem, folder)


def _evaluate_checkpoint(settings: EvaluateConfig, config: RunConfig, problem: Problem, folder: RunFolder) -> None:
    method = make_method(config, problem, folder)
    newest = step = 0
    state = None
    if method.agent is not None:
        like = jax.jit(method.agent.init)(jax.random.key(config.seed), method.agent.world)
        with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
            newest = max(checkpoints.steps, default=0)
            step, state, _ = checkpoints.restore(like, settings.checkpoint)
    policies = evaluate_method(problem, method, state, config.seed, settings.users_per_batch or USERS_PER_BATCH)
    print(f"{method.name}, nothing trained" if state is None else f"checkpoint of step {step} of {folder.path}")
    print(format_table(policies, problem))
    # The result of the newest checkpoint keeps its place.
    name = "eval" if step == newest else f"eval_step_{step}"
    write_evaluation(folder, problem, config.seed, step, policies, name)
    print(f"written: {name}.json, {name}.npz")


if __name__ == "__main__":
    run_command(main)

"""Evaluates a run: `python -m tpgr_jax.evaluate run=RUN_FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.compute.compilation_cache import keep_compiled_programs
from harness.compute.devices import DevicesConfig, cores_as_devices
from harness.compute.vector_width import choose_vector_width
from harness.errors import UserError
from harness.runs.run_folder import RunFolder
from harness.settings import Count, CountOrZero, read_settings
from harness.training.stored_run import StoredRunConfig
from sim.envs.python_policy import PythonSettings, warn_if_changed
from tpgr_jax.budgets import evaluate_budgets
from tpgr_jax.evaluation import USERS_PER_BATCH, evaluate_method, format_table, print_lists, write_evaluation
from tpgr_jax.problem import Problem
from tpgr_jax.settings import RunConfig, devices_of, make_method, stored_problem


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StoredRunConfig):
    """What to evaluate (`conf/evaluate.yaml`)."""

    system: ClassVar[str] = "tpgr_jax"
    users_per_batch: Count | None
    devices_count: CountOrZero | None


@hydra_command("evaluate")
def main(composed: DictConfig) -> None:
    """Restores a run from its folder and prints the paper's four metrics beside those of simple baselines."""
    evaluate(read_settings(EvaluateConfig, composed))


def evaluate(settings: EvaluateConfig) -> None:
    """Evaluates one checkpoint of a run and writes `eval.json` and `eval.npz` into its folder.

    Without a choice of the checkpoint, the reading at each budget of the run is written as well.

    Raises:
        UserError: No run folder, or a group of them; no or damaged checkpoint, other data than the run was trained on.
    """
    keep_compiled_programs()
    choose_vector_width(settings.folder)
    devices = DevicesConfig(count=settings.devices_count)
    cores_as_devices(devices)
    folder = settings.folder
    config, problem = stored_problem(settings)
    if problem.for_use:
        raise UserError(
            "the run learned from all users (data.test_fraction=0), so there is nobody to test it with",
            where=str(folder.path),
            do="Train with data.test_fraction=0.2 to measure it.",
        )
    with devices_of(replace(config, devices=devices), problem.data.num_items):
        _evaluate_checkpoint(settings, config, problem, folder)


def _evaluate_checkpoint(settings: EvaluateConfig, config: RunConfig, problem: Problem, folder: RunFolder) -> None:
    if isinstance(config.agent, PythonSettings):
        config.agent.check_file()
    method = make_method(config, problem, folder)
    warn_if_changed(method.function, folder)
    step, state, suffix = (0, None, "") if method.agent is None else settings.restore(method.agent, config.seed)
    users_per_batch = settings.users_per_batch or USERS_PER_BATCH
    policies = evaluate_method(problem, method, state, config.seed, users_per_batch)
    print(f"{method.name}, nothing trained" if state is None else f"checkpoint of step {step} of {folder.path}")
    name = f"eval{suffix}"
    lists = write_evaluation(folder, problem, config.seed, step, policies, name, function=method.function)
    print(format_table(policies, problem))
    print_lists(lists)
    written = [name]
    if settings.checkpoint is None:
        written += evaluate_budgets(config, problem, method, folder, policies, users_per_batch)
    print(f"written: {', '.join(f'{name}.json, {name}.npz' for name in written)}")


if __name__ == "__main__":
    run_command(main)

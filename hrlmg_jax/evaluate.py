"""Tests a run online and offline: `python -m hrlmg_jax.evaluate run=RUN_FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.compute.compilation_cache import keep_compiled_programs
from harness.compute.vector_width import choose_vector_width
from harness.errors import UserError
from harness.settings import read_settings
from harness.training.stored_run import StoredRunConfig
from hrlmg_jax.evaluation.evaluate_run import Comparison
from hrlmg_jax.registry import build_method
from hrlmg_jax.sessions import refuse_old_log
from hrlmg_jax.settings import RunConfig, stored_problem
from sim.envs.python_policy import PythonSettings, warn_if_changed


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StoredRunConfig):
    """What to evaluate (`conf/evaluate_hrl_mg.yaml`)."""

    system: ClassVar[str] = "hrlmg_jax"
    actors: Literal["best", "last"]


@hydra_command("evaluate_hrl_mg")
def main(composed: DictConfig) -> None:
    """Restores a run from its folder and tests it beside simple baselines."""
    evaluate(read_settings(EvaluateConfig, composed))


def evaluate(settings: EvaluateConfig) -> None:
    """Tests one checkpoint of a run and writes the results into its folder.

    Raises:
        UserError: No run folder, or a group of them; no or damaged checkpoint, another log than the run was trained on.
    """
    # Is there something to test, with the same log?
    keep_compiled_programs()
    choose_vector_width(settings.folder)
    folder, values = settings.folder, settings.read_values()
    refuse_old_log(folder)
    config = read_settings(RunConfig, values)
    if config.data.for_use:
        raise UserError(
            "the run learned from the whole log (data.split=none), so there is nothing to test it with",
            where=str(folder.path),
            do="Train with data.split=day or quantile to measure it.",
        )
    problem = stored_problem(settings, config, values)
    if isinstance(config.agent, PythonSettings):
        config.agent.check_file()
    method = build_method(problem, config.agent)
    warn_if_changed(method.function, folder)
    comparison = Comparison(config, problem, method.function)
    if method.agent is None:
        comparison.test(method.best(None), config.seed, folder, 0)
        return
    # Test its actors.
    step, state, suffix = settings.restore(method.agent, config.seed)
    best = settings.actors == "best"
    tested = method.step_of_best(state) if best else step
    print(f"checkpoint of step {step} of {folder.path}: actors of step {tested}")
    suffix += "" if best else "_last"
    comparison.test(method.best(state) if best else method.newest(state), config.seed, folder, tested, suffix)
    print(f"written: online{suffix}.json, .npz, offline{suffix}.json, .npz")


if __name__ == "__main__":
    run_command(main)

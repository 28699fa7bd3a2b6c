"""Trains TPGR: `python -m tpgr_jax.train [+experiment=movielens] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import jax
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from harness.loop import Interruption, check_steps, run_training
from harness.metric_writer import read_rows
from harness.plots import plot_learning_curve
from harness.provenance import describe_environment
from harness.run_folder import RunFolder, discard_if_empty, plain_config, register_run_folder_resolver, write_json
from sim.command import run_command, task
from sim.errors import UserError
from sim.evaluation import Evaluation
from sim.settings import read_settings
from tpgr_jax.comparison import evaluate_opponents, format_table, make_evaluate, mean_metrics, write_evaluation
from tpgr_jax.settings import RunConfig
from tpgr_jax.system import (
    Problem,
    check_same_origin,
    make_agent,
    make_learner,
    make_problem,
    make_tree,
    record_origin,
)
from tpgr_jax.tree import ItemTree

RESUMABLE_KEYS = ("train.steps", "train.max_to_keep", "data.root", "data.cache", "data.path")


register_run_folder_resolver()  # conf/train.yaml needs it while Hydra composes


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="train")
@task
def main(composed: DictConfig) -> None:
    """Trains, or continues, a run and ends with its evaluation."""
    resume = composed.resume is not None
    folder = RunFolder(Path(str(composed.resume) if resume else HydraConfig.get().runtime.output_dir))
    try:
        with discard_if_empty(folder.path):
            if resume:
                values = _with_overrides(folder.read_config(), composed, HydraConfig.get().overrides.task)
            else:
                values = plain_config(composed)
                del values["resume"]
            train(values, folder, resume)
    except Interruption as stopped:
        print(f"{stopped}; continue with: python -m tpgr_jax.train resume={folder.path}", file=sys.stderr)
        raise SystemExit(128 + stopped.signal_number) from None


def train(values: dict[str, Any], folder: RunFolder, resume: bool) -> None:
    """Trains in a run folder from its newest checkpoint (or from the beginning) and evaluates the result.

    Args:
        values: The composed configuration without `resume`.
        folder: The run folder; a new one must not hold a run.
        resume: Whether the folder belongs to an earlier run.

    Raises:
        UserError: Impossible configuration, missing or damaged files, diverged training.
        Interruption: SIGINT or SIGTERM came; the state is saved.
    """
    config = read_settings(RunConfig, values)
    problem = make_problem(config)
    if not resume:
        values = _settled(values, config, problem)
        config = read_settings(RunConfig, values)
    with folder.locked():
        if not resume:
            folder.start(values)
        _train_in_folder(config, problem, folder, values if resume else None)


def _train_in_folder(config: RunConfig, problem: Problem, folder: RunFolder, resumed: dict[str, Any] | None) -> None:
    """Does the work of `train`; `resumed` is the configuration that a resumed run goes on with."""
    if not folder.provenance.exists():
        record_origin(config, problem, folder)
    record = check_same_origin(problem, folder)
    if resumed is not None:
        check_steps(config.train, folder)
        folder.write_config(resumed)
        history = [*record.get("resumed", []), describe_environment()]
        write_json(folder.provenance, {**record, "resumed": history})
    tree = make_tree(config, problem, folder)
    learner, world = make_learner(config, problem, tree)
    _announce(config, problem, tree, folder)
    greedy = make_evaluate(config, problem, learner, world, explore=False)
    state = run_training(
        make_agent(config, problem, learner, world),
        config.train,
        folder,
        jax.random.key(config.seed),
        lambda state: mean_metrics(greedy(state)),
        {"data": problem.data.name, "synthetic": problem.data.synthetic},
    )
    sampled = make_evaluate(config, problem, learner, world, explore=True)
    policies = {"tpgr": greedy(state), "tpgr_sampled": sampled(state), **evaluate_opponents(config, problem)}
    print(format_table(policies, problem, config))
    write_evaluation(folder, config, problem, int(state.step), policies)
    _plot(config, problem, folder, policies)
    print(f"run folder: {folder.path}")


def _settled(values: dict[str, Any], config: RunConfig, problem: Problem) -> dict[str, Any]:
    """Returns the configuration with the data that were found, so that the run can be repeated when more is there."""
    data = {**values["data"], "offline_fallback": False}
    for key in ("path", "root", "cache"):
        if data[key] is not None:  # the run may be resumed or evaluated from another folder
            data[key] = str(Path(data[key]).expanduser().absolute())
    if problem.data.synthetic and config.data.reader != "synthetic":
        data |= {
            "name": problem.data.name,
            "reader": "synthetic",
            "size": config.data.fallback_size,
            "rating_min": None,
            "rating_max": None,
        }
    return {**values, "data": data}


def _with_overrides(values: dict[str, Any], composed: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Applies what may change in a resumed run; anything else would make it another run."""
    config = OmegaConf.create(values)
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key in RESUMABLE_KEYS:
            OmegaConf.update(config, key, OmegaConf.select(composed, key))
        elif key != "resume":
            raise UserError(
                f"{override} cannot be combined with resume, which continues a run with its own configuration",
                do=f"Leave it out (only {', '.join(RESUMABLE_KEYS)} may change), or start a new run.",
            )
    return plain_config(config)


def _announce(config: RunConfig, problem: Problem, tree: ItemTree, folder: RunFolder) -> None:
    data = problem.data
    kind = " (SYNTHETIC)" if data.synthetic else ""
    print(
        f"{data.name}{kind}: {len(problem.train_users):,} training and {len(problem.test_users):,} test users, "
        f"{data.num_items:,} items; ratings on the device: {problem.env_params.ratings.nbytes / 1e6:,.1f} MB\n"
        f"tree: depth {tree.depth}, {tree.num_children} children, {tree.num_internal:,} policy networks; "
        f"device: {jax.devices()[0].device_kind}; run folder: {folder.path}",
        file=sys.stderr,
    )


def _plot(config: RunConfig, problem: Problem, folder: RunFolder, policies: dict[str, Evaluation]) -> None:
    kind = " (SYNTHETIC)" if problem.data.synthetic else ""
    references = {name: mean_metrics(policies[name])["reward"] for name in ("random", "popularity", "best_fixed_list")}
    title = f"TPGR on {problem.data.name}{kind}, alpha {config.env.alpha:g}, seed {config.seed}"
    plot_learning_curve(folder.path / "learning_curve.png", read_rows(folder.metrics), title, references)


if __name__ == "__main__":
    run_command(main)

"""Trains TPGR: `python -m tpgr_jax.train [+experiment=movielens] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import hydra
import jax
from omegaconf import DictConfig

from harness.devices import device_mesh
from harness.loop import run_training
from harness.members import Member
from harness.metric_writer import read_rows
from harness.plots import Curve, Panel, plot_curves
from harness.results import means
from harness.run_folder import RunFolder, register_run_folder_resolver
from harness.seeds import Run, name_folders
from harness.training_command import opened_runs, start_or_resume, with_absolute_places
from sim.command import run_command, task
from sim.evaluation import Evaluation
from sim.settings import read_settings
from tpgr_jax.comparison import (
    Evaluate,
    by_name,
    evaluate_opponents,
    format_table,
    make_evaluate,
    write_evaluation,
)
from tpgr_jax.reinforce import LearnerState, Reinforce, World
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

register_run_folder_resolver()  # conf/train.yaml needs it while Hydra composes


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="train")
@task
def main(composed: DictConfig) -> None:
    """Trains, or continues, a run and ends with its evaluation."""
    start_or_resume(composed, "tpgr_jax.train", train, per_seed=("tree.seed",))


def train(runs: list[Run], resume: bool) -> None:
    """Trains runs together, from their newest checkpoint (or from the beginning), and evaluates the results.

    Args:
        runs: One, or those of several seeds; alike in all but seed and tree.seed.
        resume: Whether the folders belong to earlier runs; a new run's folder must not hold a run.

    Raises:
        UserError: Impossible configuration, missing or damaged files, diverged training.
        Interruption: SIGINT or SIGTERM came; the states are saved.
    """
    config = read_settings(RunConfig, runs[0].values)
    problem = make_problem(config)
    if not resume:
        runs = [Run(_settled(run.values, config, problem), run.folder) for run in runs]
    configs = [read_settings(RunConfig, run.values) for run in runs]
    origin = partial(record_origin, configs[0], problem), partial(check_same_origin, configs[0], problem)
    mesh = device_mesh(
        config.devices, config.train.episodes_per_step, "train.episodes_per_step", config.agent.policy.head_shards
    )
    with opened_runs(runs, resume, config.train, *origin), mesh:
        _train_in_folders(configs, problem, [run.folder for run in runs])


def _train_in_folders(configs: list[RunConfig], problem: Problem, folders: list[RunFolder]) -> None:
    seeds = [_Seed.of(config, problem, folder) for config, folder in zip(configs, folders, strict=True)]
    _announce(problem, seeds)
    members = [
        Member(
            make_agent(seed.config, problem, seed.learner, seed.world),
            seed.folder,
            jax.random.key(seed.config.seed),
            seed.test,
        )
        for seed in seeds
    ]
    labels = {"data": problem.data.name, "synthetic": problem.data.synthetic}
    states = run_training(members, configs[0].train, labels)
    for seed, state in zip(seeds, states, strict=True):
        _evaluate_in_folder(seed, problem, state)


@dataclass(frozen=True)
class _Seed:
    """What belongs to one seed; `greedy` evaluates its policy."""

    config: RunConfig
    folder: RunFolder
    tree: ItemTree
    learner: Reinforce
    world: World
    greedy: Evaluate

    @classmethod
    def of(cls, config: RunConfig, problem: Problem, folder: RunFolder) -> _Seed:
        """Builds it, with the tree of the folder if there is one."""
        tree = make_tree(config, problem, folder)
        learner, world = make_learner(config, problem, tree)
        greedy = make_evaluate(config, problem, learner, world, explore=False)
        return cls(config, folder, tree, learner, world, greedy)

    def test(self, state: LearnerState) -> dict[str, float]:
        """Returns the mean metrics of the greedy policy on the test users."""
        return {f"test_{name}": value for name, value in means(by_name(self.greedy(state))).items()}


def _evaluate_in_folder(seed: _Seed, problem: Problem, state: LearnerState) -> None:
    config, folder = seed.config, seed.folder
    sampled = make_evaluate(config, problem, seed.learner, seed.world, explore=True)
    policies = {"tpgr": seed.greedy(state), "tpgr_sampled": sampled(state), **evaluate_opponents(config, problem)}
    print(format_table(policies, problem, config))
    write_evaluation(folder, config, problem, int(state.step), policies)
    _plot(config, problem, folder, policies)
    print(f"run folder: {folder.path}")


def _settled(values: dict[str, Any], config: RunConfig, problem: Problem) -> dict[str, Any]:
    """Returns the configuration with the data that were found, so that the run can be repeated when more is there."""
    data = {**with_absolute_places(values["data"]), "offline_fallback": False}
    if problem.data.synthetic and config.data.reader != "synthetic":
        data |= {
            "name": problem.data.name,
            "reader": "synthetic",
            "size": config.data.fallback_size,
            "rating_min": None,
            "rating_max": None,
        }
    return {**values, "data": data}


def _announce(problem: Problem, seeds: list[_Seed]) -> None:
    data, tree = problem.data, seeds[0].tree
    kind = " (SYNTHETIC)" if data.synthetic else ""
    print(
        f"{data.name}{kind}: {len(problem.train_users):,} training and {len(problem.test_users):,} test users, "
        f"{data.num_items:,} items; ratings on the device: {problem.env_params.ratings.nbytes / 1e6:,.1f} MB\n"
        f"tree: depth {tree.depth}, {tree.num_children} children, {tree.num_internal:,} policy networks; "
        f"device: {jax.devices()[0].device_kind}; {name_folders([seed.folder for seed in seeds])}",
        file=sys.stderr,
    )


def _plot(config: RunConfig, problem: Problem, folder: RunFolder, policies: dict[str, Evaluation]) -> None:
    kind = " (SYNTHETIC)" if problem.data.synthetic else ""
    references = {
        name: means(by_name(policies[name]))["reward"] for name in ("random", "popularity", "best_fixed_list")
    }
    title = f"TPGR on {problem.data.name}{kind}, alpha {config.env.alpha:g}, seed {config.seed}"
    rewards = [
        Curve("reward", "training episodes (sampled)", {"alpha": 0.5}),
        Curve("test_reward", "test users (greedy)", {"marker": "."}),
    ]
    rows = read_rows(folder.metrics)
    levels = sorted({name for row in rows for name in row if name.startswith("entropy_")})
    entropies = [Curve(name, f"level {name.removeprefix('entropy_')}") for name in levels]
    panels = [Panel("reward per recommendation", rewards, references, 2.0), Panel("entropy (nats)", entropies)]
    plot_curves(folder.path / "learning_curve.png", rows, title, "episodes", panels)


if __name__ == "__main__":
    run_command(main)

"""Trains TPGR, or a method it is compared with: `python -m tpgr_jax.train [+experiment=movielens] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.compute.devices import describe_devices
from harness.compute.processes import is_first_process
from harness.errors import UserError
from harness.phases import Phases
from harness.reports.plots import Curve, Panel, plot_curves
from harness.reports.results import means
from harness.runs.index import newest_checkpoint
from harness.runs.metric_writer import read_rows
from harness.runs.provenance import add_to_record
from harness.runs.run_folder import RunFolder, register_run_folder_resolver
from harness.runs.seeds import Run, name_folders
from harness.runs.tracking import check_logger
from harness.settings import read_settings
from harness.training.budgets import SELECTION
from harness.training.command import opened_runs, say_what_comes_next, start_or_resume, with_absolute_places
from harness.training.from_python import call_module
from harness.training.loop import run_training
from harness.training.parallel_seeds import SeedRun
from sim.datasets.items import items_of_run, write_items
from sim.datasets.ratings import load_dataset
from sim.envs.python_policy import RECORDED
from sim.files.log_parts import with_log_parts
from sim.tables.plausibility import rating_warnings
from sim.tables.ratings import RatingData
from sim.tables.summary import aligned, rating_summary, summary_rows
from tpgr_jax.budgets import evaluate_budgets
from tpgr_jax.evaluation import (
    REFERENCES,
    by_name,
    evaluate_method,
    format_table,
    make_evaluate,
    print_lists,
    write_evaluation,
)
from tpgr_jax.methods import Method
from tpgr_jax.problem import Problem, make_problem, origin_of
from tpgr_jax.settings import RunConfig, devices_of, earlier_run_of, make_method

PER_SEED = ("tree.seed",)  # may differ between seeds that train together
register_run_folder_resolver()  # conf/train.yaml needs it while Hydra composes
call_module(__name__, "tpgr_jax.from_python:train")


@hydra_command("train")
def main(composed: DictConfig) -> None:
    """Trains, or continues, a run and ends with its evaluation."""
    start_or_resume(composed, "tpgr_jax.train", train, PER_SEED)


def train(runs: list[Run], resume: bool, phases: Phases) -> None:
    """Trains runs together, from their newest checkpoint (or from the beginning), and evaluates the results.

    Args:
        runs: One, or those of several seeds; alike in all but seed and tree.seed.
        resume: Whether the folders belong to earlier runs; a new run's folder must not hold a run.
        phases: Counts the time.

    Raises:
        UserError: Impossible configuration, missing or damaged files, diverged training.
        Interruption: SIGINT or SIGTERM came; the states are saved.
    """
    if not resume:
        runs = with_log_parts(runs)  # before it is read: a log may grow meanwhile
    config = read_settings(RunConfig, runs[0].values)
    check_logger(config.logger)
    with phases.phase("data"):
        read = load_dataset(config.data)
        try:
            problem = make_problem(config.data, config.env, read)
        except UserError:  # which what was understood may explain
            _say_what_was_understood(read, config.data.hits_above)
            raise
    _say_what_was_understood(read, config.data.hits_above, problem.reward_of_code > 0)
    if not resume:
        runs = [Run(_with_found_data(run.values, config, problem), run.folder) for run in runs]
    data, folders = problem.data, [run.folder for run in runs]
    items = items_of_run(config.items, config.data, data.item_ids, data.synthetic, [each.path for each in folders])
    configs = [read_settings(RunConfig, run.values) for run in runs]
    with (
        devices_of(config, problem.data.num_items),
        opened_runs(runs, resume, config.train, origin_of(problem), phases) as begin,
    ):
        write_items(items, [each.path for each in folders])
        _train_in_folders(configs, problem, folders, phases, begin)


def _train_in_folders(
    configs: list[RunConfig],
    problem: Problem,
    folders: list[RunFolder],
    phases: Phases,
    begin: Callable[[], None],
) -> None:
    with phases.phase("method"):
        # Only where training begins: later, the earlier run may be gone.
        begun = all(newest_checkpoint(folder) for folder in folders)
        earlier = None if begun else earlier_run_of(configs[0], problem, folders[0])
        methods = [
            make_method(config, problem, folder, earlier) for config, folder in zip(configs, folders, strict=True)
        ]
    _announce(problem, methods[0], folders)
    if earlier is not None:
        print(earlier.description, file=sys.stderr)
    facts = {"init_from": earlier and earlier.record, RECORDED: methods[0].function}
    for folder in folders if is_first_process() else []:
        add_to_record(folder, {name: fact for name, fact in facts.items() if fact is not None})
    seed_runs = _seed_runs(configs, problem, methods, folders)
    if seed_runs:
        labels = {"data": problem.data.name, "synthetic": problem.data.synthetic}
        states = run_training(seed_runs, configs[0].train, labels, configs[0].logger, phases, begin)
    else:
        begin()
        states = [None] * len(methods)
    for config, method, folder, state in zip(configs, methods, folders, states, strict=True):
        if problem.for_use:
            _end_untested(problem, method, config.seed, folder)
            continue
        with phases.phase("final evaluation"):
            policies = evaluate_method(problem, method, state, config.seed)
        step = 0 if state is None else int(state.step)
        lists = write_evaluation(folder, problem, config.seed, step, policies, function=method.function)
        print(format_table(policies, problem))
        print_lists(lists)
        with phases.phase("final evaluation"):
            evaluate_budgets(config, problem, method, folder, policies)
        if method.agent is not None:
            references = {name: means(by_name(policies[name]))["reward"] for name in REFERENCES}
            _plot(problem, config.seed, folder, method.name, references)
        say_what_comes_next("tpgr_jax", folder)


def _end_untested(problem: Problem, method: Method, seed: int, folder: RunFolder) -> None:
    everybody = len(problem.train_users) + len(problem.selection_users)
    print(f"{method.name}: learned from all {everybody:,} users, which leaves nobody to test (data.test_fraction=0)")
    if method.agent is not None:
        _plot(problem, seed, folder, method.name, {})
    say_what_comes_next("tpgr_jax", folder)


def _seed_runs(
    configs: list[RunConfig], problem: Problem, methods: list[Method], folders: list[RunFolder]
) -> list[SeedRun]:
    """Returns what trains; nothing for methods without training."""
    return [
        SeedRun(method.agent, folder, jax.random.key(config.seed), _test(problem, method, config.seed))
        for config, method, folder in zip(configs, methods, folders, strict=True)
        if method.agent is not None
    ]


def _test(problem: Problem, method: Method, seed: int) -> Callable[[Any], dict[str, float]]:
    """Returns `state -> mean metrics` of the greedy policy on the test users and on those who choose, if any."""
    greedy = {} if problem.for_use else {"test_": make_evaluate(problem, method, seed, explore=False)}
    if len(problem.selection_users):
        choosing = replace(problem, test_users=problem.selection_users)
        greedy[SELECTION] = make_evaluate(choosing, method, seed, explore=False)
    return lambda state: {
        f"{group}{name}": value
        for group, evaluate in greedy.items()
        for name, value in means(by_name(evaluate(state))).items()
    }


def _with_found_data(values: dict[str, Any], config: RunConfig, problem: Problem) -> dict[str, Any]:
    """Returns the configuration with the data that were found, so that the run can be repeated when more is there."""
    data = {**with_absolute_places(values["data"]), "offline_fallback": False}
    if problem.data.synthetic and config.data.falls_back:
        data |= {
            "name": problem.data.name,
            "reader": "synthetic",
            "size": config.data.fallback_size,
            "rating_min": None,
            "rating_max": None,
        }
    return {
        **values,
        "data": data,
        "items": with_absolute_places(values.get("items", {})),
        "agent": with_absolute_places(values["agent"]),
        "tree": {**values["tree"], "path": _absolute(values["tree"].get("path"))},
        "init_from": _absolute(values.get("init_from")),
    }


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _say_what_was_understood(data: RatingData, relevant_above: float, positive: np.ndarray | None = None) -> None:
    """Prints what was read, and what about it is unlikely: as the files have it, before the training users' scale."""
    known = data, relevant_above, positive
    name = f"{data.name}{' (SYNTHETIC)' if data.synthetic else ''}"
    print(aligned([("data set", name), *summary_rows(rating_summary(*known))]), file=sys.stderr)
    for warning in rating_warnings(*known):
        print(f"warning: {warning}", file=sys.stderr)


def _announce(problem: Problem, method: Method, folders: list[RunFolder]) -> None:
    data = problem.data
    kind = " (SYNTHETIC)" if data.synthetic else ""
    tables = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.env_params))
    print(
        f"{data.name}{kind}: {len(problem.train_users):,} training and {len(problem.test_users):,} test users, "
        f"{data.num_items:,} items; tables on the device: {tables / 1e6:,.1f} MB\n"
        f"{method.description}; device: {describe_devices()}; {name_folders(folders)}",
        file=sys.stderr,
    )


def _plot(problem: Problem, seed: int, folder: RunFolder, method: str, references: dict[str, float]) -> None:
    kind = " (SYNTHETIC)" if problem.data.synthetic else ""
    title = f"{method} on {problem.data.name}{kind}, {problem.env_settings.description}, seed {seed}"
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

"""Trains HRL-MG: `python -m hrlmg_jax.train [+experiment=jdata] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import hydra
import jax
from omegaconf import DictConfig

from harness.devices import describe_devices, device_mesh
from harness.loop import run_training
from harness.members import Member
from harness.metric_writer import read_rows
from harness.phases import Phases
from harness.plots import Curve, Panel, plot_curves
from harness.run_folder import RunFolder, register_run_folder_resolver
from harness.seeds import Run, name_folders
from harness.tracking import check_logger
from harness.training_command import opened_runs, start_or_resume, with_absolute_places
from hrlmg_jax.comparison import compare, references
from hrlmg_jax.learner import HrlLearner, HrlState
from hrlmg_jax.online import make_validation
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.simulator import describe_log, kind_of
from hrlmg_jax.system import (
    Problem,
    check_same_origin,
    load_data,
    make_agent,
    make_learner,
    make_problem,
    record_origin,
)
from sim.command import run_command, task
from sim.settings import read_settings

register_run_folder_resolver()  # conf/train_hrl_mg.yaml needs it while Hydra composes


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="train_hrl_mg")
@task
def main(composed: DictConfig) -> None:
    """Trains, or continues, a run and ends with its tests."""
    start_or_resume(composed, "hrlmg_jax.train", train)


def train(runs: list[Run], resume: bool, phases: Phases) -> None:
    """Trains runs together, from their newest checkpoint (or from the beginning), and tests the results.

    Args:
        runs: One, or those of several seeds; alike in all but seed.
        resume: Whether the folders belong to earlier runs; a new run's folder must not hold a run.
        phases: Counts the time.

    Raises:
        UserError: Impossible configuration, missing or damaged files, diverged training.
        Interruption: SIGINT or SIGTERM came; the states are saved.
    """
    configs = [read_settings(RunConfig, run.values) for run in runs]
    check_logger(configs[0].logger)
    with phases.phase("data"):
        data = load_data(configs[0])
    if not resume:
        runs = [Run({**run.values, "data": with_absolute_places(run.values["data"])}, run.folder) for run in runs]
    origin = partial(record_origin, data), partial(check_same_origin, data)
    with opened_runs(runs, resume, configs[0].train, *origin, phases) as begin:
        with phases.phase("simulator"):
            problems = [
                make_problem(config, run.values, data, run.folder) for config, run in zip(configs, runs, strict=True)
            ]
        with device_mesh(configs[0].devices, configs[0].agent.learner.sessions, "agent.learner.sessions"):
            _train_in_folders(configs, runs, problems[0], phases, begin)


def _train_in_folders(
    configs: list[RunConfig], runs: list[Run], problem: Problem, phases: Phases, begin: Callable[[], None]
) -> None:
    data = problem.data
    learner, world = make_learner(configs[0], problem)
    keys = [jax.random.key(config.seed) for config in configs]
    folders = [run.folder for run in runs]
    _announce(configs[0], problem, learner, jax.eval_shape(learner.init, keys[0], world), folders)
    validate = make_validation(configs[0], problem, learner)
    agent = make_agent(configs[0], learner, world)
    members = [
        Member(agent, folder, key, lambda state: validate(learner.current_params(state, world)))
        for folder, key in zip(folders, keys, strict=True)
    ]
    labels = {"data": data.log.name, "synthetic": data.log.synthetic}
    states = run_training(members, configs[0].train, labels, configs[0].logger, phases, begin)
    for config, folder, state in zip(configs, folders, states, strict=True):
        params = learner.acting_params(state, world)
        with phases.phase("final evaluation"):
            played = compare(config, problem, learner, params, folder, int(state.best.step))
        _plot(config, problem, folder, references(config, played))
        print(f"run folder: {folder.path}")


def _announce(
    config: RunConfig, problem: Problem, learner: HrlLearner, state: HrlState, folders: list[RunFolder]
) -> None:
    data = describe_log(problem.data)
    starts = len(problem.data.first_rows("train"))
    replays = f"{state.low_replay.bytes_per_row} bytes per transition"
    if state.high_replay is not None:
        replays += f", {state.high_replay.bytes_per_row} per window"
    print(
        f"{data['name']}{kind_of(data)}: {data['events']:,} events, {data['users']:,} users, {data['catalogue']:,} "
        f"items to recommend; {starts:,} sessions to begin from\n"
        f"{config.agent.name}: {config.agent.learner.sessions} sessions side by side, replay {replays}; "
        f"device: {describe_devices()}; {name_folders(folders)}",
        file=sys.stderr,
    )


def _plot(config: RunConfig, problem: Problem, folder: RunFolder, opponents: dict[str, float]) -> None:
    data = describe_log(problem.data)
    title = f"{config.agent.name} on {data['name']}{kind_of(data)}, seed {config.seed}"
    rewards = [
        Curve("reward", "training sessions (exploring)", {"alpha": 0.5}),
        Curve("validation_reward", "held-out users (greedy)", {"marker": "."}),
    ]
    # References are played on test sessions of `evaluation.long` steps; training sessions may be of another length.
    same_length = config.env.episode_length == config.evaluation.long
    panels = [Panel("reward per session", rewards, opponents if same_length else {}, 2.0)]
    for level in ("high", "low"):
        if level == "low" or config.agent.goals.enabled:
            values = [Curve(f"{level}_q", "Q of what was done"), Curve(f"{level}_q_of_actor", "Q of the actor")]
            panels.append(Panel(f"{level} level: Q", values))
            panels.append(Panel(f"{level} level: loss", [Curve(f"{level}_critic_loss", "critic")]))
    panels.append(
        Panel(
            "share",
            [
                Curve("distinct_items", "distinct items at a step"),
                Curve("low_saturation", "saturated actions"),
                Curve("high_saturation", "saturated goals"),
                Curve("internal_reward", "internal reward"),
            ],
        )
    )
    plot_curves(folder.path / "learning_curve.png", read_rows(folder.metrics), title, "step", panels)


if __name__ == "__main__":
    run_command(main)

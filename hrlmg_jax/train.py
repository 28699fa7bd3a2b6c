"""Trains HRL-MG: `python -m hrlmg_jax.train [+experiment=jdata] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from omegaconf import DictConfig

from harness.commands.command import hydra_command, run_command
from harness.compute.devices import describe_devices, device_mesh
from harness.compute.processes import is_first_process
from harness.phases import Phases
from harness.reports.plots import Curve, Panel, plot_curves
from harness.reports.tables import kind_of
from harness.runs.index import newest_checkpoint
from harness.runs.metric_writer import read_rows
from harness.runs.provenance import add_to_record
from harness.runs.run_folder import RunFolder, register_run_folder_resolver
from harness.runs.seeds import Run, name_folders
from harness.runs.tracking import check_logger
from harness.settings import read_settings
from harness.training.command import opened_runs, say_what_comes_next, start_or_resume, with_absolute_places
from harness.training.from_python import call_module
from harness.training.loop import run_training
from harness.training.parallel_seeds import SeedRun
from hrlmg_jax.earlier_run import EarlierRun, read_earlier_run
from hrlmg_jax.evaluation.collapse import CollapseWatch, collapse_at_the_end
from hrlmg_jax.evaluation.evaluate_run import Comparison, references
from hrlmg_jax.evaluation.online import make_validation
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.methods import Method
from hrlmg_jax.problem import Problem, check_catalogue, load_data, make_problem, origin_of, shortened_sessions
from hrlmg_jax.registry import build_method
from hrlmg_jax.sessions import describe_log, refuse_old_log, row_labels, say_what_was_understood
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.quality import verdicts
from sim.datasets.items import items_of_run, write_items
from sim.datasets.sessions import SessionData
from sim.envs.python_policy import RECORDED
from sim.files.log_parts import with_log_parts

_TRUTH_NOTE = "; the true users answer"
register_run_folder_resolver()  # conf/train_hrl_mg.yaml needs it while Hydra composes
call_module(__name__, "hrlmg_jax.from_python:train")


@hydra_command("train_hrl_mg")
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
    for run in runs if resume else []:
        refuse_old_log(run.folder)
    if not resume:
        runs = with_log_parts(runs)  # before it is read: a log may grow meanwhile
    configs = [read_settings(RunConfig, run.values) for run in runs]
    check_logger(configs[0].logger)
    with phases.phase("data"):
        data = load_data(configs[0].fit())
    say_what_was_understood(data)
    if not resume:
        runs = _fitted_to(data, runs)
        configs = [read_settings(RunConfig, run.values) for run in runs]
    check_catalogue(data, configs[0].longest_session)
    log, folders = data.log, [run.folder.path for run in runs]
    items = items_of_run(configs[0].items, configs[0].data, log.item_ids, log.synthetic, folders)
    with opened_runs(runs, resume, configs[0].train, origin_of(data), phases) as begin:
        write_items(items, folders)
        with phases.phase("simulator"):
            # Only where training begins: later, the earlier run may be gone.
            begun = all(newest_checkpoint(run.folder) for run in runs)
            earlier = None if begun else _earlier_run(configs[0], data)
            problems = [
                make_problem(
                    config.fit(),
                    run.values,
                    data,
                    run.folder,
                    config.longest_session,
                    earlier,
                    config.second_fit(),
                )
                for config, run in zip(configs, runs, strict=True)
            ]
        with device_mesh(configs[0].devices, *_spread_over_devices(configs[0])):
            _train_in_folders(configs, runs, problems[0], phases, begin)


def _earlier_run(config: RunConfig, data: SessionData) -> EarlierRun | None:
    return None if config.init_from is None else read_earlier_run(config.init_from, config.agent.name, data.log)


def _fitted_to(data: SessionData, runs: list[Run]) -> list[Run]:
    """Returns new runs with absolute places and, in a small catalogue, shorter sessions."""
    shortened = shortened_sessions(runs[0].values, data.num_items)
    if shortened:
        changes = ", ".join(f"{key}={value}" for key, value in shortened.items())
        print(f"notice: {changes}, half of the {data.num_items} items that can be recommended", file=sys.stderr)
    return [Run(_with_settings(run.values, shortened), run.folder) for run in runs]


def _with_settings(values: dict[str, Any], lengths: dict[str, int]) -> dict[str, Any]:
    values = values | {group: with_absolute_places(values[group]) for group in ("data", "items", "agent")}
    for dotted, length in lengths.items():
        group, _, key = dotted.partition(".")
        values[group] = {**values[group], key: length}
    if init_from := values.get("init_from"):
        values["init_from"] = str(Path(init_from).expanduser().absolute())
    return values


def _spread_over_devices(config: RunConfig) -> tuple[int, str]:
    """Returns how many sessions the devices share, and the setting that says so."""
    tested = config.evaluation.sessions_at_a_time, "evaluation.sessions_at_a_time"
    return config.agent.parallel_sessions or tested


def _train_in_folders(
    configs: list[RunConfig], runs: list[Run], problem: Problem, phases: Phases, begin: Callable[[], None]
) -> None:
    # Train, if there is something to.
    config, folders = configs[0], [run.folder for run in runs]
    method = build_method(problem, config.agent)
    for folder in folders if is_first_process() and method.function else []:
        add_to_record(folder, {RECORDED: method.function})
    keys = [jax.random.key(config.seed) for config in configs]
    if method.agent is None:
        _announce(problem, method.describe(None), folders)
        begin()
        states = [None] * len(runs)
    else:
        shapes = jax.eval_shape(method.agent.init, keys[0], method.agent.world)
        _announce(problem, method.describe(shapes), folders)
        validate = make_validation(config, problem)
        seed_runs = [
            SeedRun(method.agent, folder, key, _validation(validate, method.newest, CollapseWatch(folder)))
            for folder, key in zip(folders, keys, strict=True)
        ]
        labels = row_labels(problem.data.log)
        states = run_training(seed_runs, config.train, labels, config.logger, phases, begin)
    if not config.evaluation.final:
        return
    if config.data.for_use:
        for folder in folders:
            _end_untested(config, method, problem, folder)
        return
    # Test the best networks beside the baselines, draw the curves, warn of a collapse.
    comparison = Comparison(config, problem, method.function)
    for config, folder, state in zip(configs, folders, states, strict=True):
        with phases.phase("final evaluation"):
            played = comparison.test(method.best(state), config.seed, folder, method.step_of_best(state))
        if method.agent is not None:
            rows = read_rows(folder.metrics)
            _plot(config, problem, folder, rows, references(played))
            if warning := collapse_at_the_end(rows):
                print(f"WARNING: {warning}", file=sys.stderr)
        for warning in _verdicts(problem):
            print(f"WARNING: {warning}", file=sys.stderr)
        say_what_comes_next("hrlmg_jax", folder)


def _end_untested(config: RunConfig, method: Method, problem: Problem, folder: RunFolder) -> None:
    print(f"{config.agent.name}: learned from the whole log, which leaves nothing to test (data.split=none)")
    if method.agent is not None:
        _plot(config, problem, folder, read_rows(folder.metrics), {})
    say_what_comes_next("hrlmg_jax", folder)


def _validation(
    validate: Callable[[EvaluationPolicy], dict[str, float]],
    newest: Callable[[Any], EvaluationPolicy],
    watch: CollapseWatch,
) -> Callable[[Any], dict[str, float]]:
    def evaluate(state: Any) -> dict[str, float]:
        metrics = validate(newest(state))
        watch.look_at(metrics)
        return metrics

    return evaluate


def _announce(problem: Problem, description: str, folders: list[RunFolder]) -> None:
    data = describe_log(problem.data)
    starts = len(problem.data.first_rows("train"))
    print(
        f"{data['name']}{kind_of(data)}: {data['events']:,} events, {data['users']:,} users, {data['catalogue']:,} "
        f"items to recommend; {starts:,} sessions to begin from{_TRUTH_NOTE if problem.truth else ''}\n"
        f"{description}; device: {describe_devices()}; {name_folders(folders)}",
        file=sys.stderr,
    )
    if problem.earlier is not None:
        print(problem.earlier.description, file=sys.stderr)
        for folder in folders if is_first_process() else []:
            add_to_record(folder, {"init_from": problem.earlier.record})
    for warning in _verdicts(problem):
        print(f"warning: {warning}", file=sys.stderr)


def _verdicts(problem: Problem) -> list[str]:
    """Returns why the users who answer should not be trusted; those who wrote the log should."""
    return [] if problem.truth else verdicts(problem.simulator.report)


def _plot(
    config: RunConfig, problem: Problem, folder: RunFolder, rows: list[dict[str, Any]], baselines: dict[str, float]
) -> None:
    data = describe_log(problem.data)
    title = f"{config.agent.name} on {data['name']}{kind_of(data)}, seed {config.seed}"
    rewards = [
        Curve("reward", "training sessions (exploring)", {"alpha": 0.5}),
        Curve("validation_reward", "held-out users (greedy)", {"marker": "."}),
    ]
    # References are played on test sessions of `evaluation.long` steps; training sessions may be of another length.
    same_length = config.env.episode_length == config.evaluation.long
    panels = [Panel("reward per session", rewards, baselines if same_length else {}, 2.0)]
    for level in ("high", "low"):
        if any(f"{level}_q" in row for row in rows):
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
                Curve("intrinsic_reward", "intrinsic reward"),
            ],
        )
    )
    plot_curves(folder.path / "learning_curve.png", rows, title, "step", panels)


if __name__ == "__main__":
    run_command(main)

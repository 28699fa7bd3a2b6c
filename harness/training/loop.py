"""The outer loop of every run: compiled chunks of training steps, then logging, evaluation and checkpoints."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
from tqdm import tqdm

from harness.compute.devices import place
from harness.compute.memory import return_free_memory, size_of
from harness.compute.processes import agreed, agreed_seconds, is_first_process, meet
from harness.compute.quick_compilation import quick_compilation
from harness.compute.sharding import num_shards, on_every_device
from harness.errors import UserError
from harness.interruption import StopRequest
from harness.phases import Phases
from harness.reports.results import means
from harness.runs.checkpoint import Checkpoints, JointCheckpoints
from harness.runs.metric_writer import MetricWriter, read_rows
from harness.runs.run_folder import RunFolder
from harness.runs.tracking import FILES, LoggerConfig, tracking
from harness.settings import Count, SettingError
from harness.training.agent import Agent
from harness.training.budgets import BudgetsConfig, Costs, Spent, counted_steps
from harness.training.parallel_seeds import SeedRun, call_for_each, split_worlds


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train and how often to log, evaluate and checkpoint, in steps (`conf/train/default.yaml`)."""

    steps: Count
    log_every: Count
    evaluate_every: Count
    checkpoint_every: Count
    max_to_keep: Count
    budgets: BudgetsConfig = field(default=BudgetsConfig(), kw_only=True)

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the key."""
        for key in ("evaluate_every", "checkpoint_every"):
            if getattr(self, key) % self.log_every:
                raise SettingError(
                    f".{key} is {getattr(self, key)}, not a multiple of .log_every ({self.log_every})",
                    do="Steps between two log points run as one compiled call; choose a multiple.",
                )

    def next_length(self, step: int) -> int:
        """Returns the steps of the chunk that begins after `step`; it ends at a log point, even of a resumed run."""
        return min(self.log_every - step % self.log_every, self.steps - step)


_LARGE_STATES = 2**28  # bytes, as many as compiling takes

DIVERGED = "training diverged"
"""How the message begins about metrics that are not finite."""


class Interruption(Exception):
    """The run was asked to stop and has saved its state."""

    def __init__(self, signal_number: int, step: int) -> None:
        """Keeps the signal and the step of the checkpoint."""
        self.signal_number, self.step = signal_number, step
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")


def _train_chunk(
    train_step: Callable[..., Any],
    partition: Callable[[Any], Any],
    states: list[Any],
    shared: Any,
    per_seed: Any,
    length: int,
) -> tuple[list[Any], list[Any]]:
    """Trains every seed for `length` steps; returns the states and metrics [length] by name."""

    def train(state: Any, world: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda state, _: train_step(state, world), state, None, length=length)

    trained = call_for_each(train, states, shared, per_seed)
    return _placed([state for state, _ in trained], partition), [on_every_device(metrics) for _, metrics in trained]


@cache
def _compiled_chunk(few_steps: bool) -> Any:
    """Returns `_train_chunk` compiled for agents with few steps or many."""
    options = quick_compilation() if few_steps else {}
    return jax.jit(_train_chunk, static_argnums=(0, 1, 5), donate_argnums=(2,), compiler_options=options)


@partial(jax.jit, static_argnums=1)
def _placed(states: list[Any], partition: Callable[[Any], Any]) -> list[Any]:
    """Distributes the states over the devices.

    Their types are made strong: a state that begins with weakly typed numbers (as of `jnp.full(3, 0.0)`) has others
    after the first chunk, which would be compiled once more for them.
    """
    states = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), states)
    return [place(state, partition(state)) for state in states]


def run_training(
    seed_runs: Sequence[SeedRun],
    schedule: ScheduleConfig,
    labels: dict[str, Any],
    logger: LoggerConfig = FILES,
    phases: Phases | None = None,
    begin: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Trains runs together up to `schedule.steps`, starting at the newest checkpoint that all of them have, if any.

    Each row of metrics holds the numbers of one run, except `seconds`: the wall time of fitting before the first step
    and of training, all runs together (without evaluation and checkpoints). `episodes_per_second` counts the episodes
    of one run in that time.

    Training steps are compiled ahead of that time, also in a resumed run. How long the next chunk takes is not known: a
    state is evaluated if that chunk, as slow as the slowest so far, would exceed a budget, and training goes on until
    not even the fastest would fit. So the last state within a budget is evaluated, unless the chunk after it is slower
    than all before; then the evaluation before it is the last that may count.

    Args:
        seed_runs: The runs, one per seed.
        schedule: When to log, evaluate and checkpoint. Training ends early when all runs are finished, or when every
            budget is spent; then the states that count within a budget (`budgets.counted_step`) keep their checkpoints.
        labels: Constants in every row of metrics.jsonl (which data, whether synthetic).
        logger: Where metrics go besides the run folders.
        phases: Records the time of start, training, evaluation and checkpoints; None: not recorded.
        begin: Called once the states are initialised or restored, just before training.

    Returns:
        The final state of each run.

    Raises:
        UserError: A metric is not finite; files cannot be written; a checkpoint does not fit.
        Interruption: SIGINT or SIGTERM came; the states are saved.
    """
    # Check the folders, and place the tables on the devices.
    for run in seed_runs:
        check_steps(schedule, run.folder)
    meet()  # no process may write before all have looked
    phases = phases or Phases()
    agent, budgets = seed_runs[0].agent, schedule.budgets
    shared, per_seed = split_worlds([run.agent.world for run in seed_runs])
    if num_shards() > 1:  # replicate once, not with every chunk
        shared, per_seed = jax.jit(on_every_device)((shared, per_seed))
    folders = [run.folder.checkpoints for run in seed_runs]
    with JointCheckpoints(folders, schedule.max_to_keep, bool(budgets.limits)) as checkpoints:
        # Initialise or restore.
        with phases.phase("start"):
            states, step, spent = _first_states(seed_runs, checkpoints, schedule, (shared, per_seed))
        history = [_rows_until(step, run) for run in seed_runs]
        with (
            ExitStack() as files,
            _progress_bar(None if budgets.limits else schedule.steps, step, len(seed_runs)) as bar,
            StopRequest() as stop,
        ):
            writing = seed_runs if is_first_process() else []  # other processes write nothing
            writers = [files.enter_context(MetricWriter(run.folder.metrics, step, labels)) for run in writing]
            logs = [files.enter_context(tracking(logger, run.folder, labels)) for run in writing]
            begin()
            all_spent = budgets.spent(_next_costs(schedule, agent, step, spent.seconds, spent.fastest))
            finished = _finished(seed_runs, states) or all_spent
            compiled = schedule.next_length(step)
            while step < schedule.steps and not finished:
                # Train one chunk.
                length, before = schedule.next_length(step), _costs(agent, step, spent.seconds if step else 0.0)
                if length != compiled:
                    with phases.phase("start"):
                        _compile(agent, states, (shared, per_seed), length)
                    compiled = length
                started = time.monotonic()
                with phases.phase("training"):
                    chunk = _compiled_chunk(agent.few_steps)
                    states, stacked = chunk(agent.train_step, agent.partition, states, shared, per_seed, length)
                    metrics = [means(of_run) for of_run in jax.device_get(stacked)]
                chunk_seconds = agreed_seconds(time.monotonic() - started)
                spent = spent.after(budgets.seconds_of(length, chunk_seconds), length)
                step += length
                _check_finite(seed_runs, metrics, step, checkpoints)

                # Evaluate.
                costs = _costs(agent, step, spent.seconds)
                at_fastest, at_slowest = (
                    _next_costs(schedule, agent, step, spent.seconds, pace) for pace in (spent.fastest, spent.slowest)
                )
                speed = {"episodes_per_second": length * agent.episodes_per_step / chunk_seconds}
                rows = [{**costs, **speed, **of_run} for of_run in metrics]
                evaluate = (
                    step == schedule.steps
                    or (budgets.evaluations is None and step % schedule.evaluate_every == 0)
                    or budgets.evaluation_due(before, costs)
                    or budgets.may_be_last(costs, at_slowest)
                )
                if evaluate:
                    with phases.phase("evaluation"):
                        states = _evaluated(seed_runs, states, rows)
                finished = (evaluate and _finished(seed_runs, states)) or budgets.spent(at_fastest)

                # Log.
                for writer, log, row in zip(writers, logs, rows, strict=False):
                    writer.write(step, row)
                    log(step, row)
                for of_run, row in zip(history, rows, strict=True):
                    of_run.append({"step": step, **row})
                bar.set_postfix_str(_summary(rows, agent.headline), refresh=False)
                bar.update(length)

                # Checkpoint. The signal is read once: it may arrive at any moment, and in only one of the processes.
                asked_to_stop = agreed(stop.signal_number or 0)
                at_end = step == schedule.steps or finished
                counts = bool(budgets.limits) and evaluate  # the state may come to count within a budget
                if step % schedule.checkpoint_every == 0 or at_end or asked_to_stop or counts:
                    with phases.phase("checkpoints"):
                        checkpoints.save(step, states, spent._asdict(), counted_steps(history, budgets))
                if asked_to_stop:
                    checkpoints.wait()
                    raise Interruption(asked_to_stop, step)
        checkpoints.wait()
        checkpoints.keep_newest(counted_steps(history, budgets, ended=True))
    return states


def _first_states(
    seed_runs: Sequence[SeedRun], checkpoints: JointCheckpoints, schedule: ScheduleConfig, worlds: tuple[Any, Any]
) -> tuple[list[Any], int, Spent]:
    """Returns the initial or restored states, the steps already done and what these took."""
    agent = seed_runs[0].agent
    initialise = jax.jit(agent.init, compiler_options=quick_compilation())  # runs once

    # The compiler's memory and large states are not held together.
    shapes = jax.eval_shape(
        lambda: _placed([agent.init(run.key, run.agent.world) for run in seed_runs], agent.partition)
    )
    length = schedule.next_length(max(checkpoints.steps, default=0))
    compiled = length if num_shards() == 1 and size_of(shapes) > _LARGE_STATES else None
    if compiled:
        _compile(agent, shapes, worlds, compiled)
        return_free_memory()

    # Initialise or restore; the first chunk is compiled while the host fits what training begins with.
    states = [initialise(run.key, run.agent.world) for run in seed_runs]
    states = jax.block_until_ready(_placed(states, agent.partition))
    if checkpoints.steps:
        step, states, loop = checkpoints.restore(states)
        print(f"resuming after step {step} of {schedule.steps}", file=sys.stderr)
        length = schedule.next_length(step)
        if length and length != compiled:
            _compile(agent, states, worlds, length)
        return states, step, Spent(loop["seconds"], loop.get("fastest", 0.0), loop.get("slowest", 0.0))
    checkpoints.start_over()
    if any(run.folder.metrics.exists() for run in seed_runs):
        print("no checkpoint yet: starting from the beginning", file=sys.stderr)
    length = schedule.next_length(0)
    alongside = length != compiled and schedule.budgets.seconds is None  # else it would slow down what counts
    compile_first_chunk = partial(_compile, agent, states, worlds, length)
    if length != compiled and not alongside:
        compile_first_chunk()
    with _meanwhile(compile_first_chunk) if alongside else nullcontext():
        started = time.monotonic()
        states = [run.agent.pretrain(state) for run, state in zip(seed_runs, states, strict=True)]
        seconds = agreed_seconds(time.monotonic() - started)
    return _placed(states, agent.partition), 0, Spent(seconds)


def _rows_until(step: int, run: SeedRun) -> list[dict[str, Any]]:
    rows = read_rows(run.folder.metrics) if step and run.folder.metrics.exists() else []
    return [row for row in rows if row["step"] <= step]


def _costs(agent: Agent, step: int, seconds: float) -> Costs:
    """Returns what budgets limit, by name."""
    return {"episodes": math.floor(step * agent.episodes_per_step), "seconds": seconds}


def _next_costs(schedule: ScheduleConfig, agent: Agent, step: int, seconds: float, step_seconds: float) -> Costs:
    """Returns the costs after the next chunk, if each of its steps takes `step_seconds`."""
    length = schedule.next_length(step)
    return _costs(agent, step + length, seconds + length * step_seconds)


def _compile(agent: Agent, states: list[Any], worlds: tuple[Any, Any], length: int) -> None:
    """Compiles a chunk, so that its first call need not."""
    chunk = _compiled_chunk(agent.few_steps)
    chunk.lower(agent.train_step, agent.partition, states, *worlds, length).compile()


@contextmanager
def _meanwhile(task: Callable[[], None]) -> Iterator[None]:
    """Runs a task in a thread while the block runs on the host, and waits for it."""
    mesh = jax.sharding.get_mesh()

    def run() -> None:
        with nullcontext() if mesh.empty else jax.set_mesh(mesh):  # a thread does not inherit the mesh
            task()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        yield
        running.exception()  # waits; an error of compilation is raised again by the first call


def _evaluated(seed_runs: Sequence[SeedRun], states: Sequence[Any], rows: Sequence[dict[str, float]]) -> list[Any]:
    """Evaluates every run, adds the metrics to its row, and returns the states after `after_evaluation`."""
    next_states = []
    for run, state, row in zip(seed_runs, states, rows, strict=True):
        result = run.evaluate(state)
        row |= result
        next_states.append(run.agent.after_evaluation(state, result))
    return next_states


def _finished(seed_runs: Sequence[SeedRun], states: Sequence[Any]) -> bool:
    return all(run.agent.finished(state) for run, state in zip(seed_runs, states, strict=True))


def check_steps(schedule: ScheduleConfig, folder: RunFolder) -> None:
    """Raises UserError if the run in the folder is already past the end of the schedule."""
    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        done = max(checkpoints.steps, default=0)
    if done > schedule.steps:
        raise UserError(
            f"train.steps is {schedule.steps}, the run has already done {done}", do=f"Give at least {done}."
        )


def _progress_bar(total: int | None, initial: int, number: int) -> Any:
    # A log file needs fewer updates than a terminal.
    return tqdm(
        total=total,
        initial=initial,
        desc=f"mean of {number} seeds" if number > 1 else None,
        unit="step",
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
        smoothing=0.1,
    )


def _summary(rows: Sequence[dict[str, float]], headline: str) -> str:
    """Returns the text of the progress bar: means over the runs."""
    row = {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}
    entropies = [f"{value:.2f}" for name, value in row.items() if name.startswith("entropy_")]
    parts = [f"{headline} {row[headline]:.4f}"]
    if entropies:
        parts.append(f"entropy {' '.join(entropies)}")
    if row["episodes"]:
        parts.append(f"{row['episodes_per_second']:,.0f} episodes/s")
    parts += [f"{name.replace('_', ' ')} {value:.4f}" for name, value in row.items() if name.endswith(f"_{headline}")]
    return ", ".join(parts)


def _check_finite(
    seed_runs: Sequence[SeedRun], metrics: Sequence[dict[str, float]], step: int, checkpoints: JointCheckpoints
) -> None:
    for run, of_run in zip(seed_runs, metrics, strict=True):
        broken = [name for name, value in of_run.items() if not math.isfinite(value)]
        if broken:
            checkpoints.wait()
            saved = checkpoints.steps
            last_good = f"step {saved[-1]}" if saved else "none"
            raise UserError(
                f"{DIVERGED}: {', '.join(broken)} not finite in the steps up to {step}",
                where=str(run.folder.path),
                do=f"Last good checkpoint: {last_good}. Lower the learning rate, then start a new run.",
            )

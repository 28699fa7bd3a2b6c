"""The outer loop of every run: compiled chunks of training steps, then logging, evaluation and checkpoints."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from tqdm import tqdm

from harness.devices import place
from harness.errors import UserError
from harness.interruption import StopRequest
from harness.phases import Phases
from harness.processes import agreed, is_first_process, meet
from harness.reports.results import means
from harness.runs.checkpoint import Checkpoints, JointCheckpoints
from harness.runs.metric_writer import MetricWriter
from harness.runs.run_folder import RunFolder
from harness.runs.tracking import FILES, LoggerConfig, tracking
from harness.settings import Count
from harness.sharding import num_shards, on_every_device
from harness.training.parallel_seeds import SeedRun, call_for_each, split_worlds


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train and how often to log, evaluate and checkpoint, in steps (`conf/train/default.yaml`)."""

    steps: Count
    log_every: Count
    evaluate_every: Count
    checkpoint_every: Count
    max_to_keep: Count

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the key."""
        for key in ("evaluate_every", "checkpoint_every"):
            if getattr(self, key) % self.log_every:
                raise UserError(
                    f"train.{key} is {getattr(self, key)}, not a multiple of train.log_every ({self.log_every})",
                    do="Steps between two log points run as one compiled call; choose a multiple.",
                )


class Interruption(Exception):
    """The run was asked to stop and has saved its state."""

    def __init__(self, signal_number: int, step: int) -> None:
        """Keeps the signal and the step of the checkpoint."""
        self.signal_number, self.step = signal_number, step
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")


@partial(jax.jit, static_argnums=(0, 1, 5), donate_argnums=(2,))
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


@partial(jax.jit, static_argnums=1)
def _placed(states: list[Any], partition: Callable[[Any], Any]) -> list[Any]:
    """Distributes the states over the devices."""
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

    Each row of metrics holds the numbers of one run, except `seconds`: the wall time of training all runs together
    (without evaluation and checkpoints). `episodes_per_second` counts the episodes of one run in that time.

    Args:
        seed_runs: The runs, one per seed.
        schedule: When to log, evaluate and checkpoint. Training ends early when all runs are finished.
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
    agent = seed_runs[0].agent
    shared, per_seed = split_worlds([run.agent.world for run in seed_runs])
    if num_shards() > 1:  # replicate once, not with every chunk
        shared, per_seed = jax.jit(on_every_device)((shared, per_seed))
    with JointCheckpoints([run.folder.checkpoints for run in seed_runs], schedule.max_to_keep) as checkpoints:
        # Initialise or restore.
        with phases.phase("start"):
            states, step, seconds = _first_states(seed_runs, checkpoints, schedule, (shared, per_seed))
        with (
            ExitStack() as files,
            _progress_bar(schedule.steps, step, len(seed_runs)) as bar,
            StopRequest() as stop,
        ):
            writing = seed_runs if is_first_process() else []  # other processes write nothing
            writers = [files.enter_context(MetricWriter(run.folder.metrics, step, labels)) for run in writing]
            logs = [files.enter_context(tracking(logger, run.folder, labels)) for run in writing]
            begin()
            finished = _finished(seed_runs, states)
            while step < schedule.steps and not finished:
                # Train one chunk; it ends at a multiple of log_every, even if the run was resumed in between.
                length = min(schedule.log_every - step % schedule.log_every, schedule.steps - step)
                started = time.monotonic()
                with phases.phase("training"):
                    states, stacked = _train_chunk(agent.train_step, agent.partition, states, shared, per_seed, length)
                    metrics = [means(of_run) for of_run in jax.device_get(stacked)]
                chunk_seconds = time.monotonic() - started
                seconds += chunk_seconds
                step += length
                _check_finite(seed_runs, metrics, step, checkpoints)

                # Evaluate.
                progress = {
                    "episodes": math.floor(step * agent.episodes_per_step),
                    "seconds": seconds,
                    "episodes_per_second": length * agent.episodes_per_step / chunk_seconds,
                }
                rows = [{**progress, **of_run} for of_run in metrics]
                if step % schedule.evaluate_every == 0 or step == schedule.steps:
                    with phases.phase("evaluation"):
                        states = _evaluated(seed_runs, states, rows)
                    finished = _finished(seed_runs, states)

                # Log.
                for writer, log, row in zip(writers, logs, rows, strict=False):
                    writer.write(step, row)
                    log(step, row)
                bar.set_postfix_str(_summary(rows, agent.headline), refresh=False)
                bar.update(length)

                # Checkpoint. The signal is read once: it may arrive at any moment, and in only one of the processes.
                asked_to_stop = agreed(stop.signal_number or 0)
                at_end = step == schedule.steps or finished
                if step % schedule.checkpoint_every == 0 or at_end or asked_to_stop:
                    with phases.phase("checkpoints"):
                        checkpoints.save(step, states, {"seconds": seconds})
                if asked_to_stop:
                    checkpoints.wait()
                    raise Interruption(asked_to_stop, step)
        checkpoints.wait()
    return states


def _first_states(
    seed_runs: Sequence[SeedRun], checkpoints: JointCheckpoints, schedule: ScheduleConfig, worlds: tuple[Any, Any]
) -> tuple[list[Any], int, float]:
    """Returns the initial or restored states, the steps already done and the seconds these took."""
    agent = seed_runs[0].agent
    initialise = jax.jit(agent.init)
    states = [initialise(run.key, run.agent.world) for run in seed_runs]
    states = jax.block_until_ready(_placed(states, agent.partition))
    if checkpoints.steps:
        step, states, loop = checkpoints.restore(states)
        print(f"resuming after step {step} of {schedule.steps}", file=sys.stderr)
        return states, step, loop["seconds"]
    checkpoints.start_over()
    if any(run.folder.metrics.exists() for run in seed_runs):
        print("no checkpoint yet: starting from the beginning", file=sys.stderr)
    length = min(schedule.log_every, schedule.steps)
    with _compiling_meanwhile(agent.train_step, agent.partition, states, *worlds, length):
        states = [run.agent.pretrain(state) for run, state in zip(seed_runs, states, strict=True)]
    return _placed(states, agent.partition), 0, 0.0


@contextmanager
def _compiling_meanwhile(*arguments: Any) -> Iterator[None]:
    """Compiles the first chunk in a thread while the block runs on the host, so that the first call need not wait."""
    mesh = jax.sharding.get_mesh()

    def compile_chunk() -> None:
        with nullcontext() if mesh.empty else jax.set_mesh(mesh):  # a thread does not inherit the mesh
            _train_chunk.lower(*arguments).compile()

    with ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(compile_chunk)
        yield
        compiling.exception()  # waits; an error is raised again by the call itself


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


def _progress_bar(total: int, initial: int, number: int) -> Any:
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
                f"training diverged: {', '.join(broken)} not finite in the steps up to {step}",
                where=str(run.folder.path),
                do=f"Last good checkpoint: {last_good}. Lower the learning rate, then start a new run.",
            )

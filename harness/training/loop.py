"""The outer loop of every run: compiled chunks of training steps, and between them log, evaluate, checkpoint."""

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

from harness.devices import agreed, is_first_process, meet, place
from harness.errors import UserError
from harness.interruption import StopRequest
from harness.phases import Phases
from harness.runs.checkpoint import Checkpoints, JointCheckpoints
from harness.runs.metric_writer import MetricWriter
from harness.runs.run_folder import RunFolder
from harness.runs.tracking import FILES, LoggerConfig, tracking
from harness.settings import Count
from harness.sharding import num_shards, on_every_device
from harness.training.parallel_seeds import Member, call_for_each, split_worlds


@dataclass(frozen=True)
class ScheduleConfig:
    """How long to train and what to do when (`conf/train/default.yaml`); all counted in training steps."""

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
        """Remembers the signal and the step of the checkpoint."""
        self.signal_number, self.step = signal_number, step
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")


@partial(jax.jit, static_argnums=(0, 1, 5), donate_argnums=(2,))
def _train_chunk(
    train_step: Callable[..., Any],
    partition: Callable[[Any], Any],
    states: list[Any],
    shared: Any,
    own: Any,
    length: int,
) -> tuple[list[Any], list[Any]]:
    """Trains every member for some steps; returns states, and metrics [length] by name."""

    def train(state: Any, world: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda state, _: train_step(state, world), state, None, length=length)

    trained = call_for_each(train, states, shared, own)
    return _placed([state for state, _ in trained], partition), [on_every_device(metrics) for _, metrics in trained]


@partial(jax.jit, static_argnums=1)
def _placed(states: list[Any], partition: Callable[[Any], Any]) -> list[Any]:
    """Lays states out over the devices."""
    return [place(state, partition(state)) for state in states]


def run_training(
    members: Sequence[Member],
    schedule: ScheduleConfig,
    labels: dict[str, Any],
    logger: LoggerConfig = FILES,
    phases: Phases | None = None,
    begin: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Trains members together to `schedule.steps`, from the newest checkpoint that all of them have if there is one.

    Metrics rows hold a member's own numbers, but for `seconds`: wall time of training, that of all members together
    (without evaluation and checkpoints). `episodes_per_second` are a member's own episodes in that time.

    Args:
        members: What trains, and where it is kept; one for an ordinary run.
        schedule: When to log, evaluate and checkpoint. Training ends early when all members are finished.
        labels: Constants that every row of metrics.jsonl carries (which data, whether synthetic).
        logger: Where metrics go besides the members' folders.
        phases: Counts the time of start, training, evaluation and checkpoints; None counts it nowhere.
        begin: Called when the states are there, also those of a resumed run, and training begins.

    Returns:
        The final state of each member.

    Raises:
        UserError: A metric is not finite; files cannot be written; a checkpoint does not fit.
        Interruption: SIGINT or SIGTERM came; the states are saved.
    """
    for member in members:
        check_steps(schedule, member.folder)
    meet("the folders are still as they were")  # before one process writes what another would take for an older state
    phases = phases or Phases()
    agent = members[0].agent
    shared, own = split_worlds([member.agent.world for member in members])
    if num_shards() > 1:  # once, and not with every chunk
        shared, own = jax.jit(on_every_device)((shared, own))
    with JointCheckpoints([member.folder.checkpoints for member in members], schedule.max_to_keep) as checkpoints:
        with phases.phase("start"):
            states, step, seconds = _first_states(members, checkpoints, schedule, (shared, own))
        with (
            ExitStack() as files,
            _progress_bar(schedule.steps, step, len(members)) as bar,
            StopRequest() as stop,
        ):
            writing = members if is_first_process() else []
            writers = [files.enter_context(MetricWriter(member.folder.metrics, step, labels)) for member in writing]
            logs = [files.enter_context(tracking(logger, member.folder, labels)) for member in writing]
            begin()
            finished = _finished(members, states)
            while step < schedule.steps and not finished:
                # Chunks end at multiples of log_every, also after a run that stopped in between.
                length = min(schedule.log_every - step % schedule.log_every, schedule.steps - step)
                started = time.monotonic()
                with phases.phase("training"):
                    states, stacked = _train_chunk(agent.train_step, agent.partition, states, shared, own, length)
                    metrics = [_means(of_member) for of_member in jax.device_get(stacked)]
                chunk_seconds = time.monotonic() - started
                seconds += chunk_seconds
                step += length
                _check_finite(members, metrics, step, checkpoints)
                progress = {
                    "episodes": math.floor(step * agent.episodes_per_step),
                    "seconds": seconds,
                    "episodes_per_second": length * agent.episodes_per_step / chunk_seconds,
                }
                rows = [{**progress, **of_member} for of_member in metrics]
                if step % schedule.evaluate_every == 0 or step == schedule.steps:
                    with phases.phase("evaluation"):
                        states = _evaluated(members, states, rows)
                    finished = _finished(members, states)
                for writer, log, row in zip(writers, logs, rows, strict=False):  # other processes have no writers
                    writer.write(step, row)
                    log(step, row)
                bar.set_postfix_str(_summary(rows, agent.headline), refresh=False)
                bar.update(length)
                # Read once: a signal may come at any moment. It may also come to one of several processes only.
                asked_to_stop = agreed(stop.signal_number or 0)
                last = step == schedule.steps or finished
                if step % schedule.checkpoint_every == 0 or last or asked_to_stop:
                    with phases.phase("checkpoints"):
                        checkpoints.save(step, states, {"seconds": seconds})
                if asked_to_stop:
                    checkpoints.wait()
                    raise Interruption(asked_to_stop, step)
        checkpoints.wait()
    return states


def _first_states(
    members: Sequence[Member], checkpoints: JointCheckpoints, schedule: ScheduleConfig, worlds: tuple[Any, Any]
) -> tuple[list[Any], int, float]:
    """Returns new or restored states, the steps done and the seconds that they took."""
    agent = members[0].agent
    initialise = jax.jit(agent.init)
    states = [initialise(member.key, member.agent.world) for member in members]
    states = jax.block_until_ready(_placed(states, agent.partition))
    if checkpoints.steps:
        step, states, loop = checkpoints.restore(states)
        print(f"resuming after step {step} of {schedule.steps}", file=sys.stderr)
        return states, step, loop["seconds"]
    checkpoints.start_over()
    if any(member.folder.metrics.exists() for member in members):
        print("no checkpoint yet: starting from the beginning", file=sys.stderr)
    length = min(schedule.log_every, schedule.steps)
    with _compiling_meanwhile(agent.train_step, agent.partition, states, *worlds, length):
        states = [member.agent.pretrain(state) for member, state in zip(members, states, strict=True)]
    return _placed(states, agent.partition), 0, 0.0


@contextmanager
def _compiling_meanwhile(*arguments: Any) -> Iterator[None]:
    """Compiles the first chunk in a thread while the block works on the host; the call that needs it finds it done."""
    mesh = jax.sharding.get_mesh()

    def compile_chunk() -> None:
        with nullcontext() if mesh.empty else jax.set_mesh(mesh):  # the ambient mesh is this thread's, not that one's
            _train_chunk.lower(*arguments).compile()

    with ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(compile_chunk)
        yield
        compiling.exception()  # waits; whatever is wrong with it comes again with the call


def _evaluated(members: Sequence[Member], states: Sequence[Any], rows: Sequence[dict[str, float]]) -> list[Any]:
    """Evaluates every member, adds what was found to its row, and returns the states after it."""
    following = []
    for member, state, row in zip(members, states, rows, strict=True):
        found = member.evaluate(state)
        row |= found
        following.append(member.agent.after_evaluation(state, found))
    return following


def _finished(members: Sequence[Member], states: Sequence[Any]) -> bool:
    return all(member.agent.finished(state) for member, state in zip(members, states, strict=True))


def check_steps(schedule: ScheduleConfig, folder: RunFolder) -> None:
    """Raises UserError if the run in the folder is already past the end of the schedule."""
    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        done = max(checkpoints.steps, default=0)
    if done > schedule.steps:
        raise UserError(
            f"train.steps is {schedule.steps}, the run has already done {done}", do=f"Give at least {done}."
        )


def _progress_bar(total: int, initial: int, number: int) -> Any:
    # Off a terminal, one line now and then is enough for a log file.
    return tqdm(
        total=total,
        initial=initial,
        desc=f"mean of {number} seeds" if number > 1 else None,
        unit="step",
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
        smoothing=0.1,
    )


def _means(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in metrics.items()}


def _summary(rows: Sequence[dict[str, float]], headline: str) -> str:
    """Returns what the progress bar shows: means over the members."""
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
    members: Sequence[Member], metrics: Sequence[dict[str, float]], step: int, checkpoints: JointCheckpoints
) -> None:
    for member, of_member in zip(members, metrics, strict=True):
        broken = [name for name, value in of_member.items() if not math.isfinite(value)]
        if broken:
            checkpoints.wait()
            saved = checkpoints.steps
            last_good = f"step {saved[-1]}" if saved else "none"
            raise UserError(
                f"training diverged: {', '.join(broken)} not finite in the steps up to {step}",
                where=str(member.folder.path),
                do=f"Last good checkpoint: {last_good}. Lower the learning rate, then start a new run.",
            )

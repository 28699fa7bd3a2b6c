"""The outer loop of every run: compiled chunks of training steps, and between them log, evaluate, checkpoint."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from tqdm import tqdm

from harness.agent import Agent
from harness.checkpoint import Checkpoints
from harness.interruption import StopRequest
from harness.metric_writer import MetricWriter
from harness.run_folder import RunFolder
from sim.errors import UserError
from sim.settings import Count


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


@partial(jax.jit, static_argnums=(0, 3), donate_argnums=(1,))
def _train_chunk(train_step: Callable[..., Any], state: Any, world: Any, length: int) -> tuple[Any, Any]:
    return jax.lax.scan(lambda state, _: train_step(state, world), state, None, length=length)


def run_training(
    agent: Agent,
    schedule: ScheduleConfig,
    folder: RunFolder,
    key: jax.Array,
    evaluate: Callable[[Any], dict[str, float]],
    labels: dict[str, Any],
) -> Any:
    """Trains to `schedule.steps`, from the newest checkpoint of the run folder if there is one.

    Args:
        agent: What trains.
        schedule: When to log, evaluate and checkpoint.
        folder: Where metrics and checkpoints go.
        key: Of a new run; a restored run keeps its own.
        evaluate: `state -> metrics` on held-out users, under names such as `test_reward`.
        labels: Constants that every row of metrics.jsonl carries (which data, whether synthetic).

    Returns:
        The final state.

    Raises:
        UserError: A metric is not finite; files cannot be written; a checkpoint does not fit.
        Interruption: SIGINT or SIGTERM came; the state is saved.
    """
    check_steps(schedule, folder)
    with Checkpoints(folder.checkpoints, schedule.max_to_keep) as checkpoints:
        state = jax.block_until_ready(jax.jit(agent.init)(key, agent.world))
        step, seconds = 0, 0.0
        if checkpoints.steps:
            step, state, loop = checkpoints.restore(state)
            seconds = loop["seconds"]
            print(f"resuming after step {step} of {schedule.steps}", file=sys.stderr)
        else:
            if folder.metrics.exists():
                print("no checkpoint yet: starting from the beginning", file=sys.stderr)
            state = agent.pretrain(state)
        with (
            MetricWriter(folder.metrics, step, labels) as writer,
            _progress_bar(schedule.steps, step) as bar,
            StopRequest() as stop,
        ):
            finished = agent.finished(state)
            while step < schedule.steps and not finished:
                # Chunks end at multiples of log_every, also after a run that stopped in between.
                length = min(schedule.log_every - step % schedule.log_every, schedule.steps - step)
                started = time.monotonic()
                state, stacked = _train_chunk(agent.train_step, state, agent.world, length)
                metrics = {name: float(values.mean()) for name, values in jax.device_get(stacked).items()}
                chunk_seconds = time.monotonic() - started
                seconds += chunk_seconds
                step += length
                _check_finite(metrics, step, checkpoints)
                episodes = length * agent.episodes_per_step
                row = {
                    "episodes": math.floor(step * agent.episodes_per_step),
                    "seconds": seconds,
                    "episodes_per_second": episodes / chunk_seconds,
                    **metrics,
                }
                if step % schedule.evaluate_every == 0 or step == schedule.steps:
                    found = evaluate(state)
                    row |= found
                    state = agent.after_evaluation(state, found)
                    finished = agent.finished(state)
                writer.write(step, row)
                bar.set_postfix_str(_summary(row, agent.headline), refresh=False)
                bar.update(length)
                asked_to_stop = stop.signal_number  # read once: a signal may come at any moment
                last = step == schedule.steps or finished
                if step % schedule.checkpoint_every == 0 or last or asked_to_stop is not None:
                    checkpoints.save(step, state, {"seconds": seconds})
                if asked_to_stop is not None:
                    checkpoints.wait()
                    raise Interruption(asked_to_stop, step)
        checkpoints.wait()
    return state


def check_steps(schedule: ScheduleConfig, folder: RunFolder) -> None:
    """Raises UserError if the run in the folder is already past the end of the schedule."""
    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        done = max(checkpoints.steps, default=0)
    if done > schedule.steps:
        raise UserError(
            f"train.steps is {schedule.steps}, the run has already done {done}", do=f"Give at least {done}."
        )


def _progress_bar(total: int, initial: int) -> Any:
    # Off a terminal, one line now and then is enough for a log file.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, initial=initial, unit="step", mininterval=interval, dynamic_ncols=True, smoothing=0.1)


def _summary(row: dict[str, float], headline: str) -> str:
    entropies = [f"{value:.2f}" for name, value in row.items() if name.startswith("entropy_")]
    parts = [f"{headline} {row[headline]:.4f}"]
    if entropies:
        parts.append(f"entropy {' '.join(entropies)}")
    if row["episodes"]:
        parts.append(f"{row['episodes_per_second']:,.0f} episodes/s")
    parts += [f"{name.replace('_', ' ')} {value:.4f}" for name, value in row.items() if name.endswith(f"_{headline}")]
    return ", ".join(parts)


def _check_finite(metrics: dict[str, float], step: int, checkpoints: Checkpoints) -> None:
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        checkpoints.wait()
        saved = checkpoints.steps
        last_good = f"step {saved[-1]}" if saved else "none"
        raise UserError(
            f"training diverged: {', '.join(broken)} not finite in the steps up to {step}",
            do=f"Last good checkpoint: {last_good}. Lower the learning rate, then start a new run.",
        )

"""Kills training at random moments, resumes it, and compares the end with that of a run left alone.

`python tests/kill_and_resume.py SYSTEM [--kills 30] [--seed 0]` with SYSTEM one of tpgr, tpgr_lazy (node networks that
are updated when they are visited), hrl_mg, dqn_r. A third of the kills come before the first step, a third while a
checkpoint is being written, a third at any moment; every other run is killed a second time after it was resumed.
Parameters and everything else in the last checkpoint, metrics and results of the evaluation have to be equal, bit for
bit.
"""

import argparse
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from command_lines import checkpoint_steps, metrics_without_times, parameters, run_module

STEPS = 40
_SAVE_SECONDS = 0.06  # that a checkpoint of these sizes takes
_SCHEDULE = [f"train.steps={STEPS}", "train.log_every=2", "train.evaluate_every=10", "train.checkpoint_every=2"]
_RATINGS = ["data.size=tiny", "env.episode_length=8", "agent.policy.hidden=[8]", "agent.policy.embedding_epochs=1"]
_LOG = ["data.size=tiny", "env.episode_length=12", "evaluation.long=12", "evaluation.short=6", "evaluation.sessions=24"]
_LOG += ["evaluation.validation_sessions=8", "evaluation.offline_sessions=16", "agent.goals.period=5"]
_LOG += [f"agent.network.{name}=4" for name in ("hidden_size", "state_size", "critic_width")]
_LOG += [f"agent.learner.{name}=8" for name in ("sessions", "batch_size", "high_batch_size", "warm_up_steps")]
_LOG += ["agent.learner.replay_capacity=64", "agent.learner.high_replay_capacity=16"]
_SIMULATOR = ["simulator=paper", *(f"simulator.network.{name}=4" for name in ("hidden_size", "state_size", "width"))]
_SIMULATOR += ["simulator.trial_sessions=0", "simulator.batch_size=64"]
_SIMULATOR += ["simulator.train.steps=20", "simulator.train.log_every=2"]
_SIMULATOR += ["simulator.train.evaluate_every=10", "simulator.train.checkpoint_every=2"]


class System(NamedTuple):
    """A training command and the files that its evaluation writes."""

    module: str
    arguments: list[str]
    results: list[str]


_TPGR = System(
    "tpgr_jax.train",
    [*_RATINGS, "agent.learner.episodes_per_user=8", "train.episodes_per_step=256", *_SCHEDULE],
    ["eval.json", "eval.npz"],
)
SYSTEMS = {
    "tpgr": _TPGR,
    "tpgr_lazy": _TPGR._replace(arguments=[*_TPGR.arguments, "agent.learner.node_updates=lazy", "tree.depth=3"]),
    "dqn_r": System(
        "tpgr_jax.train",
        ["agent=dqn_r", *_RATINGS, "agent.learner.batch_episodes=8", "train.episodes_per_step=16", *_SCHEDULE],
        ["eval.json", "eval.npz"],
    ),
    "hrl_mg": System(
        "hrlmg_jax.train",
        [*_LOG, *_SIMULATOR, *_SCHEDULE],
        [f"{name}.{ending}" for name in ("online", "online_truth", "offline") for ending in ("json", "npz")],
    ),
}


class Moment(NamedTuple):
    """When to kill: `seconds` after the start, or after the first instant at which `reached` holds."""

    name: str
    seconds: float
    reached: Callable[[Path], bool] = lambda run: True


def moments(kills: int, first_step: float, duration: float, generator: random.Random) -> list[Moment]:
    """Draws the moments of the kills: a third each before the first step, within a checkpoint, and anywhere.

    Args:
        kills: How many.
        first_step: Seconds until the first metrics.
        duration: Seconds of the whole command.
        generator: Draws them.
    """
    drawn = []
    for number in range(kills):
        if number % 3 == 0:
            drawn.append(Moment("start-up", generator.uniform(0, first_step)))
        elif number % 3 == 1:
            step = generator.randrange(2, STEPS + 1, 2)
            writing = partial(_writes_checkpoint, step=step)
            drawn.append(Moment("within a checkpoint", generator.uniform(0, _SAVE_SECONDS), writing))
        else:
            drawn.append(Moment("any time", generator.uniform(0, duration)))
    return drawn


def kill_and_resume(system: System, folder: Path, environment: dict[str, str], kills: int, seed: int) -> int:
    """Prints a line for each killed run; returns how many end as the one that was left alone.

    Args:
        system: What to train.
        folder: For all runs.
        environment: Of the commands.
        kills: How many runs.
        seed: Of the moments.
    """
    for name in ("first", "whole"):  # the first one fills the cache of compiled programs
        started = time.time()
        _finish(system, folder, environment, name)
    whole = folder / "whole"
    duration = time.time() - started
    trained = (whole / "metrics.jsonl").stat().st_mtime - started
    seconds = [json.loads(line)["seconds"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    first_step = trained - (seconds[-1] - seconds[0])  # or a little earlier: evaluations take time too
    generator = random.Random(seed)
    equal, kinds = 0, Counter[str]()
    for number, moment in enumerate(moments(kills, first_step, duration, generator)):
        name = f"killed_{number}"
        found = [_kill(system, folder, environment, name, moment)]
        if number % 2:
            found.append(_kill(system, folder, environment, name, Moment("again", generator.uniform(0, duration))))
        _finish(system, folder, environment, name)
        differing = differences(folder / name, whole, system)
        equal += not differing
        kinds.update(re.sub(r" [0-9]+", "", kind) for kind in found)
        print(f"{number + 1:3d} {moment.name}: {'; '.join(found)}: {differing or 'equal'}", flush=True)
    print(", ".join(f"{kind}: {count}" for kind, count in kinds.most_common()))
    return equal


def differences(run: Path, whole: Path, system: System) -> str:
    """Names what two finished runs do not share; nothing if they are equal."""
    rows = metrics_without_times(run)
    if [row["step"] for row in rows] != list(range(2, STEPS + 1, 2)):
        return f"steps {[row['step'] for row in rows]}"
    if rows != metrics_without_times(whole):
        return "metrics differ"
    for one, other in zip(parameters(run, STEPS), parameters(whole, STEPS), strict=True):
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            return "checkpoints differ"
    return ", ".join(name for name in system.results if not _same_result(run / name, whole / name))


def _same_result(one: Path, other: Path) -> bool:
    if one.suffix == ".json":
        return one.read_text() == other.read_text()
    with np.load(one, allow_pickle=False) as ours, np.load(other, allow_pickle=False) as theirs:
        return set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _command(system: System, folder: Path, name: str) -> list[str]:
    run = folder / name
    if (run / "config.yaml").exists():
        return [f"resume={run}"]
    arguments = [*system.arguments, f"hydra.run.dir={run}"]
    # Each run learns a simulator of its own, so that this is interrupted too.
    return [*arguments, f"simulator.root={folder / 'simulators' / name}"] if _SIMULATOR[0] in arguments else arguments


def _finish(system: System, folder: Path, environment: dict[str, str], name: str) -> None:
    finished = run_module(folder, environment, system.module, *_command(system, folder, name))
    if finished.returncode:
        raise SystemExit(f"{name} ended with code {finished.returncode}:\n{finished.stderr[-3000:]}")


def _kill(system: System, folder: Path, environment: dict[str, str], name: str, moment: Moment) -> str:
    """Starts or resumes a run and kills it; returns where it stood."""
    process = subprocess.Popen(
        [sys.executable, "-m", system.module, *_command(system, folder, name)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not moment.reached(folder / name):
        time.sleep(0.0005)
    ready = time.monotonic() + moment.seconds
    while process.poll() is None and time.monotonic() < ready:
        time.sleep(0.0005)
    finished = process.poll() is not None
    process.kill()
    process.wait()
    unfinished, steps = _unfinished(folder / name), checkpoint_steps(folder / name)
    if finished:
        return "had finished"
    if unfinished:
        return f"killed while checkpoint {max(unfinished)} was written"
    return f"killed after checkpoint {max(steps)}" if steps else "killed before any"


def _unfinished(run: Path) -> list[int]:
    """Steps of the checkpoints that are being written, or never were to the end."""
    names = [path.name.split(".") for path in run.glob("checkpoints/*.orbax-checkpoint-tmp*")]
    return [int(step) for step, *_ in names if step.isdigit()]


def _writes_checkpoint(run: Path, step: int) -> bool:
    return max(_unfinished(run), default=0) >= step


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        cache = {"TPGR_JAX_CACHE": f"{folder}/cache"}
        equal = kill_and_resume(SYSTEMS[options.system], Path(folder), os.environ | cache, options.kills, options.seed)
    print(f"{options.system}: {equal} of {options.kills} equal")
    raise SystemExit(equal != options.kills)


if __name__ == "__main__":
    main()

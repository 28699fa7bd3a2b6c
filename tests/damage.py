"""Damages run folders, data and disks in every way we could think of, and shows what the commands say to it.

`PYTHONPATH=. python tests/damage.py` prints a Markdown table, the one of docs/reliability.md. A case passes if the
command either ends with one message and a non-zero code, leaving the run folder as it was, or goes on and says why it
could.
"""

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from command_lines import checkpoint_steps, run_module

_SMALL = ["agent.policy.hidden=[8]", "agent.policy.embedding_epochs=1", "env.episode_length=6"]
_SMALL += ["agent.learner.episodes_per_user=4", "train.episodes_per_step=16", "train.log_every=1"]
_SMALL += ["train.evaluate_every=2", "train.checkpoint_every=1", "train.max_to_keep=3", "devices.count=1"]
_SMALL += ["data=ratings_file", "env.cold_start=random"]
_FILE_LIMIT = 2_000  # bytes


class Place(NamedTuple):
    """Where a case happens.

    Attributes:
        run: Copy of the run folder, with three checkpoints.
        ratings: The ratings that the run was trained on; a copy of its own for each case.
    """

    run: Path
    ratings: Path


class Case(NamedTuple):
    """A damage, the command that meets it, and how that has to end.

    Attributes:
        name: The damage in words.
        damage: Does it.
        command: Module and arguments; RUN and DATA stand for the folder and the ratings.
        says: What has to be in the output.
        goes_on: Whether the command ends well in spite of it.
        full_disk: Whether files of more than 2,000 bytes cannot be written while it runs; then training may have gone
            on until the checkpoint, and only the checkpoints before have to be as they were.
    """

    name: str
    damage: Callable[[Place], None]
    command: str
    says: str
    goes_on: bool = False
    full_disk: bool = False


RESUME = "tpgr_jax.train resume=RUN train.steps=4 data.path=DATA"
EVALUATE = "tpgr_jax.evaluate run=RUN data_path=DATA"


def _nothing(place: Place) -> None:
    pass


def _cut(name: str, share: float = 0.5) -> Callable[[Place], None]:
    def damage(place: Place) -> None:
        path = place.run / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return damage


def _remove(name: str) -> Callable[[Place], None]:
    def damage(place: Place) -> None:
        path = place.run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def _checkpoints(newest_only: bool, harm: Callable[[Path], None]) -> Callable[[Place], None]:
    """Damages every data file of the newest checkpoint, or of all."""

    def damage(place: Place) -> None:
        steps = sorted(checkpoint_steps(place.run))
        for step in steps[-1:] if newest_only else steps:
            for path in (place.run / "checkpoints" / str(step) / "state").rglob("*"):
                if path.is_file():
                    harm(path)

    return damage


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _spoil(path: Path) -> None:
    """Overwrites what holds arrays, and leaves what describes them."""
    if "ocdbt" in str(path) and path.parent.name == "d":
        path.write_bytes(b"\0" * path.stat().st_size)


def _half_written(place: Place) -> None:
    newest = max(checkpoint_steps(place.run))
    shutil.copytree(
        place.run / "checkpoints" / str(newest), place.run / "checkpoints" / f"{newest + 1}.orbax-checkpoint-tmp"
    )


def _other_network(place: Place) -> None:
    config = place.run / "config.yaml"
    text = config.read_text()
    assert "hidden:\n    - 8\n" in text
    config.write_text(text.replace("hidden:\n    - 8\n", "hidden:\n    - 9\n"))


def _other_ratings(place: Place) -> None:
    lines = place.ratings.read_text().splitlines()
    user, item, rating = lines[1].split(",")
    lines[1] = f"{user},{item},{5 if rating != '5' else 4}"
    place.ratings.write_text("\n".join(lines) + "\n")


def _repeated_rating(place: Place) -> None:
    place.ratings.write_text(place.ratings.read_text() + place.ratings.read_text().splitlines()[1] + "\n")


def _append_half_a_row(place: Place) -> None:
    with (place.run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')


def _spoil_a_row(place: Place) -> None:
    lines = (place.run / "metrics.jsonl").read_text().splitlines()
    lines[0] = lines[0][:20]
    (place.run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _other_tree(place: Place) -> None:
    with np.load(place.run / "tree.npz", allow_pickle=False) as tree:
        arrays = dict(tree)
    arrays["leaf_items"][arrays["item_leaf"][0]] = 1
    np.savez(place.run / "tree.npz", **arrays)


CASES = [
    Case(
        "newest checkpoint: every file cut in half", _checkpoints(True, _halve), RESUME, "unreadable checkpoint", True
    ),
    Case(
        "newest checkpoint: its files missing", _checkpoints(True, Path.unlink), RESUME, "unreadable checkpoint", True
    ),
    Case("newest checkpoint: its arrays damaged", _checkpoints(True, _spoil), RESUME, "unreadable checkpoint", True),
    Case(
        "newest checkpoint half-written when the run was killed", _half_written, RESUME, "resuming after step 3", True
    ),
    Case("all checkpoints cut in half", _checkpoints(False, _halve), RESUME, "no checkpoint can be read"),
    Case("the same, when evaluating", _checkpoints(False, _halve), EVALUATE, "no checkpoint can be read"),
    Case("all checkpoints removed", _remove("checkpoints"), EVALUATE, "the run has no checkpoint"),
    Case("checkpoints of another network", _other_network, RESUME, "no checkpoint can be read"),
    Case("`config.yaml` cut in half", _cut("config.yaml"), RESUME, "config.yaml"),
    Case("`config.yaml` removed", _remove("config.yaml"), RESUME, "is not a run folder"),
    Case("`run.json` cut in half", _cut("run.json"), RESUME, "run.json"),
    Case("`run.json` removed", _remove("run.json"), RESUME, "run.json"),
    Case("`ids.npz` cut in half", _cut("ids.npz"), RESUME, "ids.npz"),
    Case("`tree.npz` cut in half", _cut("tree.npz"), RESUME, "tree.npz"),
    Case("`tree.npz` holds no tree (items in two places)", _other_tree, EVALUATE, "tree.npz"),
    Case("half a row at the end of `metrics.jsonl`", _append_half_a_row, RESUME, "resuming after step 3", True),
    Case("a damaged row within `metrics.jsonl`", _spoil_a_row, RESUME, "metrics.jsonl"),
    Case("the ratings have changed since", _other_ratings, RESUME, "was trained on"),
    Case("the same, when evaluating", _other_ratings, EVALUATE, "was trained on"),
    Case("the ratings hold a repetition now", _repeated_rating, RESUME, "more than once"),
    Case("the ratings are gone", lambda place: place.ratings.unlink(), RESUME, "no such file"),
    Case("no room for a checkpoint", _nothing, RESUME, "cannot be written", full_disk=True),
    Case("no room for the results", _nothing, EVALUATE, "cannot be written", full_disk=True),
    Case("another setting than the run's", _nothing, f"{RESUME} env.alpha=0.5", "cannot be combined with resume"),
    Case(
        "fewer steps than done", _nothing, "tpgr_jax.train resume=RUN train.steps=2 data.path=DATA", "has already done"
    ),
    Case("a checkpoint that is not there", _nothing, f"{EVALUATE} checkpoint=9", "there is no checkpoint of step 9"),
]


class Outcome(NamedTuple):
    """What a command made of a damage: its exit code, what it said, and what is wrong with that (nothing)."""

    code: int
    said: str
    problems: list[str]


def make_run(folder: Path, environment: dict[str, str]) -> Place:
    """Trains the run that the cases damage: three steps, three checkpoints.

    Raises:
        RuntimeError: Training failed.
    """
    generator = np.random.default_rng(0)
    pairs = sorted({(int(user), int(item)) for user, item in generator.integers(0, (40, 30), (600, 2))})
    rows = [f"u{user},{item},{generator.integers(1, 6)}" for user, item in pairs]
    ratings = folder / "ratings.csv"
    ratings.write_text("\n".join(["user,item,rating", *rows]) + "\n")
    arguments = [*_SMALL, f"data.path={ratings}", "train.steps=3", f"hydra.run.dir={folder / 'run'}"]
    finished = run_module(folder, environment, "tpgr_jax.train", *arguments)
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return Place(folder / "run", ratings)


def try_case(case: Case, origin: Place, environment: dict[str, str]) -> Outcome:
    """Damages a copy of the run and runs the command on it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place = Place(folder / "run", folder / "ratings.csv")
        shutil.copytree(origin.run, place.run)
        shutil.copyfile(origin.ratings, place.ratings)
        case.damage(place)
        before = _digests(place.run)
        module, *arguments = case.command.replace("RUN", str(place.run)).replace("DATA", str(place.ratings)).split()
        prepare = _no_large_files if case.full_disk else None
        finished = run_module(folder, environment, module, *arguments, prepare=prepare)
        said = finished.stderr.replace(str(place.run), "RUN").replace(str(folder), "FOLDER")
        problems = [] if case.says in said else [f"does not say {case.says!r}: {said[-1500:]}"]
        if "Traceback" in said:
            problems.append("prints a traceback")
        if case.goes_on != (finished.returncode == 0):
            problems.append(f"exit code {finished.returncode}: {said[-1500:]}")
        if not case.goes_on:
            if said.count("error: ") != 1:
                problems.append(f"{said.count('error: ')} messages")
            changed = _changed(before, _digests(place.run))
            if case.full_disk:
                changed = [name for name in changed if name in before and name.startswith("checkpoints")]
            if changed:
                problems.append(f"changed {', '.join(changed)}")
        return Outcome(finished.returncode, _message(said), problems)


def _no_large_files() -> None:
    """Makes writing fail beyond a size, as a full disk does; Python ignores the signal that comes with it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, _FILE_LIMIT))


def _digests(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file()
    }


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _message(said: str) -> str:
    """Returns the error with its advice, or the lines of warning and resumption."""
    if "\nerror: " in f"\n{said}":
        return " ".join(f"\n{said}".partition("\nerror: ")[2].split())
    lines = [line.rpartition("\r")[2] for line in said.split("\n")]
    return " ".join(line for line in lines if line.startswith(("warning", "resuming")))


def environment_of(folder: Path) -> dict[str, str]:
    """Returns this process's environment with caches of its own."""
    return os.environ | {"TPGR_JAX_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}


def main() -> None:
    """The command line."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_of(Path(folder))
        origin = make_run(Path(folder), environment)
        print("| damage | command | exit | what it says |\n|---|---|---|---|")
        for case in CASES:
            outcome = try_case(case, origin, environment)
            command = "resume" if "resume=" in case.command else "evaluate"
            print(f"| {case.name} | {command} | {outcome.code} | {outcome.said} |", flush=True)
            if outcome.problems:
                failed += 1
                print(json.dumps(outcome.problems, indent=1), file=sys.stderr)
    print(f"\n{len(CASES) - failed} of {len(CASES)} as they should be")
    raise SystemExit(failed != 0)


if __name__ == "__main__":
    main()

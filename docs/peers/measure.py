"""Measures what a user would pick instead, beside ours: `python docs/peers/measure.py --folder FOLDER --out FOLDER`.

Each peer gets a virtual environment of its own in the folder, outside the checkout, with pinned versions. Its script
and ours compute the same sizes, one process after another, in as many rounds as asked for; medians of rounds are
compared. A peer that cannot be installed, or fails, becomes a row that says why.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A package that a user could take instead.

    Attributes:
        name: Of it, for tables and the command line.
        task: What it is measured at, a key of `TASKS`.
        script: Of this folder, run with the peer's interpreter.
        requirements: What pip installs.
        note: What it computes that ours does not, or the other way round.
        source: Where its sources are if it is no package; `--source NAME=FOLDER` gives them.
        missing: Why it cannot be measured at all.
    """

    name: str
    task: str
    script: str = ""
    requirements: tuple[str, ...] = ()
    note: str = ""
    source: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Row:
    """What became of a peer.

    Attributes:
        peer: Which.
        version: Of it.
        rates: Per second, by what was measured; empty where it failed.
        reason: Why it failed, in one line.
    """

    peer: Peer
    version: str = ""
    rates: Mapping[str, float] | None = None
    reason: str = ""


class CommandFailed(Exception):
    """A command of a peer failed; the message is the line that says why."""


TASKS = {
    "tpgr_step": "TPGR, training step of 992 episodes x 32 over 3,706 items: episodes",
    "linear_ucb": "LinearUCB, 3,706 items, 51 features: users x steps, decision and update",
    "q_learning": "Q-learning, 3,706 items, updates of 2,048 transitions: transitions trained",
    "environment": "environment of 3,706 items, random actions: steps",
    "top_10": "lists of ten of 3,706 items for 1,024 users: users",
}
"""What is counted per second."""
PEERS = (
    Peer(
        "TPGR's authors",
        "tpgr_step",
        "tpgr_authors.py",
        ("tensorflow==2.21.0", "scikit-learn==1.9.1", "scipy==1.17.1", "tqdm==4.70.1", "numpy==2.4.6"),
        "it updates 32 times a step, over a frozen recurrent unit and frozen item embeddings; ours trains these too",
        "github.com/chenhaokun/TPGR at commit 737c6ce",
    ),
    Peer(
        "iRec",
        "linear_ucb",
        "irec_bandit.py",
        (
            "numpy==2.4.6",
            "scipy==1.17.1",
            "scikit-learn==1.9.1",
            "numba==0.68.1",
            "threadpoolctl==3.8.0",
            "tqdm==4.70.1",
            "cachetools==8.0.2",
        ),
        "the same model for each user, one user after another; it inverts the users' matrices at every decision",
        "github.com/irec-org/irec at commit 9851443 (the package irec 1.2.8 has no agents in it)",
    ),
    Peer(
        "MABWiser",
        "linear_ucb",
        "mabwiser_bandit.py",
        ("mabwiser==2.7.4", "numpy==2.4.6"),
        "a regression for each item on the user's features (the disjoint model), one user after another",
    ),
    Peer(
        "tianshou",
        "q_learning",
        "tianshou_dqn.py",
        ("tianshou==2.0.1", "torch==2.13.0"),
        "states are given as 73 numbers; ours computes them from the histories and trains their encoder too",
    ),
    Peer(
        "EasyRL4Rec",
        "q_learning",
        missing="no package: a checkout with a fork of tianshou and data sets of its own; its learners are tianshou's",
    ),
    Peer(
        "SARDINE",
        "environment",
        "sardine_environment.py",
        ("sardine-rec==1.0.8", "gymnasium==1.4.0", "numpy==2.4.6"),
        "single environments only; its users are bored by what they see again, ours answer by a table of ratings",
    ),
    Peer(
        "gym-recsys",
        "environment",
        "gym_recsys_environment.py",
        ("gym-recsys==0.0.3", "gym==0.26.2", "pandas==3.1.1", "numpy==2.4.6"),
        "single environments only; its users are the caller's functions, here a dot product",
    ),
    Peer(
        "implicit",
        "top_10",
        "implicit_lists.py",
        ("implicit==0.7.3", "numpy==2.4.6"),
        "ALS, 64 factors; ours computes users from their histories and has a policy, not scores that are stored",
    ),
    Peer(
        "RecTools",
        "top_10",
        "rectools_lists.py",
        ("rectools==0.19.0", "pandas==2.3.3", "numpy==1.26.4"),
        "sums over rated items' rows of an item-to-item matrix",
    ),
)


def command(words: Sequence[str | Path]) -> str:
    """Runs a command and returns what it printed.

    Raises:
        CommandFailed: It failed.
    """
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(reason_in(done.stderr))
    return done.stdout


def reason_in(text: str) -> str:
    """Returns the line of an error output that says most: the first that speaks of an error, else the last."""
    lines = [line.encode("ascii", "ignore").decode().strip(" >") for line in text.splitlines()]  # without pip's frames
    lines = [line for line in lines if line and not line.startswith(("WARNING", "note:", "[end"))]
    # Of a traceback the last line; of pip what follows its own summary.
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    errors = [line for line in lines if line.lower().startswith(("error:", "the '"))]
    errors = [line for line in errors if "subprocess-exited-with-error" not in line] or errors
    return (errors or lines or ["no message"])[0]


def installed(peer: Peer, folder: Path) -> Path:
    """Makes the peer's environment unless it is there, and returns its interpreter.

    Raises:
        CommandFailed: It cannot be installed.
    """
    home = folder / Path(peer.script).stem
    python = home / "bin" / "python"
    done = home / "installed.txt"
    wanted = "\n".join(peer.requirements)
    if not (done.exists() and done.read_text() == wanted):
        command([sys.executable, "-m", "venv", "--clear", home])
        command([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements])
        done.write_text(wanted)
    return python


def measured(words: Sequence[str | Path]) -> Any:
    """Runs a script of this folder and returns the JSON value in its last line."""
    return json.loads(command(words).splitlines()[-1])


def script_of(peer: Peer, folder: Path, sources: Mapping[str, Path]) -> list[str | Path]:
    """Installs a peer if need be, and returns the command that measures it.

    Raises:
        CommandFailed: It cannot be measured.
    """
    if peer.missing:
        raise CommandFailed(peer.missing)
    if peer.source and peer.name not in sources:
        raise CommandFailed(f'no package: give a folder with {peer.source} by --source "{peer.name}=FOLDER"')
    source = ["--source", sources[peer.name]] if peer.source else []
    return [installed(peer, folder), HERE / peer.script, *source]


def measured_peer(peer: Peer, words: Sequence[str | Path]) -> Row:
    """Measures a peer once; a failure becomes a row with the reason."""
    try:
        result = measured(words)
    except CommandFailed as failure:
        return Row(peer, reason=str(failure))
    return Row(peer, result["version"], result["rates"])


def over_rounds(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the median of each rate over rounds."""
    return {name: statistics.median(rates[name] for rates in rounds) for name in rounds[0]} if all(rounds) else {}


def table(rows: Sequence[Row], ours: Mapping[str, Mapping[str, float]]) -> str:
    """Returns a Markdown table with a line for each peer, or for each thing measured of it.

    Args:
        rows: Of the peers, in order.
        ours: Our rates by task.
    """
    lines = ["| per second | peer | peer's rate | ours | ours / peer's | what differs |", "|---|---|---|---|---|---|"]
    for row in rows:
        what = TASKS[row.peer.task]
        if row.rates is None:
            lines.append(f"| {what} | {row.peer.name} | | | not measured | {row.reason} |")
            continue
        own = ours.get(row.peer.task, {})
        for name, rate in row.rates.items():
            peer = f"{row.peer.name} {row.version}{f', {name}' if name else ''}"
            rates, ratios = (_cell(own, scale) for scale in (1, rate))
            lines.append(f"| {what} | {peer} | {_number(rate)} | {rates} | {ratios} | {row.peer.note} |")
    return "\n".join(lines)


def _cell(rates: Mapping[str, float], scale: float) -> str:
    named = (f"{_number(rate / scale)}{f' ({name})' if name else ''}" for name, rate in rates.items())
    return ", ".join(named) or "not measured"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def merged(rounds: Sequence[Row]) -> Row:
    """Returns one row for a peer's rounds: medians, or why one of them failed."""
    failed = [row for row in rounds if row.rates is None]
    if failed:
        return failed[0]
    return replace(rounds[0], rates=over_rounds([row.rates or {} for row in rounds]))


def our_rates(task: str, options: Sequence[str]) -> dict[str, float]:
    """Measures ours once; empty, with the reason said, where that fails."""
    try:
        return measured([sys.executable, HERE / "ours.py", task, *options])["rates"]
    except CommandFailed as failure:
        print(f"error: {task} of ours: {failure}", file=sys.stderr)
        return {}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the arguments of the command line."""
    names = [*TASKS, *(peer.name for peer in PEERS)]
    parser = argparse.ArgumentParser(description="Measures peers, each in its own environment, beside ours.")
    parser.add_argument("--folder", type=Path, required=True, help="for the peers' environments; not in the checkout")
    parser.add_argument("--out", type=Path, help="folder for peers.json and peers.md")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"tasks or peers: {', '.join(names)}")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=FOLDER", help="a peer's checkout")
    parser.add_argument("--rounds", type=int, default=3, help="of everything, one after another; medians count")
    parser.add_argument("--threads", type=int, default=2, help="processors that every process may use")
    parser.add_argument("--smoke", action="store_true", help="smallest sizes: shows that everything runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Installs, measures in rounds, prints the table and writes it with the raw numbers."""
    options = parsed(arguments)
    chosen = [peer for peer in PEERS if not options.only or {peer.name, peer.task} & {*options.only}]
    sources = {name: Path(folder) for name, _, folder in (given.partition("=") for given in options.source)}
    smoke = ["--smoke"] if options.smoke else []
    # Children inherit the processors; pools of threads follow them, or these variables.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ |= {
        name: str(options.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    # All environments, before anything is timed.
    scripts: dict[str, list[str | Path]] = {}
    rows: dict[str, list[Row]] = {peer.name: [] for peer in chosen}
    for peer in chosen:
        print(f"preparing {peer.name} ...", file=sys.stderr, flush=True)
        try:
            scripts[peer.name] = script_of(peer, options.folder, sources)
        except CommandFailed as failure:
            rows[peer.name].append(Row(peer, reason=str(failure)))
    # Rounds; ours before the peers of each task.
    load = [os.getloadavg()[0]]
    ours: dict[str, list[dict[str, float]]] = {}
    for number, task in itertools.product(range(options.rounds), dict.fromkeys(peer.task for peer in chosen)):
        print(f"round {number + 1}: {task} ...", file=sys.stderr, flush=True)
        ours.setdefault(task, []).append(our_rates(task, smoke))
        for peer in (peer for peer in chosen if peer.task == task and peer.name in scripts):
            rows[peer.name].append(measured_peer(peer, [*scripts[peer.name], *smoke]))
        load.append(os.getloadavg()[0])
    # The table and the raw numbers.
    machine = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "python": platform.python_version(), "smoke": options.smoke}
    machine |= {"threads": options.threads, "load": [round(value, 1) for value in load]}
    own = {task: over_rounds(rates) for task, rates in ours.items()}
    text = f"{', '.join(f'{name} {value}' for name, value in machine.items())}\n\n"
    text += table([merged(rounds) for rounds in rows.values()], own)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "peers.md").write_text(text + "\n")
        peers = {name: [asdict(row) for row in rounds] for name, rounds in rows.items()}
        (options.out / "peers.json").write_text(json.dumps(machine | {"ours": ours, "peers": peers}, indent=1))


if __name__ == "__main__":
    main()

"""The commands of README and documents: found, split as a shell splits them, made short enough to be run."""

import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^( *)```bash\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_BACKGROUND = re.compile(r" &$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`((?:srun )?python[3]? (?:-m|docs/|tests/)[^`]+)`(?!`)")
# A shell in which no program exists hands every command to this function.
_PRELUDE = r"""
PATH=/nowhere
command_not_found_handle() { local IFS=$'\x1f'; printf '%s\x1e' "$*" >&3; }
.() { :; }
"""
# What stands for a user's own choice.
_PLACEHOLDERS = {"AGENT": "hrl_mg", "ALPHA": "0.5", "FOLDER": "outputs", "M": "2", "NAME": "movielens_1m", "STEP": "2"}
_PLACEHOLDERS |= {"my_agent": "popularity"}  # what a reader adds
_PLACEHOLDERS |= {"RUN_FOLDER": "outputs/DAY/TIME", "RUN": "outputs/DAY/TIME"}
_PLACEHOLDER = re.compile(rf"(?<![A-Za-z0-9_])({'|'.join(_PLACEHOLDERS)})(?![A-Za-z0-9_/])")

# Settings that make a run short, for every configuration that has the key.
_SHORT = {
    "data.size": "tiny",
    "data.fallback_size": "tiny",
    "env.episode_length": "8",
    "seed": "0",
    "agent.policy.hidden": "[8]",
    "agent.policy.embedding_epochs": "1",
    "agent.policy.factors": "4",
    "agent.learner.episodes_per_user": "8",
    "agent.learner.batch_episodes": "8",
    "agent.learner.replay_episodes": "64",
    "agent.learner.fit_episodes": "4",
    "agent.network.hidden_size": "4",
    "agent.network.state_size": "4",
    "agent.network.critic_width": "8",
    "agent.goals.period": "5",
    "agent.learner.sessions": "8",
    "agent.learner.batch_size": "8",
    "agent.learner.high_batch_size": "8",
    "agent.learner.warm_up_steps": "2",
    "agent.learner.replay_capacity": "64",
    "agent.learner.high_replay_capacity": "16",
    "evaluation.long": "8",
    "evaluation.short": "4",
    "evaluation.sessions": "24",
    "evaluation.validation_sessions": "8",
    "evaluation.offline_sessions": "16",
    "simulator.network.hidden_size": "4",
    "simulator.network.state_size": "4",
    "simulator.network.width": "8",
    "simulator.batch_size": "64",
    "simulator.size": "4",
    "simulator.interests": "4",
    "simulator.tastes": "3",
    "simulator.posterior_tastes": "4",
    "simulator.posterior_interests": "4",
    "simulator.trial_sessions": "4",
    "simulator.train.steps": "4",
    "simulator.train.log_every": "2",
    "simulator.train.evaluate_every": "2",
    "simulator.train.checkpoint_every": "2",
    "train.episodes_per_step": "64",
    "train.steps": "4",
    "train.log_every": "2",
    "train.evaluate_every": "2",
    "train.checkpoint_every": "2",
    "tree.vector_epochs": "1",
    "sessions": "24",  # of the gate
    "lengths": "[4,8]",  # from here on of the trust bench
    "agent_steps": "[2]",
    "exploiter_generations": "1",
    "exploiter_size": "2",
    "exploiter_sessions": "4",
    "settings": '["data.size=tiny","env.episode_length=8","simulator.train.steps=4"]',
    "trials": "2",
}


class Command(NamedTuple):
    """One command of a document, its words as the shell hands them to the program."""

    document: str
    words: tuple[str, ...]

    @property
    def module(self) -> str | None:
        """The module of `python -m MODULE`, or None."""
        words = self.words[1:] if self.words[0] == "srun" else self.words
        return words[2] if words[:2] in (("python", "-m"), ("python3", "-m")) else None

    @property
    def arguments(self) -> list[str]:
        """What follows the module."""
        return list(self.words[self.words.index("-m") + 2 :])

    def __str__(self) -> str:
        """For the name of a test."""
        return f"{self.document}: {' '.join(self.words)}"


@cache
def commands_of_blocks() -> tuple[tuple[Command, ...], ...]:
    """Returns the commands of each `bash` block of the documents, in order."""
    return tuple(
        _split(path, block) for path in DOCUMENTS for _, block in _BLOCK.findall(path.read_text(encoding="utf-8"))
    )


@cache
def commands() -> tuple[Command, ...]:
    """Returns the different commands of all documents, those within sentences too."""
    inline = [
        command
        for path in DOCUMENTS
        for text in _INLINE.findall(path.read_text(encoding="utf-8"))
        for command in _split(path, " ".join(text.split()))
    ]
    everything = [command for block in commands_of_blocks() for command in block] + inline
    return tuple({command.words: command for command in everything}.values())


def _split(path: Path, text: str) -> tuple[Command, ...]:
    """Lets a shell without programs say what it would start.

    Nothing is put into the background: the order of the commands would be another from time to time.
    """
    name = str(path.relative_to(ROOT))
    text = _BACKGROUND.sub("", text)
    shell = subprocess.run(
        ["/bin/bash", "-c", f"exec 3>&1 1>&2\n{_PRELUDE}\n{text}"], capture_output=True, text=True, timeout=60
    )
    assert not shell.returncode, f"{name}: {shell.stderr}\n{text}"
    assert not shell.stderr, f"{name}: {shell.stderr}\n{text}"
    lines = shell.stdout.split("\x1e")[:-1]
    return tuple(Command(name, tuple(_filled(word) for word in line.split("\x1f"))) for line in lines)


def _filled(word: str) -> str:
    return _PLACEHOLDER.sub(lambda match: _PLACEHOLDERS[match[1]], word)


def without_sweep(arguments: list[str]) -> list[list[str]]:
    """Returns the arguments of the single jobs that show every value of a sweep at least once.

    Values are combined as they come (first with first, second with second) and not each with each. What chooses how
    jobs are started is left out.
    """
    words = [word for word in arguments if word != "-m" and not word.startswith(("hydra/", "hydra.launcher"))]
    return side_by_side([_values(word) for word in words])


def side_by_side(choices: Sequence[Sequence[str]]) -> list[list[str]]:
    """Returns as many selections as the longest choice has values; shorter choices repeat their last value."""
    selections = max((len(values) for values in choices), default=1)
    return [[values[min(number, len(values) - 1)] for values in choices] for number in range(selections)]


def _values(word: str) -> list[str]:
    key, equals, value = word.partition("=")
    if not equals or value.startswith(("[", "'", '"', "{")) or "," not in value:
        return [word]
    parts = value.split(",")
    return [f"{key}={part}" for part in (parts[:1] if key.endswith("seed") else parts)]


def shortened(job: list[str], known: set[str]) -> list[str]:
    """Returns the arguments of a short run.

    Args:
        job: Arguments without sweeps.
        known: The keys, in dots, of the configuration that they compose.
    """
    short = {key: value for key, value in _SHORT.items() if key in known}
    fewer = [re.sub(r"^(num_seeds|checkpoint)=\d+$", r"\1=2", word) for word in job]
    return [word for word in fewer if word.partition("=")[0] not in short] + [f"{key}={short[key]}" for key in short]

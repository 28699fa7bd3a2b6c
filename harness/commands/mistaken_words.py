"""What is wrong with the words of a command line that Hydra refuses, in words of ours."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from harness.commands import old_names
from harness.commands.command_words import is_multirun, nearest_choices
from harness.commands.configuration import (
    ADDED_GROUPS,
    Configuration,
    commands_of,
    keys_of_choices,
    owner_of,
    systems,
)
from harness.commands.nearest import meant, nearest
from harness.errors import UserError

_LOOKING = "sim"
"""Owner of the choices that nothing trains on."""
_TWINS = (
    ("data.timestamp_column", "data.time_column"),
    ("data.rating_column", "data.feedback_column"),
    ("data.rating_of_event", "data.events"),
    ("data.rating_of_event", "data.feedback_of_event"),
    ("data.missing_ratings", "data.missing_values"),
    ("data.relevant_above", "data.least_rating"),
    ("data.test_fraction", "data.test_quantile"),
)
"""What is called so of ratings, and so of logs."""
_FREE = re.compile(r".*_of_(event|file)\.")  # keys below are the user's own words


class Word(NamedTuple):
    """One setting of a command line: as typed, as parsed, its key without signs, its values (several in a sweep)."""

    text: str
    parsed: Override
    key: str
    values: list[Any]


@contextmanager
def explained(configuration: Configuration, words: Sequence[str]) -> Iterator[None]:
    """Checks the choices among the words, and says in words of ours why Hydra refuses them within.

    Raises:
        UserError: A word cannot be right.
    """
    check_choices(configuration, words)
    try:
        yield
    except HydraException:
        check_keys(configuration, words)
        raise


def check_choices(configuration: Configuration, words: Sequence[str]) -> None:
    """Checks that there is each choice that is made, and that it is one of this command.

    Args:
        configuration: Of the command.
        words: Of the command line, as Hydra gets them.

    Raises:
        UserError: A choice is not; the message names what is nearest, or the command that has it.
    """
    for word in _parsed(one for one in _settings(words) if _is_group(configuration, _key(one))):
        _check_single(word, words)
        for value in word.values:
            _check_choice(configuration, word.key, str(value))


def check_keys(configuration: Configuration, words: Sequence[str]) -> None:
    """Looks for the first word that cannot be read or sets a key that there is not, after `check_choices`.

    Args:
        configuration: Of the command.
        words: Of the command line, as Hydra gets them.

    Raises:
        UserError: There is one; the message names what is nearest, or the command or choice that has it.
    """
    parsed = list(_parsed(_settings(words)))
    chosen = [
        f"{'+' if word.key in ADDED_GROUPS else ''}{word.key}={word.values[0]}"
        for word in parsed
        if _is_group(configuration, word.key)
    ]
    keys = configuration.all_keys(chosen)  # which there are depends on the choices
    for word in parsed:
        _check_single(word, words)
        added = word.text.startswith("+") or word.key.startswith(("hydra.", "hydra/")) or _FREE.match(word.key)
        if not added and not _is_group(configuration, word.key):
            _check_key(configuration, word.key, keys)


def _settings(words: Sequence[str]) -> list[str]:
    return [word for word in words if "=" in word and not word.startswith("-")]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").partition("@")[0]


def _check_single(word: Word, words: Sequence[str]) -> None:
    """Refuses several values outside a sweep."""
    if word.parsed.is_sweep_override() and not is_multirun(words):
        raise UserError(
            f"{word.key} has several values",
            where=word.text,
            do=f"Add -m for a run of each; a list is written '{word.key}=[A,B]', "
            f"""text with a comma '{word.key}="A,B"'.""",
        )


def _parsed(overrides: Iterable[str]) -> Iterator[Word]:
    parser = OverridesParser.create()
    for text in overrides:
        try:
            one = parser.parse_override(text)
        except HydraException:
            key, _, value = text.lstrip("+").partition("=")
            do = f"""Quote the value for the shell and within: '{key}="VALUE"'."""
            if re.search(r"[^\w.@~/:-]", key):
                do = "Keys are words with dots between them, without blanks."
                if own := _FREE.match(key):
                    others = {"data.feedback_of_event.": "data.events", "data.rating_of_event.": "data.rating_of_event"}
                    pair = f"{key.removeprefix(own[0])}={value}"
                    do = f"""For names of any kind: '{others.get(own[0], own[0][:-1])}=["{pair}"]'."""
            raise UserError(f"{key}={value} cannot be read as KEY=VALUE", do=do) from None
        values: list[Any] = list(one.sweep_string_iterator()) if one.is_discrete_sweep() else [one.value()]
        yield Word(text, one, one.key_or_group, values)


def _is_group(configuration: Configuration, key: str) -> bool:
    return key in configuration.groups or ("." not in key and bool(_systems_with_group(key)))


def _systems_with_group(group: str) -> list[str]:
    """Returns the systems whose training takes choices of a group."""
    return [system for system in systems() if group in Configuration(commands_of(system)["train"]).groups]


def _check_choice(configuration: Configuration, group: str, name: str) -> None:
    choices = configuration.choices(group) if group in configuration.groups else []
    if name in choices or (name in ("None", "null") and group not in ADDED_GROUPS):
        return
    paths = [Path(folder, group, f"{name}.yaml") for folder in configuration.folders]
    if any(path.is_file() and owner_of(path) == _LOOKING for path in paths):
        raise UserError(
            f"{group}={name} is no choice of python -m {configuration.command}",
            do="It is for python -m sim.data alone, which prints the settings of a file: copy them.",
        )
    role = configuration.command.rpartition(".")[2]
    others = [system for system in systems() if system != configuration.system]
    # Another command has it.
    for other, last in itertools.product(others if configuration.system else systems(), dict.fromkeys((role, "train"))):
        if last not in commands_of(other):
            continue
        its = replace(configuration, name=commands_of(other)[last])
        if group in its.groups and name in its.choices(group):
            own = f" Here there are: {', '.join(choices)}." if choices else ""
            raise UserError(
                f"{group}={name} is no choice of python -m {configuration.command}",
                do=f"It is one of python -m {its.command}.{own}",
            )
    if not choices:
        owners = [Configuration(commands_of(system)["train"]).command for system in _systems_with_group(group)]
        have = " and ".join(f"python -m {command}" for command in owners)
        raise UserError(
            f"python -m {configuration.command} has no choice of {group}", do=f"{have} has." if have else ""
        )
    near = [choice.partition("=")[2] for choice in nearest_choices(name, [f"{group}={one}" for one in choices])]
    raise UserError(f"there is no {group}={name}", do=f"{meant(near)}There are: {', '.join(choices)}.")


def _check_key(configuration: Configuration, key: str, keys: Sequence[str]) -> None:
    if key in keys:
        return
    group, _, below = key.partition(".")
    # What is called otherwise here.
    if twins := [twin for pair in _TWINS if key in pair for twin in pair if twin != key and twin in keys]:
        raise UserError(f"{key} is no setting of the {group} chosen", do=f"Here it is {twins[0]}.")
    # A key of another choice of the group, or of the other system.
    if group in configuration.groups and below:
        having = [name for name, its in keys_of_choices(configuration, group).items() if below in its]
        if having:
            raise UserError(
                f"{key} is no setting of the {group} chosen",
                do=f"It is one of {group}={', '.join(having[:6])}{' and others' if len(having) > 6 else ''}.",
            )
    role = configuration.command.rpartition(".")[2]
    for system in systems():
        for command in dict.fromkeys((role, "train")):
            other = commands_of(system).get(command)
            if other and other != configuration.name and key in Configuration(other).all_keys():
                raise UserError(
                    f"unknown key {key}", do=f"It is a setting of python -m {Configuration(other).command}."
                )
    advice = old_names.advice(key) or f"{meant(nearest(key, keys))}--cfg job prints all keys."
    raise UserError(f"unknown key {key}", do=advice)

"""What people type, in the words that Hydra understands: values taken literally, bare words as what they are."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from harness.commands.configuration import ADDED_GROUPS, CONFIGURATION, FOLLOWS, Configuration
from harness.commands.nearest import meant, nearest
from harness.errors import UserError

_PLAIN_WORD = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_/][A-Za-z0-9_./-]*", re.IGNORECASE | re.ASCII)
_PLACES = ("path", "root", "cache", "dir", "run", "resume", "study", "out")
"""Ends of keys whose values name a file or a folder."""
_ALONE = ("user", "users", "history", "allowed", "exclude")
"""Keys, without dots, whose values name files or people."""
_OF_THE_RUN = {key: key.replace(".", "_") for key in ("data.path", "data.root", "data.cache", "devices.count")}
"""Messages name the keys on the left, which training has; commands that read a run folder have those on the right."""
_FOLLOWS = {**FOLLOWS, "train": "experiment"}
"""Groups whose names mean a choice of another group."""
_OWN_NAMES = re.compile(r".*_of_(event|file)(\..+)?")
"""Keys that hold, or end with, names of the user's own."""
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle)\(")
_MULTIRUN = ("-m", "--multirun")
_FLAGS = (
    *_MULTIRUN,
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "-r",
    "--run",
    "--resolve",
    "-sc",
    "--shell-completion",
)
_WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("--experimental-rerun", "-i", "--info"),
}


def override_value(value: object) -> str:
    """Returns a value as Hydra's override grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(override_value(entry) for entry in value)}]"
    if isinstance(value, str) and not _PLAIN_WORD.fullmatch(value):
        escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + (r"\"" if match[2] else ""), value)
        return f'"{escaped}"'
    return str(value)


def configuration_of(name: str, words: Sequence[str]) -> Configuration:
    """Returns the configuration of a command with the folders of choices that its words add."""
    added = []
    for word, following in itertools.pairwise([*words, ""]):
        option, given, value = word.partition("=")
        if option in ("-cd", "--config-dir"):
            added.append(value if given else following)
        elif option == "hydra.searchpath":
            added += [one.strip().strip("'\"").removeprefix("file://") for one in value.strip("[]").split(",")]
    folders = [str(Path(folder).absolute()) for folder in added if folder and not folder.startswith("pkg:")]
    return Configuration(name, (CONFIGURATION, *folders))


def is_multirun(words: Sequence[str]) -> bool:
    """Returns whether the words of a command line ask for a sweep."""
    return any(word in _MULTIRUN for word in words)


def as_hydra(configuration: Configuration, words: Sequence[str]) -> list[str]:
    """Translates the words of a command line.

    Args:
        configuration: Of the command.
        words: As typed, without the command itself.

    Raises:
        UserError: A word is neither an option nor a setting, nor obviously short for one.
    """
    several, translated, rest = is_multirun(words), list[str](), list(words)
    while rest:
        word = rest.pop(0)
        if word in _WITH_VALUE and rest:
            translated += [word, rest.pop(0)]
        elif word.startswith("-") and (word in _FLAGS or word.partition("=")[0] in _WITH_VALUE):
            translated.append(word)
        elif word.startswith("-"):
            raise _unknown_option(configuration, word, rest[0] if rest else "")
        elif "=" in word:
            translated.append(_setting(configuration, word, several))
        elif word.startswith("~") and "/" not in word:
            translated.append(word)
        else:
            translated += _bare(configuration, word)
    return translated


def _setting(configuration: Configuration, word: str, several: bool) -> str:
    """Returns KEY=VALUE with the sign before the key, and the quotes around the value, that Hydra wants."""
    key, _, value = word.partition("=")
    sign = key[: len(key) - len(key.lstrip("+~"))]
    key = key.removeprefix(sign)
    if sign == "~":
        return word
    if key in ADDED_GROUPS and key in configuration.groups:
        sign = "+"
    elif sign == "+" and not any(Path(folder, key.partition("@")[0]).is_dir() for folder in configuration.folders):
        sign = "++"  # a key, not a group: whether it is there already is no mistake
    elif not sign and _OWN_NAMES.fullmatch(key):
        sign = "++"
    if key in _OF_THE_RUN and _OF_THE_RUN[key] in configuration.top_keys:
        key = _OF_THE_RUN[key]
    return f"{sign}{key}={_value(key, value, several)}"


def _value(key: str, value: str, several: bool) -> str:
    """Returns a value as Hydra's grammar writes it; what that would refuse or read otherwise is taken literally."""
    place = re.split(r"[._]", key)[-1] in _PLACES or key in _ALONE
    if not value or value == "null" or "${" in value or (several and _SWEEP.match(value)):
        return value
    if place and value[0] not in "\"'[":
        # Several places in a sweep, unless a file has the whole name.
        apart = value.split(",") if several and not Path(value).exists() else [value]
        return ",".join(override_value(os.path.expanduser(one)) for one in apart)
    if _is_readable(value):
        return value
    if value[0] == "[" and value[-1] == "]" and not re.search(r"[\[\]{}\"']", value[1:-1]):
        return f"[{','.join(_literal(one) for one in value[1:-1].split(','))}]"
    if value[0] in "[{":
        example = f"""{key}=["a;b",c]""" if value[0] == "[" else f"""{key}=["a;b=VALUE",c=VALUE]"""
        pairs = "" if value[0] == "[" else "Write pairs as a list. "
        raise UserError(
            f"{key}={value} cannot be read",
            do=f"{pairs}Put text with blanks, letters beyond ASCII or any of ,;:=()[]{{}} into quotes within it, and "
            f"the whole into the shell's: '{example}'.",
        )
    return ",".join(map(_literal, value.split(",") if several else [value]))


def _literal(text: str) -> str:
    return text if _is_readable(text) else override_value(text)


def _is_readable(value: str) -> bool:
    """Returns whether Hydra's grammar reads a value."""
    if _PLAIN_WORD.fullmatch(value):
        return True
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def _bare(configuration: Configuration, word: str) -> list[str]:
    """Returns what a word without a key obviously means: a run folder, a choice, a file of data.

    Raises:
        UserError: It means nothing, or several things.
    """
    if "run" in configuration.top_keys:
        return [f"run={override_value(os.path.expanduser(word))}"]
    having = [group for group in configuration.groups if word in configuration.choices(group)]
    groups = [group for group in having if _FOLLOWS.get(group) not in having]
    if len(groups) == 1:
        return [f"{'+' if groups[0] in ADDED_GROUPS else ''}{groups[0]}={word}"]
    path = Path(os.path.expanduser(word))
    if path.is_file() and "auto" in configuration.choices("data") and "data" in configuration.groups:
        return ["data=auto", f"data.path={override_value(str(path))}"]
    raise UserError(f"{word!r} is not a setting", do=_form_of(configuration, word, path, groups))


def _form_of(configuration: Configuration, word: str, path: Path, groups: Sequence[str]) -> str:
    """Returns how to write what a bare word may mean."""
    if groups:
        return f"Say which you mean: {' or '.join(f'{group}={word}' for group in groups)}."
    if (path / "config.yaml").is_file() and "resume" in configuration.top_keys:
        tests = f"python -m {configuration.system}.evaluate {path}"
        return f"resume={path} continues the run in this folder; {tests} tests it."
    if path.is_file() and "data" in configuration.groups:
        own = " or ".join(one for one in ("ratings_file", "events_csv") if one in configuration.choices("data"))
        return f"For a file of your own: data={own} data.path={override_value(str(path))}"
    groups = [group for group in configuration.groups if group not in _FOLLOWS]
    choices = [f"{group}={name}" for group in groups for name in configuration.choices(group)]
    near = nearest_choices(word, choices) or nearest(word, configuration.all_keys())
    return meant(near) + "Settings are written KEY=VALUE; --help lists them."


def nearest_choices(name: str, choices: Sequence[str]) -> list[str]:
    """Returns the choices, each GROUP=NAME, whose names are nearest to one."""
    names = {choice.partition("=")[2]: choice for choice in choices}
    return [names[near] for near in difflib.get_close_matches(name, names, 3, 0.65)]


def _unknown_option(configuration: Configuration, word: str, following: str) -> UserError:
    """Returns the mistake of who writes `--steps 4` for `train.steps=4`."""
    name, given, value = word.lstrip("-").partition("=")
    name = name.replace("-", "_")
    keys = [key for key in configuration.all_keys() if not key.endswith(".name")]
    near = [name] if name in [*keys, *configuration.groups] else nearest(name, [*keys, *configuration.groups])
    value = (
        value if given else following if following and not following.startswith("-") and "=" not in following else ""
    )
    form = f"{near[0] if near else 'KEY'}={_value(name, value, False) if value else 'VALUE'}"
    return UserError(f"there is no option {word.partition('=')[0]}", do=f"Settings have no dashes: write {form}.")

"""Composed configurations outside a command, and the command lines that reproduce a configuration."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from harness.commands.command_words import override_value
from harness.commands.configuration import CONFIGURATION
from harness.runs.index import flattened
from harness.runs.run_folder import plain_config


def composed_values(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the values that `conf/NAME.yaml` composes with overrides, without `resume`.

    Raises:
        UserError: An interpolation leads nowhere.
        HydraException: An override is invalid.
    """
    in_command = GlobalHydra.instance().is_initialized()  # inside a command Hydra is already initialised
    with nullcontext() if in_command else initialize_config_dir(CONFIGURATION, version_base="1.3"):
        values = plain_config(compose(name, overrides=list(overrides)))
    values.pop("resume", None)
    return values


def devices_among(name: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the `devices` of a configuration that may not compose: of its overrides those that tell and do.

    Args:
        name: Of the configuration; None: a command without one.
        overrides: Words of the command line.
    """
    if name is None or not any(word.lstrip("+").partition("=")[2] for word in overrides):
        return {}
    devices: dict[str, Any] = {}
    composed: list[str] = []
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        if "." in key and not key.startswith("devices."):
            continue
        with suppress(Exception):  # this one is, or refers to, what has failed
            devices = composed_values(name, [*composed, word])["devices"]
            composed.append(word)
    return devices


def differing_overrides(
    base: Mapping[str, Any], values: Mapping[str, Any], relevant: Callable[[str], bool]
) -> list[str]:
    """Returns the overrides that turn one composed configuration into another.

    Args:
        base: The configuration to start from.
        values: The configuration to reach; keys that `base` lacks are ignored.
        relevant: Whether a dotted key matters.
    """
    known = dict(flattened(base))
    return [
        f"{key}={override_value(value)}"
        for key, value in flattened(values)
        if key in known and known[key] != value and relevant(key)
    ]


def overrides_like(
    name: str, overrides: Sequence[str], values: Mapping[str, Any], relevant: Callable[[str], bool]
) -> list[str]:
    """Returns the further overrides with which `conf/NAME.yaml` composes to the configuration of a run.

    Args:
        name: NAME.
        overrides: Overrides that are already given.
        values: The run's configuration.
        relevant: Whether a dotted key matters.
    """
    return differing_overrides(_composed_once(name, tuple(overrides)), values, relevant)


def unlike_composed(name: str, overrides: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings (by dotted key) that differ from what `conf/NAME.yaml` composes with the overrides."""
    known = dict(flattened(_composed_once(name, tuple(overrides))))
    return {key: value for key, value in settings.items() if key not in known or known[key] != value}


@cache
def _composed_once(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return composed_values(name, overrides)


def is_configuration(group: str, name: str) -> bool:
    """Returns whether `conf/GROUP/NAME.yaml` exists."""
    return Path(CONFIGURATION, group, f"{name}.yaml").is_file()


def sweep_of(experiment: str) -> dict[str, list[Any]]:
    """Returns the values that `conf/experiment/EXPERIMENT.yaml` sweeps, by key."""
    text = Path(CONFIGURATION, "experiment", f"{experiment}.yaml").read_text("utf-8")
    swept = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    return {key: [yaml.safe_load(value) for value in str(values).split(",")] for key, values in swept.items()}


def shell_command(module: str, arguments: Sequence[str]) -> str:
    """Returns the command line `python -m MODULE ARGUMENTS` for a POSIX shell."""
    return shlex.join(["python", "-m", module, *arguments])

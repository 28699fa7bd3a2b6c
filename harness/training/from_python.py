"""Training called from Python rather than from a shell: the same configuration and code, keyword arguments for keys."""

from __future__ import annotations

import datetime
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from harness.commands.command import describe_error
from harness.commands.command_words import override_value
from harness.commands.configuration import ADDED_GROUPS, CONFIGURATION, Configuration
from harness.commands.mistaken_words import explained
from harness.errors import UserError
from harness.phases import Phases
from harness.runs.composition import composed_values
from harness.runs.seeds import Run
from harness.training.command import start_in


def call_module(name: str, function: str) -> None:
    """Lets a command's module be called: `package.train(...)` calls `package.from_python.train(...)`.

    Python binds the name of a submodule in its package, so that a function could not keep it once the command's module
    is imported.

    Args:
        name: The command's module, as in `package.train`.
        function: Module and name of the function, as in `package.from_python:train`.
    """

    class CallableModule(ModuleType):
        """A module that can be called."""

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            where, _, what = function.partition(":")
            return getattr(importlib.import_module(where), what)(*arguments, **keywords)

    sys.modules[name].__class__ = CallableModule


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Returns the overrides that keyword arguments stand for.

    A mapping sets the keys of a group (`train={"steps": 100}` is `train.steps=100`), dots are allowed
    (`{"train.steps": 100}`), and a text in place of a group chooses one (`tree="kmeans"`, `experiment="movielens"`).
    """
    overrides = []
    for key, value in _flat(settings):
        group = Path(CONFIGURATION, *key.split(".")).is_dir()
        overrides.append(f"{'+' if key in ADDED_GROUPS else ''}{key}={value if group else override_value(value)}")
    return sorted(overrides, key=lambda override: "." in override.partition("=")[0])  # groups first


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def composed_in_python(configuration: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the values that `conf/CONFIGURATION.yaml` composes with overrides.

    Raises:
        UserError: An override is invalid.
    """
    with _mistakes_are_user_errors(), explained(Configuration(configuration), overrides):
        return composed_values(configuration, overrides)


def run_folder(folder: str | os.PathLike[str] | None) -> Path:
    """Returns the folder that was chosen, or outputs/DAY/TIME, as with the command."""
    now = datetime.datetime.now()
    return Path("outputs", f"{now:%Y-%m-%d}", f"{now:%H-%M-%S-%f}") if folder is None else Path(folder)


def train_in(
    folder: Path,
    configuration: str,
    command: str,
    train: Callable[[list[Run], bool, Phases], None],
    overrides: Sequence[str],
    per_seed: Sequence[str] = (),
) -> Path:
    """Trains as the command does with these overrides; returns the run folder.

    Args:
        folder: The run folder.
        configuration: NAME of `conf/NAME.yaml`.
        command: The command's module, for messages.
        train: See `harness.training.command.start_or_resume`, also for `per_seed`.

    Raises:
        UserError: A mistake in the settings, the data or the folder.
        KeyboardInterrupt: Ctrl-C; the state is saved if training had begun.
    """
    values = composed_in_python(configuration, overrides)
    if (values.get("num_seeds") or 1) != 1:
        raise UserError(
            f"{command} returns what one run recommends, and num_seeds={values['num_seeds']} trains several",
            where="num_seeds",
            do="Call it once per seed, or train with the command and load one of its runs.",
        )
    composed = OmegaConf.create({**values, "resume": None})
    try:
        start_in(folder, composed, command, train, per_seed)
    except SystemExit as stopped:  # its message has been printed
        raise KeyboardInterrupt from stopped
    return folder


@contextmanager
def _mistakes_are_user_errors() -> Iterator[None]:
    try:
        yield
    except HydraException as error:
        described = describe_error(error)
        raise UserError(described[0] if described else str(error)) from None

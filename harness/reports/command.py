"""What the commands that make reports share: `python -m SYSTEM.report REPORT [FOLDER ...] [KEY=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig

from harness.commands.command import hydra_command
from harness.commands.command_words import override_value
from harness.errors import UserError
from harness.settings import read_settings


class Report(NamedTuple):
    """The settings of a report and what makes it from them."""

    settings: type[Any]
    make: Callable[[Any], None]


def report_command(module: str, config_name: str, reports: Mapping[str, Report]) -> Callable[[], None]:
    """Returns the command, which reads the arguments of this process.

    Args:
        config_name: Of its configuration in `conf`.
        reports: Its reports by name.
    """

    @hydra_command(config_name)
    def main(composed: DictConfig) -> None:
        make_report(module, reports, composed)

    def command() -> None:
        sys.argv[1:] = hydra_arguments(module, reports, sys.argv[1:])
        main()

    return command


def make_report(module: str, reports: Mapping[str, Report], composed: DictConfig) -> None:
    """Makes the report that a composed configuration names.

    Args:
        reports: Its reports by name.
        composed: What Hydra composed.

    Raises:
        UserError: The command has no such report, a setting is wrong, or the report cannot be made.
    """
    report = reports[_known(module, reports, composed.report)]
    report.make(read_settings(report.settings, composed))


def hydra_arguments(module: str, reports: Mapping[str, Report], arguments: Sequence[str]) -> list[str]:
    """Translates `REPORT [FOLDER ...] [runs=FOLDER,FOLDER] [KEY=VALUE ...]` for Hydra.

    Args:
        reports: Its reports by name.

    Raises:
        UserError: No report, or none of this name.
    """
    if arguments and arguments[0].startswith("-"):
        return list(arguments)
    report, rest = _known(module, reports, arguments[0] if arguments else None), list(arguments[1:])
    folders: list[str] = []
    while rest and "=" not in rest[0] and not rest[0].startswith("-"):
        folders.append(rest.pop(0))
    translated = [f"report={report}", *([_runs_override(folders)] if folders else [])]
    for argument in rest:
        key, _, value = argument.partition("=")
        # Hydra takes a comma for a sweep.
        plain = key == "runs" and value and value[0] not in "['\"" and value != "null"
        translated.append(_runs_override(value.split(",")) if plain else argument)
    return translated


def _known(module: str, reports: Mapping[str, Report], name: str | None) -> str:
    if name is None or name not in reports:
        problem = "no report named" if name is None else f"there is no report {name!r}"
        raise UserError(problem, do=f"Name one: python -m {module} {'|'.join(reports)} [KEY=VALUE ...]")
    return name


def _runs_override(folders: Sequence[str]) -> str:
    return f"runs={override_value(list(folders))}"

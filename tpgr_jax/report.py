"""Builds the paper's tables and figures: `python -m tpgr_jax.report table2|figure3|figure4|curves|runs ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import hydra
from omegaconf import DictConfig

from harness.composition import override_value
from harness.run_list import describe_runs
from sim.command import run_command, task
from sim.errors import UserError
from sim.settings import OneOf, read_settings
from tpgr_jax.curves import CurvesConfig, report_curves
from tpgr_jax.figure3 import Figure3Config, report_figure3
from tpgr_jax.figure4 import Figure4Config, report_figure4
from tpgr_jax.method_results import method_label, tpgr_runs
from tpgr_jax.table2 import Table2Config, report_table2


@dataclass(frozen=True)
class RunListConfig:
    """Which runs to list (`conf/report/runs.yaml`)."""

    report: Annotated[str, OneOf("runs")]
    runs: list[str] | None


class Report(NamedTuple):
    """The settings of a report and what makes it from them."""

    settings: type[Any]
    make: Callable[[Any], None]


def report_runs(config: RunListConfig) -> None:
    """Prints all runs with their status and rewards.

    Raises:
        UserError: A folder that was named does not exist, or there are no runs.
    """
    found = tpgr_runs(config.runs)
    if not found.runs and not found.unreadable:
        raise UserError(f"no runs below {' or '.join(config.runs or ['outputs', 'multirun'])}")
    print("\n".join(describe_runs(found, method_label, "test_reward")))


REPORTS = {
    "table2": Report(Table2Config, report_table2),
    "figure3": Report(Figure3Config, report_figure3),
    "figure4": Report(Figure4Config, report_figure4),
    "curves": Report(CurvesConfig, report_curves),
    "runs": Report(RunListConfig, report_runs),
}


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="report")
@task
def main(composed: DictConfig) -> None:
    """Makes the report that the configuration names."""
    report = REPORTS[composed.report]
    report.make(read_settings(report.settings, composed))


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """Translates `REPORT [FOLDER ...] [runs=FOLDER,FOLDER] [KEY=VALUE ...]` for Hydra.

    Raises:
        UserError: No report, or none of this name.
    """
    if arguments and arguments[0].startswith("-"):
        return list(arguments)
    if not arguments or arguments[0] not in REPORTS:
        problem = f"there is no report {arguments[0]!r}" if arguments else "no report named"
        raise UserError(problem, do=f"Name one: python -m tpgr_jax.report {'|'.join(REPORTS)} [KEY=VALUE ...]")
    report, *rest = arguments
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


def _runs_override(folders: Sequence[str]) -> str:
    return f"runs={override_value(list(folders))}"


def command() -> None:
    """Runs `main` with the command line of this process."""
    sys.argv[1:] = hydra_arguments(sys.argv[1:])
    main()


if __name__ == "__main__":
    run_command(command)

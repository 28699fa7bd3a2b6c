"""Builds the paper's tables and figures: `python -m tpgr_jax.report table2|figure3|figure4|curves|runs ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import hydra
from omegaconf import DictConfig

from harness.command import run_command, task
from harness.reports import command as report_command
from harness.reports.command import Report, make_report
from harness.reports.run_list import RunListConfig, list_runs
from tpgr_jax.reports.curves import CurvesConfig, report_curves
from tpgr_jax.reports.figure3 import Figure3Config, report_figure3
from tpgr_jax.reports.figure4 import Figure4Config, report_figure4
from tpgr_jax.reports.results import SYSTEM, TpgrRunsConfig
from tpgr_jax.reports.table2 import report_table2

MODULE = "tpgr_jax.report"
REPORTS = {
    "table2": Report(TpgrRunsConfig, report_table2),
    "figure3": Report(Figure3Config, report_figure3),
    "figure4": Report(Figure4Config, report_figure4),
    "curves": Report(CurvesConfig, report_curves),
    "runs": Report(RunListConfig, partial(list_runs, find=SYSTEM.runs, system=SYSTEM)),
}


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="report")
@task
def main(composed: DictConfig) -> None:
    """Makes the report that the configuration names."""
    make_report(MODULE, REPORTS, composed)


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """Translates the arguments of this command, see `harness.reports.command`."""
    return report_command.hydra_arguments(MODULE, REPORTS, arguments)


def command() -> None:
    """Runs `main` with the command line of this process."""
    sys.argv[1:] = hydra_arguments(sys.argv[1:])
    main()


if __name__ == "__main__":
    run_command(command)

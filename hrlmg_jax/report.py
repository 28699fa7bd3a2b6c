"""Builds the paper's figures: `python -m hrlmg_jax.report figure6|figure7|figure8|alpha|goals|runs ...`."""

from __future__ import annotations

import sys
from functools import partial

import hydra
from omegaconf import DictConfig

from harness.command import run_command, task
from harness.reports.command import Report, hydra_arguments, make_report
from harness.reports.run_list import RunListConfig, list_runs
from harness.reports.system_results import RunsConfig
from hrlmg_jax.reports.figure6 import Figure6Config, report_figure6
from hrlmg_jax.reports.figures7_8 import report_figure7, report_figure8
from hrlmg_jax.reports.figures9_12 import SensitivityConfig, report_alpha, report_goals
from hrlmg_jax.reports.results import SYSTEM, hrl_mg_runs

MODULE = "hrlmg_jax.report"
REPORTS = {
    "figure6": Report(Figure6Config, report_figure6),
    "figure7": Report(RunsConfig, report_figure7),
    "figure8": Report(RunsConfig, report_figure8),
    "alpha": Report(SensitivityConfig, report_alpha),
    "goals": Report(SensitivityConfig, report_goals),
    "runs": Report(RunListConfig, partial(list_runs, find=hrl_mg_runs, system=SYSTEM)),
}


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="report_hrl_mg")
@task
def main(composed: DictConfig) -> None:
    """Makes the report that the configuration names."""
    make_report(MODULE, REPORTS, composed)


def command() -> None:
    """Runs `main` with the command line of this process."""
    sys.argv[1:] = hydra_arguments(MODULE, REPORTS, sys.argv[1:])
    main()


if __name__ == "__main__":
    run_command(command)

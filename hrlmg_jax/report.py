"""Builds the paper's figures: `python -m hrlmg_jax.report figure6|figure7|figure8|alpha|goals|runs ...`."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from harness.command import CONFIGURATION, run_command, task
from harness.reports.command import Report, hydra_arguments, make_report
from harness.reports.run_list import RunListConfig, list_runs
from harness.runs.index import RunRecord
from hrlmg_jax.reports.figure6 import Figure6Config, report_figure6
from hrlmg_jax.reports.figures7_8 import report_figure7, report_figure8
from hrlmg_jax.reports.figures9_12 import ALPHA, GOALS, SensitivityConfig, report_alpha, report_goals
from hrlmg_jax.reports.results import FigureConfig, has_goals, hrl_mg_runs, method_label


def report_runs(config: RunListConfig) -> None:
    """Prints all runs with their status and their reward on held-out users.

    Raises:
        UserError: A folder that was named does not exist, or there are no runs.
    """

    def value(run: RunRecord, key: str) -> str:
        return f"{run.settings[key]:g}" if has_goals(run) else ""

    columns = {
        "method": method_label,
        ALPHA.symbol: lambda run: value(run, ALPHA.key),
        GOALS.symbol: lambda run: value(run, GOALS.key),
    }
    list_runs(config, hrl_mg_runs, columns, "validation_reward")


MODULE = "hrlmg_jax.report"
REPORTS = {
    "figure6": Report(Figure6Config, report_figure6),
    "figure7": Report(FigureConfig, report_figure7),
    "figure8": Report(FigureConfig, report_figure8),
    "alpha": Report(SensitivityConfig, report_alpha),
    "goals": Report(SensitivityConfig, report_goals),
    "runs": Report(RunListConfig, report_runs),
}


@hydra.main(version_base="1.3", config_path=CONFIGURATION, config_name="report_hrl_mg")
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

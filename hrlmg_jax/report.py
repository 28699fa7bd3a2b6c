"""Builds the paper's figures: `python -m hrlmg_jax.report figure6|figure7|figure8|alpha|goals|runs ...`."""

from __future__ import annotations

from functools import partial

from harness.commands.command import run_command
from harness.reports.command import Report, report_command
from harness.reports.run_list import RunListConfig, list_runs
from hrlmg_jax.reports.figure6 import Figure6Config, report_figure6
from hrlmg_jax.reports.figures7_8 import report_figure7, report_figure8
from hrlmg_jax.reports.figures9_12 import SensitivityConfig, report_alpha, report_goals
from hrlmg_jax.reports.results import SYSTEM, hrl_mg_runs
from hrlmg_jax.reports.worlds import WorldsConfig

MODULE = "hrlmg_jax.report"
REPORTS = {
    "figure6": Report(Figure6Config, report_figure6),
    "figure7": Report(WorldsConfig, report_figure7),
    "figure8": Report(WorldsConfig, report_figure8),
    "alpha": Report(SensitivityConfig, report_alpha),
    "goals": Report(SensitivityConfig, report_goals),
    "runs": Report(RunListConfig, partial(list_runs, find=hrl_mg_runs, system=SYSTEM)),
}
main = report_command(MODULE, "report_hrl_mg", REPORTS)

if __name__ == "__main__":
    run_command(main)

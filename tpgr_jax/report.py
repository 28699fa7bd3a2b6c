"""Builds the paper's tables and figures: `python -m tpgr_jax.report table2|figure3|figure4|curves|runs ...`."""

from __future__ import annotations

from functools import partial

from harness.commands.command import run_command
from harness.reports.command import Report, report_command
from harness.reports.run_list import RunListConfig, list_runs
from tpgr_jax.reports.curves import CurvesConfig, report_curves
from tpgr_jax.reports.figure3 import Figure3Config, report_figure3
from tpgr_jax.reports.figure4 import Figure4Config, report_figure4
from tpgr_jax.reports.results import SYSTEM
from tpgr_jax.reports.table2 import Table2Config, report_table2

MODULE = "tpgr_jax.report"
REPORTS = {
    "table2": Report(Table2Config, report_table2),
    "figure3": Report(Figure3Config, report_figure3),
    "figure4": Report(Figure4Config, report_figure4),
    "curves": Report(CurvesConfig, report_curves),
    "runs": Report(RunListConfig, partial(list_runs, find=SYSTEM.runs, system=SYSTEM)),
}
main = report_command(MODULE, "report", REPORTS)

if __name__ == "__main__":
    run_command(main)

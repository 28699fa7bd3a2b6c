"""The commands of the system: `tpgr COMMAND`, or `python -m tpgr_jax COMMAND`."""

import tpgr_jax
from harness.commands.console import Command, run_console

COMMANDS = {
    "train": Command(
        "tpgr_jax.train", "train TPGR or a method that it is compared with (agent=dqn_r, agent=tpgr_plus)"
    ),
    "tune": Command("tpgr_jax.tune", "choose an agent's settings by users who are neither trained nor tested on"),
    "evaluate": Command("tpgr_jax.evaluate", "the metrics of a run on the users that no training has seen"),
    "recommend": Command("tpgr_jax.recommend", "what a run recommends: to one user, or to all of them into a file"),
    "export": Command("tpgr_jax.export", "a run as StableHLO with its arrays, for use without this package"),
    "serve": Command("tpgr_jax.serve", "what runs recommend over HTTP, and a page on which one plays the user"),
    "report": Command("tpgr_jax.report", "tables and figures from run folders: table2, figure3, figure4, curves, runs"),
    "bench": Command("tpgr_jax.bench", "speed and memory on this machine"),
    "data": Command("sim.data", "the statistics of a data set"),
}
"""Sub-commands, in the order of the guide."""


def main() -> None:
    """Runs the sub-command that the command line names."""
    run_console("tpgr", tpgr_jax, COMMANDS)


if __name__ == "__main__":
    main()

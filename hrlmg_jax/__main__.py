"""The commands of the system: `hrl-mg COMMAND`, or `python -m hrlmg_jax COMMAND`."""

import hrlmg_jax
from harness.commands.console import Command, run_console

COMMANDS = {
    "train": Command("hrlmg_jax.train", "train HRL-MG or a method that it is compared with (agent=ddpg, agent=hrl)"),
    "tune": Command("hrlmg_jax.tune", "choose an agent's settings by users who are neither trained nor tested on"),
    "evaluate": Command("hrlmg_jax.evaluate", "the online and the offline test of a run"),
    "recommend": Command("hrlmg_jax.recommend", "what a run recommends: to one user, or to all of them into a file"),
    "export": Command("hrlmg_jax.export", "a run as StableHLO with its arrays, for use without this package"),
    "serve": Command("hrlmg_jax.serve", "what runs recommend over HTTP, and a page on which one plays the user"),
    "report": Command("hrlmg_jax.report", "figures from run folders: figure6, figure7, figure8, alpha, goals, runs"),
    "fit_simulator": Command("hrlmg_jax.fit_simulator", "learn the users of a log once for many runs"),
    "trust": Command("hrlmg_jax.trust", "whether what learned users pay is what true users pay, on generated logs"),
    "gate": Command("hrlmg_jax.gate", "whether a generated log is worth learning from"),
    "bench": Command("hrlmg_jax.bench", "speed and memory on this machine"),
    "data": Command("sim.data", "the statistics of a log"),
}
"""Sub-commands, in the order of the guide."""


def main() -> None:
    """Runs the sub-command that the command line names."""
    run_console("hrl-mg", hrlmg_jax, COMMANDS)


if __name__ == "__main__":
    main()

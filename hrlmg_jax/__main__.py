"""Lists the commands of the package: `python -m hrlmg_jax`."""

import hrlmg_jax
from harness.command import run_command
from harness.guide import print_guide

if __name__ == "__main__":
    run_command(lambda: print_guide(hrlmg_jax))

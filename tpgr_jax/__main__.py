"""Lists the commands of the package: `python -m tpgr_jax`."""

import tpgr_jax
from harness.command import run_command
from harness.guide import print_guide

if __name__ == "__main__":
    run_command(lambda: print_guide(tpgr_jax))

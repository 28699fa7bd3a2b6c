"""The world: data, simulated users and evaluation. It knows the policy protocol, but no particular policy."""

import os
import sys

if sys.argv[:1] == ["-m"]:  # `python -m`, whose first path is the working folder: whatever lies there, these are ours
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from harness.commands.start import begin_command

    begin_command()

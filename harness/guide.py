"""`python -m PACKAGE`: the guide of a package, which is its docstring."""

from __future__ import annotations

import sys
from types import ModuleType

from harness.errors import UserError


def print_guide(package: ModuleType) -> None:
    """Prints the guide of a package, which lists its commands.

    Raises:
        UserError: There are arguments, which belong to one of the commands.
    """
    if sys.argv[1:] not in ([], ["-h"], ["--help"]):
        name = package.__name__
        raise UserError(
            f"python -m {name} takes no arguments", do=f"Name a command, such as python -m {name}.{sys.argv[1]} --help."
        )
    print(f"{package.__doc__}\nVersion {package.__version__}")

"""The console command of a system, `tpgr` or `hrl-mg`: its sub-commands are the modules that `python -m` runs.

Unlike `python -m`, which takes a module from the working folder if one of that name lies there, it always finds ours.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

from harness.commands.nearest import meant, nearest
from harness.commands.output import lasting_output
from harness.commands.start import begin_command
from harness.errors import UserError


class Command(NamedTuple):
    """A sub-command: the module whose `main` it calls, which is imported only then, and what it does."""

    module: str
    does: str


def run_console(name: str, package: ModuleType, commands: Mapping[str, Command]) -> None:
    """Runs `NAME COMMAND [ARGUMENTS]` with the arguments of this process; without a command prints the guide.

    Args:
        name: Of the console command.
        package: Of the system; its docstring begins the guide.
        commands: By name.
    """
    begin_command()
    words = sys.argv[1:]
    shown = {"--version": package.__version__}
    shown |= dict.fromkeys(("-h", "--help", "help"), guide(name, package, commands))
    first = words[0] if words else "help"
    if first in shown:
        with lasting_output():
            print(shown[first])
        return
    from harness.commands.command import run_command  # takes longer than the guide

    def main() -> None:
        command = named(name, words[0], commands)
        sys.argv = [f"{name} {words[0]}", *words[1:]]
        importlib.import_module(command.module).main()

    run_command(main)


def guide(name: str, package: ModuleType, commands: Mapping[str, Command]) -> str:
    """Returns the guide of a system: what it is, its commands, its functions."""
    width = max(map(len, commands)) + 3
    lines = [f"    {name} {command:<{width}}{of.does}" for command, of in commands.items()]
    example = next(iter(commands))
    return "\n".join(
        [
            f"{package.__doc__}",
            f"Commands ({name} {example} --help explains one; python -m {commands[example].module} is the same)",
            "",
            *lines,
            "",
            f"Version {package.__version__}",
        ]
    )


def named(name: str, word: str, commands: Mapping[str, Command]) -> Command:
    """Returns the sub-command of a name.

    Raises:
        UserError: There is none.
    """
    command = commands.get(word.replace("-", "_"))
    if command is None:
        listed = f"The commands are {', '.join(commands)}; {name} COMMAND --help explains one."
        raise UserError(f"{name} has no command {word!r}", do=f"{meant(nearest(word, list(commands)))}{listed}")
    return command

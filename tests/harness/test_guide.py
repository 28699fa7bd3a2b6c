"""`python -m PACKAGE` lists the commands that there are."""

import importlib
import importlib.metadata
import re

import pytest
from command_lines import assert_one_message


@pytest.mark.parametrize("package", ["tpgr_jax", "hrlmg_jax"])
def test_the_guide_names_commands_and_functions_that_exist(package, run_command_line, repository):
    shown = run_command_line(package)
    assert (shown.returncode, shown.stderr) == (0, "")
    module = importlib.import_module(package)
    assert module.__doc__ in shown.stdout
    assert module.__version__ == importlib.metadata.version("tpgr-jax")
    # Every command is listed, and nothing that is none.
    files = [path for path in (repository / package).glob("*.py") if 'if __name__ == "__main__"' in path.read_text()]
    commands = {f"{package}.{path.stem}" for path in files if path.stem != "__main__"}
    assert set(re.findall(rf"python -m ({package}\.\w+)", module.__doc__)) == commands
    for name, function in re.findall(
        rf"^    ({package}(?:\.\w+)+)\.((?:make|build|evaluate)_\w+)", module.__doc__, re.MULTILINE
    ):
        assert callable(getattr(importlib.import_module(name), function))


def test_a_command_without_its_dot_is_explained(run_command_line):
    assert_one_message(run_command_line("tpgr_jax", "train"), "python -m tpgr_jax.train --help")

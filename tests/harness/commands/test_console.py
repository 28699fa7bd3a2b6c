"""The console commands and their guide."""

import importlib
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys

import pytest

from harness.commands.console import guide, named
from harness.errors import UserError

SYSTEMS = {"tpgr_jax": "tpgr", "hrlmg_jax": "hrl-mg"}


def commands_of(package):
    return importlib.import_module(f"{package}.__main__").COMMANDS


@pytest.mark.parametrize(("package", "name"), SYSTEMS.items())
def test_the_guide_names_commands_and_functions_that_exist(package, name, repository):
    module = importlib.import_module(package)
    shown = guide(name, module, commands_of(package))
    assert module.__version__ == importlib.metadata.version("tpgr-jax")
    assert module.__version__ in shown
    # Every command is listed, and nothing that is none.
    files = [path for path in (repository / package).glob("*.py") if 'if __name__ == "__main__"' in path.read_text()]
    own = {f"{package}.{path.stem}" for path in files if path.stem != "__main__"}
    assert {command.module for command in commands_of(package).values()} == own | {"sim.data"}
    for command in commands_of(package).values():
        assert callable(importlib.import_module(command.module).main)
        assert command.does in shown
    assert set(re.findall(rf"^    {name} (\w+)", shown, re.MULTILINE)) == set(commands_of(package))
    for function, of in re.findall(
        rf"^    ({package}(?:\.\w+)+)\.((?:make|build|evaluate)_\w+)", module.__doc__, re.MULTILINE
    ):
        assert callable(getattr(importlib.import_module(function), of))


def test_console_commands_are_installed():
    scripts = {one.name: one.value for one in importlib.metadata.entry_points(group="console_scripts")}
    for package, name in SYSTEMS.items():
        assert scripts[name] == f"{package}.__main__:main"


def test_a_command_that_there_is_not():
    commands = commands_of("hrlmg_jax")
    assert named("hrl-mg", "fit-simulator", commands) is commands["fit_simulator"]
    with pytest.raises(
        UserError, match=r"^hrl-mg has no command 'trian'\n  Did you mean train\? The commands are train,"
    ):
        named("hrl-mg", "trian", commands)


NEEDED_LATER = (
    "fastapi",
    "gymnasium",
    "matplotlib",
    "optuna",
    "orbax",
    "pandas",
    "pooch",
    "requests",
    "scipy.optimize",
)
NEEDED_LATER += ("scipy.stats", "sklearn", "torch", "wandb")
NOT_IMPORTED = {
    "sim.data": (*NEEDED_LATER, "jax", "polars"),
    "tpgr_jax.train": (*NEEDED_LATER, "polars"),
    "tpgr_jax.recommend": NEEDED_LATER,
    "tpgr_jax.report": NEEDED_LATER,
    "hrlmg_jax.train": NEEDED_LATER,
}
"""Packages that take long to import, by a command that does not need them (yet) when it starts."""


def test_commands_start_without_what_they_do_not_need():
    # In one process: what a command imports is there for those after it, which are allowed no less.
    code = "import importlib, sys\n"
    code += f"for command, others in {NOT_IMPORTED}.items():\n"
    code += "    importlib.import_module(command)\n"
    code += "    assert not set(others) & set(sys.modules), (command, set(others) & set(sys.modules))\n"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_guide_imports_nothing_that_takes_time():
    code = "import sys, tpgr_jax.__main__ as commands; sys.argv[1:] = []; commands.main()"
    code += "; assert not {'jax', 'hydra', 'pydantic'} & set(sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tpgr evaluate" in shown.stdout
    read, write = os.pipe()
    os.close(read)  # as `tpgr | head -1` does
    assert subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=True).stderr == b""
    os.close(write)


def test_a_command_gets_its_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tpgr", "data", "data.size=tiny", "json=true"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_module("tpgr_jax", run_name="__main__")
    assert '"users"' in capsys.readouterr().out


OURS = """
import sys
print("the user's {name} ran")
"""


@pytest.mark.parametrize("command", [["-m", "tpgr_jax.report"], ["-m", "tpgr_jax", "data"], ["-m", "hrlmg_jax"]])
def test_nothing_in_the_working_folder_hides_our_modules(tmp_path, command):
    for name in (
        "conf",
        "sim",
        "harness",
        "numpy",
        "hydra",
        "jax",
        "hrlmg_jax" if "tpgr" in command[1] else "tpgr_jax",
    ):
        (tmp_path / f"{name}.py").write_text(OURS.format(name=name))
    for name in ("conf", "sim"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OURS.format(name=name))
    done = subprocess.run([sys.executable, *command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the user's" not in done.stdout + done.stderr
    assert "python -m" in done.stdout or "hrl-mg train" in done.stdout


def test_modules_of_the_working_folder_are_found_after_ours(tmp_path):
    (tmp_path / "mine.py").write_text("print('mine')")
    code = (
        "from harness.commands.start import begin_command; begin_command(); import mine, sim, conf; print(sim.__file__)"
    )
    (tmp_path / "sim.py").write_text("raise SystemExit('not ours')")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("mine"), done.stderr
    assert str(tmp_path) not in done.stdout

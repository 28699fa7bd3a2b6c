"""Settings that every test shares."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from command_lines import commands_forked, run_module
from long_tests import Part, part
from quick_compilation import UNFUSED, UNOPTIMISED, compiled, with_flag

from harness.compute.vector_width import choose_vector_width

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = with_flag(os.environ.get("XLA_FLAGS", ""), UNFUSED)
choose_vector_width()  # as the commands do, which tests compare with what they compute themselves
jax.config.update("jax_num_cpu_devices", 8)  # for the tests of many devices; all others compute on the first
# Of equal programs one is compiled, in this process and in the commands that it starts: many functions are made anew.
COMPILED = tempfile.mkdtemp(prefix="compiled-")
os.environ |= {"JAX_COMPILATION_CACHE_DIR": COMPILED, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


_DUE = pytest.StashKey[Part | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--long-part`."""
    parser.addoption("--long-part", metavar="K/N", help="the part of the long tests that is marked `due`, for -m due")


def pytest_configure(config: pytest.Config) -> None:
    """Reads `--long-part`; has the compiled programs removed at the end."""
    config.add_cleanup(lambda: shutil.rmtree(COMPILED, ignore_errors=True))
    text = config.getoption("--long-part")
    try:
        config.stash[_DUE] = None if text is None else part(text)
    except ValueError as error:
        raise pytest.UsageError(f"--long-part: {error}") from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says which long tests are due, and how to repeat them."""
    text = config.getoption("--long-part")
    return f"long tests due: part {text}; alone: python -m pytest -m due --long-part={text}" if text else None


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the long tests that are due; puts the files that take minutes first, so that workers end together."""
    if due := config.stash[_DUE]:
        for item in due.of([item for item in items if item.get_closest_marker("long")]):
            item.add_marker("due")
    slow = ("commands", "benchmark", "movielens", "old_runs", "damage", "value_tree", "unseen", "export", "funnel")
    items.sort(key=lambda item: not any(name in item.path.name for name in slow))


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs() -> Iterator[None]:
    """Keeps thousands of programs from filling the memory of a test process."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiles without optimisation, but for modules marked `optimised`, which compute more than they compile."""
    with compiled(request.node.get_closest_marker("optimised") is not None):
        yield


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> Path:
    """The cache of generated tables, which takes most of a session's start: one for all tests and their commands."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tables"


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory, tables) -> Iterator[dict[str, str]]:
    """Environment of the commands under test: own caches, no real data."""
    folder = tmp_path_factory.mktemp("commands")
    hidden = {"TPGR_JAX_DATA"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "TPGR_JAX_CACHE": str(tables),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {UNOPTIMISED}",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONWARNINGS": "default",
    }
    with commands_forked(environment):
        yield environment


@pytest.fixture
def run_command_line(command_environment, tmp_path):
    """Returns a function that runs `python -m MODULE ARGUMENTS` in an empty folder and returns the finished process."""

    def run(
        module: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run_module(tmp_path, command_environment | (environment or {}), module, *arguments)

    return run


@pytest.fixture
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).parent.parent

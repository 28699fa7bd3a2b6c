"""README and documents: short where they promise it, and every command in them works.

By default each command is split as a shell splits it and composed or parsed; `pytest -m docs` runs them, with few steps
and small data, and the examples.
"""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_lines import run_module, trained_run
from document_commands import DOCUMENTS, ROOT, Command, commands, shortened, side_by_side, without_sweep
from hydra import initialize_config_module
from impression_logs import kuairand_files, write_files

from harness.reports.command import hydra_arguments
from harness.runs.composition import composed_values, sweep_of
from harness.runs.index import flattened
from harness.serving.__main__ import read_words
from harness.settings import read_settings


class Entry(NamedTuple):
    """A command of ours: its configuration, and where the settings class is that reads it."""

    configuration: str
    settings: str


ENTRIES = {
    "tpgr_jax.train": Entry("train", "tpgr_jax.settings:RunConfig"),
    "tpgr_jax.evaluate": Entry("evaluate", "tpgr_jax.evaluate:EvaluateConfig"),
    "tpgr_jax.recommend": Entry("recommend", "tpgr_jax.recommend:Config"),
    "hrlmg_jax.recommend": Entry("recommend_hrl_mg", "hrlmg_jax.recommend:Config"),
    "tpgr_jax.export": Entry("export", "tpgr_jax.export:Config"),
    "hrlmg_jax.export": Entry("export_hrl_mg", "hrlmg_jax.export:Config"),
    "tpgr_jax.serve": Entry("serve", "tpgr_jax.serve:Config"),
    "hrlmg_jax.serve": Entry("serve_hrl_mg", "hrlmg_jax.serve:Config"),
    "tpgr_jax.tune": Entry("tune", "tpgr_jax.settings:TuneConfig"),
    "hrlmg_jax.tune": Entry("tune_hrl_mg", "hrlmg_jax.settings:TuneConfig"),
    "hrlmg_jax.train": Entry("train_hrl_mg", "hrlmg_jax.settings:RunConfig"),
    "hrlmg_jax.evaluate": Entry("evaluate_hrl_mg", "hrlmg_jax.evaluate:EvaluateConfig"),
    "hrlmg_jax.fit_simulator": Entry("fit_simulator", "hrlmg_jax.settings:FitConfig"),
    "hrlmg_jax.gate": Entry("gate", "hrlmg_jax.gate:GateConfig"),
    "hrlmg_jax.trust": Entry("trust", "hrlmg_jax.trust:TrustConfig"),
    "sim.data": Entry("data_statistics", ""),
}
_DATA = {
    "events": "sim.datasets.log_settings:LogConfig",
    "ratings": "sim.datasets.rating_settings:DataConfig",
    "auto": "sim.datasets.auto:AutoConfig",
}
REPORTS = {"tpgr_jax.report": "report", "hrlmg_jax.report": "report_hrl_mg"}
BENCHMARKS = ("tpgr_jax.bench", "hrlmg_jax.bench")
SERVER = "harness.serving"
NOT_OURS = ("pip", "pytest", "venv", "mkdocs")
OF_THE_SYSTEM = ("curl", "kill")
HYDRA_ONLY = ("--help", "--cfg")  # these print something and run nothing


@pytest.fixture(scope="module", autouse=True)
def _configurations():
    """Opens the configurations once for all commands."""
    with initialize_config_module("conf", version_base="1.3"):
        yield


def test_readme_is_one_page_and_names_the_two_lines():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert [line.rpartition(" && ")[2] for line in lines] == ["python -m tpgr_jax.train", "python -m pytest -n 2"]


def test_floor_plan_names_folders_that_exist():
    text = (ROOT / "README.md").read_text()
    plan = re.search(r"## Floor plan\n\n```\n(.*?)```", text, re.DOTALL)
    assert plan
    for line in plan[1].splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(path):
    generated = ("api/", "examples/")  # pages that docs/hooks.py makes; the strict build checks them
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", path.read_text()):
        if target and "://" not in target and not target.startswith(generated):
            assert (path.parent / target).exists(), target


def test_documents_name_files_that_exist():
    for path in DOCUMENTS:
        folders = "conf|docs|harness|hrlmg_jax|sim|tests|tpgr_jax"
        for name in re.findall(rf"`((?:{folders})/[\w/]+(?:/|\.py|\.yaml))`", path.read_text()):
            assert (ROOT / name).exists() or name.rpartition("/")[2].startswith(("NAME", "my_")), f"{path.name}: {name}"


@pytest.mark.parametrize("command", commands(), ids=str)
def test_command_composes(command):
    _check(command)


def _check(command: Command) -> None:
    module, arguments = command.module, command.arguments if command.module else []
    if any(argument.startswith(HYDRA_ONLY) for argument in arguments) or arguments == ["list"]:
        return
    if module in ENTRIES:
        for job in without_sweep(arguments):
            _compose(module, job)
    elif module in REPORTS:
        _compose_report(module, arguments)
    elif module in BENCHMARKS:
        sections = arguments[arguments.index("--only") + 1 :] if "--only" in arguments else []
        assert {section for section in sections if section.isidentifier()} <= set(
            importlib.import_module(module).SECTIONS
        )
    elif module == "pip":
        _check_extras(arguments)
    elif module == "pytest":
        if "-m" in arguments:
            _check_marker(arguments[arguments.index("-m") + 1])
    elif module is None and command.words[1:2] == ("-c",):
        ast.parse(command.words[2])
    elif module == SERVER:
        read_words(arguments)
    elif module is None and command.words[0] in OF_THE_SYSTEM:
        return
    elif module is None:
        assert command.words[0] == "python", f"{command} is no command that this test knows"
        assert (ROOT / command.words[1]).is_file()
    else:
        assert module in NOT_OURS, f"{command} is no command that this test knows"


def _compose(module: str, arguments: list[str]) -> None:
    entry = ENTRIES[module]
    experiment = next((word.partition("=")[2] for word in arguments if word.startswith("+experiment=")), None)
    for job in _jobs(experiment, arguments):
        values = composed_values(entry.configuration, job)
        if entry.settings:
            read_settings(_named(entry.settings), values)
        else:
            read_settings(_named(_DATA[values["data"]["kind"]]), values["data"], "data")


def _jobs(experiment: str | None, arguments: list[str]) -> list[list[str]]:
    """Returns jobs that show each value of an experiment's own sweep; of all others the arguments themselves."""
    given = {word.partition("=")[0] for word in arguments}
    swept = {key: values for key, values in _sweep(experiment).items() if key not in given and key != "seed"}
    chosen = side_by_side([[f"{key}={value}" for value in values] for key, values in swept.items()])
    return [arguments + job for job in chosen]


def _sweep(experiment: str | None) -> dict[str, list[Any]]:
    try:
        return sweep_of(experiment) if experiment else {}
    except KeyError:
        return {}


def _compose_report(module: str, arguments: list[str]) -> None:
    command = importlib.import_module(module)
    translated = hydra_arguments(module, command.REPORTS, arguments)
    values = composed_values(REPORTS[module], translated)
    read_settings(command.REPORTS[arguments[0]].settings, values)


def _check_extras(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for argument in arguments:
        for extra in re.findall(r"\.\[(\w+)\]", argument):
            assert extra in project["optional-dependencies"]


def _check_marker(name: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert name in [marker.partition(":")[0] for marker in settings["markers"]]


def _named(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


# What needs a cluster, hours, or another environment is composed and not run.
_NOT_RUN = ("submitit", "coordinator")
_SCRIPTS = {"tests/kill_and_resume.py": "--kills=1", "tests/bad_input.py": "--cases=3"}
_HAVE_RUN: set[tuple[str, ...]] = set()
_OF_TPGR, _OF_HRL_MG = "outputs/DAY/TIME", "outputs/LOG/TIME"
_JDATA = Path(os.environ.get("TPGR_JAX_DATA", "")) / "jdata-sample"


def _runnable(command: Command) -> bool:
    if command.words[0] == "srun" or any(part in word for word in command.words for part in _NOT_RUN):
        return False
    if any("jdata" in word for word in command.words) and not _JDATA.is_dir():  # must be placed by hand
        return False
    if (command.module or "").endswith(".serve") or command.words[0] in OF_THE_SYSTEM:  # it does not end, or asks it
        return False
    if "served" in " ".join(command.words):  # a log that a server has to write first
        return False
    return command.module in {*ENTRIES, *REPORTS, *BENCHMARKS} or command.words[1] in {"-c", *_SCRIPTS}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, command_environment) -> tuple[Path, dict[str, str]]:
    """A folder with the files and run folders that the documents speak of, and an environment without network."""
    folder = tmp_path_factory.mktemp("documents")
    environment = command_environment | {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    _write_data(folder)
    for module, run in (("tpgr_jax.train", _OF_TPGR), ("hrlmg_jax.train", _OF_HRL_MG)):
        trained_run(folder, environment, module, *_short_job(module, []))
        (folder / run).parent.mkdir(parents=True)
        (folder / "run").rename(folder / run)
    trained_run(folder, environment, "tpgr_jax.train", *_short_job("tpgr_jax.train", ["num_seeds=2"]))
    (folder / "run").rename(folder / "outputs" / "SEEDS")
    return folder, environment


def _write_data(folder: Path) -> None:
    random = np.random.default_rng(0)
    ratings, events, visits = ["user,item,stars"], ["user,item,time,event"], ["visitor\tproduct\twhen\twhat"]
    for user in range(60):
        for place, item in enumerate(random.choice(40, 12, replace=False)):
            minute = 60 * user + place
            ratings.append(f"u{user},i{item},{1 + item % 5}")
            events.append(f"u{user},i{item},{1_700_000_000 + 60 * minute},{('skip', 'click', 'order')[item % 3]}")
            time = f"2024-01-{1 + minute // 1440:02} {minute // 60 % 24:02}:{minute % 60:02}:00"
            visits.append(f"v{user}\tp{item}\t{time}\t{('shown', 'click', 'buy')[item % 3]}")
    items = ["item,title,genres", *(f"i{item},Title {item},Drama|War" for item in range(40))]
    files = (("ratings.csv", ratings), ("events.csv", events), ("visits.tsv", visits), ("items.csv", items))
    for name, lines in files:
        (folder / name).write_text("\n".join(lines) + "\n")
    lists = {"users.txt": "3\n5\nnobody\n", "sold_out.txt": "1\n2\n", "history.csv": "item,rating\n1,5\n2,\n"}
    for name, text in (lists | {"new_user.csv": "1,5\n"}).items():
        (folder / name).write_text(text)
    own = re.search(r"```python\n(# my\.py\n.*?)```", (ROOT / "docs" / "environments.md").read_text(), re.DOTALL)
    assert own
    (folder / "my.py").write_text(own[1])
    write_files(folder / "outputs" / "KuaiRand-1K" / "data", kuairand_files(0, "1k", users=40))


@pytest.mark.docs
@pytest.mark.parametrize("command", [command for command in commands() if _runnable(command)], ids=str)
def test_command_runs(command, workplace):
    folder, environment = workplace
    if any("jdata" in word for word in command.words):
        environment = environment | {"TPGR_JAX_DATA": str(_JDATA.parent)}
    if command.module is None:
        words = [sys.executable, *(_placed(command, word) for word in command.words[1:])]
        if script := _SCRIPTS.get(command.words[1]):
            words = [sys.executable, str(ROOT / command.words[1]), *words[2:], script]
            environment = environment | {"PYTHONPATH": str(ROOT)}
        finished = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    else:
        arguments = [_placed(command, word) for word in command.arguments]
        arguments = _short_report(command, arguments) if command.module in REPORTS else _short_words(command, arguments)
        if (command.module, *arguments) in _HAVE_RUN:  # they differ in what a short run leaves out
            return
        _HAVE_RUN.add((command.module, *arguments))
        finished = run_module(folder, environment, command.module, *arguments)
    allowed = (0, 1) if command.module == "hrlmg_jax.gate" else (0,)  # 1: so small a log is not worth learning from
    assert finished.returncode in allowed, finished.stderr
    assert "Traceback" not in finished.stderr


def _placed(command: Command, word: str) -> str:
    """Puts the run folder of the right system in place of the document's."""
    of_log = command.document == "docs/hrl_mg.md" or (command.module or "").startswith("hrlmg_jax")
    return word.replace(f"{_OF_TPGR}/seed", "outputs/SEEDS/seed").replace(_OF_TPGR, _OF_HRL_MG if of_log else _OF_TPGR)


def _short_words(command: Command, arguments: list[str]) -> list[str]:
    if command.module in BENCHMARKS:
        return [*arguments, "--smoke"]
    if any(word.startswith(HYDRA_ONLY) for word in arguments) or arguments == ["list"]:
        return arguments
    if any(word.startswith("resume=") for word in arguments):
        return [word.replace("train.steps=2000", "train.steps=8") for word in arguments]
    launching = [word for word in arguments if word == "-m" or word.startswith(("hydra/", "hydra.launcher"))]
    return launching + _short_job(command.module or "", without_sweep(arguments)[0])


def _short_job(module: str, job: list[str]) -> list[str]:
    given = {word.partition("=")[0] for word in job}
    experiment = next((word.partition("=")[2] for word in job if word.startswith("+experiment=")), None)
    swept = [f"{key}={values[0]}" for key, values in _sweep(experiment).items() if key not in given]
    values = composed_values(ENTRIES[module].configuration, job + swept)
    return shortened(job + swept, {key for key, _ in flattened(values)})


def _short_report(command: Command, arguments: list[str]) -> list[str]:
    if arguments[0] == "figure3":
        return [*arguments, "data.fallback_size=tiny"]
    folder = Path(_OF_HRL_MG if command.module == "hrlmg_jax.report" else _OF_TPGR).parent
    return [
        arguments[0],
        str(folder),
        *(word for word in arguments[1:] if "=" in word and not word.startswith("runs=")),
    ]


@pytest.mark.docs
@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(script, command_environment, tmp_path):
    environment = command_environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    finished = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr

"""An agent, a data set and a simulator from outside the packages, through the real commands."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_lines import assert_one_message, metrics_without_times, run_module

from harness.errors import UserError
from harness.extensions import load_module
from harness.runs.composition import composed_values
from harness.settings import read_settings
from tpgr_jax.registry import AGENTS
from tpgr_jax.settings import RunConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own_parts"
COMMAND = ("--config-dir", "conf", "agent=toy", "data=toy", "env=toy")
SHORT = ("train.episodes_per_step=32", *(f"train.{each}_every=10" for each in ("log", "evaluate", "checkpoint")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The user's folder: modules and configuration, far from the packages."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("outside") / "own_parts"))


@pytest.fixture(scope="module")
def trained(folder, command_environment) -> subprocess.CompletedProcess:
    return run_module(
        folder, command_environment, "tpgr_jax.train", *COMMAND, *SHORT, "train.steps=20", "hydra.run.dir=run"
    )


def test_they_train_and_learn(folder, trained):
    assert trained.returncode == 0, trained.stderr
    assert "toy: means of 20 items" in trained.stderr
    policies = json.loads((folder / "run" / "eval.json").read_text())["policies"]
    # It learns one list for everybody, which the best fixed list of the training users' ratings bounds.
    assert policies["toy"]["reward"] > 0.7 * policies["best_fixed_list"]["reward"]
    assert policies["toy"]["reward"] > 1.4 * policies["random"]["reward"]
    assert json.loads((folder / "run" / "eval.json").read_text())["protocol"]["attention"] == 0.8
    arrays = np.load(folder / "run" / "eval.npz", allow_pickle=False)
    assert all(len(set(row)) == 5 for row in arrays["items"])
    assert [row["step"] for row in metrics_without_times(folder / "run")] == [10, 20]


def test_such_a_run_is_evaluated_and_continued(folder, trained, command_environment):
    assert trained.returncode == 0, trained.stderr
    before = (folder / "run" / "eval.json").read_text()
    evaluated = run_module(folder, command_environment, "tpgr_jax.evaluate", "run=run")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((folder / "run" / "eval.json").read_text()) == json.loads(before)
    resumed = run_module(folder, command_environment, "tpgr_jax.train", "resume=run", "train.steps=30")
    assert resumed.returncode == 0, resumed.stderr
    assert metrics_without_times(folder / "run")[-1]["step"] == 30


def test_what_cannot_be_found_is_one_message(folder, trained, command_environment, tmp_path):
    run = folder / "run"
    elsewhere = run_module(tmp_path, command_environment, "tpgr_jax.evaluate", f"run={run}")
    assert_one_message(elsewhere, "module", "cannot be imported", "PYTHONPATH")
    # The paper's agent beyond the paper reads the tables of the paper's simulator.
    other = run_module(folder, command_environment, "tpgr_jax.train", *COMMAND, "agent=tpgr_plus", *SHORT)
    assert_one_message(other, "tpgr_plus", "toy_env", "env=rating")
    # Others read fields that these observations do not have.
    other = run_module(folder, command_environment, "tpgr_jax.train", *COMMAND, "agent=linear_ucb", *SHORT)
    assert_one_message(other, "linear_ucb", "last_empirical", "env.module")


def test_the_statistics_of_the_data_set(folder, command_environment):
    printed = run_module(folder, command_environment, "sim.data", "--config-dir", "conf", "data=toy", "json=true")
    assert printed.returncode == 0, printed.stderr
    assert (json.loads(printed.stdout)["users"], json.loads(printed.stdout)["items"]) == (60, 20)


def test_an_error_of_ones_own_module_is_not_taken_for_a_wrong_setting(tmp_path, monkeypatch):
    (tmp_path / "of_a_user.py").write_text("raise ValueError('boom')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="of_a_user") as caught:
        read_settings(RunConfig, composed_values("train", ["+agent.module=of_a_user"]))
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("+agent.module=there_is_no_such", ["agent.module", "cannot be imported"]),
        ("+agent.module=no/path", ["agent.module", "dotted path"]),
        ("+agent.module=3", ["agent.module", "dotted path"]),
        ("+agent.module=json", ["agent.module", "Settings and build"]),
        ("+agent.module=sim.envs.rating_env", ["agent.module", "AgentSettings"]),
        ("+env.module=tpgr_jax.agents.tpgr", ["env.module", "EnvSettings"]),
        ("data.module=json", ["data.module", "Settings"]),
        ("data.reader=module", ["data.reader"]),
        ("agent.name=unknown", ["agent.name", "tpgr_plus"]),
    ],
)
def test_modules_that_cannot_be_used_are_named_with_what_to_do(override, parts):
    with pytest.raises(UserError) as caught:
        read_settings(RunConfig, composed_values("train", [override]))
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_of_the_table_is_one_module(name):
    needed = ["agent.path=my.py:policy"] if name == "python" else []
    config = read_settings(RunConfig, composed_values("train", [f"agent={name}", *needed]))
    module = load_module(AGENTS[name], "agent.name", ("Settings", "build"))
    assert type(config.agent) is module.Settings
    assert config.agent.name == name

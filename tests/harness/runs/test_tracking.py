"""Metrics for Weights & Biases, with a stand-in for its package."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import UserError
from harness.runs.run_folder import RunFolder
from harness.runs.tracking import FILES, LoggerConfig, check_logger, tracking
from harness.settings import read_settings

WANDB = {"name": "wandb", "project": "films", "entity": None, "mode": "offline"}


class StandIn:
    """A run that keeps what it is given; it may refuse to log."""

    def __init__(self, **settings):
        self.settings, self.rows, self.refuses, self.exit_code = settings, [], False, None

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, row):
        if self.refuses:
            raise RuntimeError("no route")
        self.rows.append(row)

    def finish(self, exit_code):
        if self.refuses:
            raise RuntimeError("no route")
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch) -> list[StandIn]:
    opened: list[StandIn] = []

    def init(**settings):
        opened.append(StandIn(**settings))
        return opened[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    return opened


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.start({"seed": 3})
    return folder


def test_by_default_metrics_go_nowhere_else(folder, runs):
    with tracking(FILES, folder, {}) as log:
        log(1, {"reward": 0.5})
    assert not runs
    assert not (folder.path / "wandb_id").exists()


def test_rows_configuration_and_labels_arrive(folder, runs):
    with tracking(read_settings(LoggerConfig, WANDB, "logger"), folder, {"synthetic": True}) as log:
        log(2, {"reward": 0.5})
        log(4, {"reward": 0.75})
    assert runs[0].rows == [{"step": 2, "reward": 0.5}, {"step": 4, "reward": 0.75}]
    assert runs[0].settings["config"] == {"seed": 3, "synthetic": True}
    assert (runs[0].settings["project"], runs[0].settings["mode"]) == ("films", "offline")
    assert runs[0].exit_code == 0


def test_a_resumed_run_is_the_same_run_there(folder, runs):
    config = read_settings(LoggerConfig, WANDB, "logger")
    for _ in range(2):
        with tracking(config, folder, {}):
            pass
    assert runs[0].settings["id"] == runs[1].settings["id"]
    assert runs[0].settings["resume"] == "allow"


def test_training_survives_a_service_that_fails(folder, runs, capsys):
    with tracking(read_settings(LoggerConfig, WANDB, "logger"), folder, {}) as log:
        runs[0].refuses = True
        log(2, {"reward": 0.5})
        log(4, {"reward": 0.5})
    assert capsys.readouterr().err.count("warning: Weights & Biases rejected the metrics (no route)") == 1


def test_a_failed_run_is_marked(folder, runs):
    with pytest.raises(ZeroDivisionError), tracking(read_settings(LoggerConfig, WANDB, "logger"), folder, {}):
        raise ZeroDivisionError
    assert runs[0].exit_code == 1


def test_what_is_missing_is_said_before_training(folder, monkeypatch):
    config = read_settings(LoggerConfig, WANDB, "logger")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_logger(config)
    check_logger(FILES)

    def refuse(**settings):
        raise RuntimeError("api_key\nnot configured")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse, Settings=dict))
    with pytest.raises(UserError, match=r"cannot be used \(api_key not configured\)"), tracking(config, folder, {}):
        pass
    with pytest.raises(UserError, match=r"logger\.project"):
        read_settings(LoggerConfig, {**WANDB, "project": None}, "logger")

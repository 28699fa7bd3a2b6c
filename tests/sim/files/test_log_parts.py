"""Runs on logs that grow: what was read at the start is what is read later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tpgr_jax
from harness.errors import UserError
from harness.phases import Phases
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import Run
from harness.serving.decision_log import DecisionLog
from harness.settings import read_settings
from hrlmg_jax import train as log_train
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.files.log_parts import checksum_of_parts, log_parts, log_sources, with_log_parts
from sim.formats.sources import Source, checksum
from tpgr_jax import train as ratings_train


def write(folder: Path, users: int, first: int = 0) -> Path:
    """Lists and ratings of some users."""
    log = DecisionLog(folder)
    for user in range(first, first + users):
        log.decision(f"d{user}", "model", "tpgr", user, [1, 2, 3], [0] * 3, [1.0] * 3)
        for item in (1, 2, 3):
            log.answer(f"d{user}", item, float(1 + (user + item) % 5), user)
    log.close()
    return max(folder.glob("*.jsonl"))


def test_a_run_is_used_while_its_log_grows(tmp_path):
    first = write(tmp_path / "served", 20)
    words = ["data=served_ratings", f"data.path={tmp_path}/served/*.jsonl", f"data.cache={tmp_path}/tables"]
    words += ["agent=popularity", "env.episode_length=2"]
    ratings_train.train([Run(composed_values("train", words), RunFolder(tmp_path / "run"))], False, Phases())
    noted = RunFolder(tmp_path / "run").read_config()["data"]["log_parts"]
    assert noted == [f"{first.name}:{first.stat().st_size}"]
    # A line more, and another file.
    with first.open("a") as file:
        file.write(first.read_text().splitlines()[1].replace('"user":0', '"user":77') + "\n")
    write(tmp_path / "served", 3, 90)
    recommender = tpgr_jax.load(f"{tmp_path}/run")
    assert recommender.recommend([19], 3).ids.shape[0] == 1
    assert recommender.system.user_ids.tolist() == list(range(20))
    # What was read is no longer there.
    first.write_text("{}")
    with pytest.raises(UserError, match=r"the run was trained on \d"):
        tpgr_jax.load(f"{tmp_path}/run")
    first.unlink()
    with pytest.raises(UserError, match=rf"(?s)trained on {first.name}, which is not there.*log_mb"):
        tpgr_jax.load(f"{tmp_path}/run")


def test_a_log_of_events_too(tmp_path, monkeypatch):
    first = write(tmp_path, 20)
    words = ["data=served_log", f"data.path={tmp_path}/*.jsonl", f"data.cache={tmp_path}/tables"]
    words += ["+data.least_rating={click: 3, order: 5}", "data.split=none"]
    seen: list[Any] = []
    monkeypatch.setattr(log_train, "read_settings", lambda _, values: seen.append(values) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log_train.train([Run(composed_values("train_hrl_mg", words), RunFolder(tmp_path / "run"))], False, None)
    config = read_settings(LogConfig, seen[0]["data"], "data")
    before = load_log(config)
    with first.open("a") as file:
        line = first.read_text().splitlines()[0].replace('"d0"', '"d77"').replace('"user":0', '"user":77')
        file.write(f"{line}\n{line[:50]}")  # the last one is being written
    write(tmp_path, 3, 90)
    after = load_log(config)
    assert (after.checksum, after.table_hash) == (before.checksum, before.table_hash)
    np.testing.assert_array_equal(after.user_ids, np.arange(20))


def test_files_of_one_name_are_told_apart_by_their_order(tmp_path):
    files = [tmp_path / folder / "a.jsonl" for folder in "xyz"]
    for file, text in zip(files, ("1", "22", "333"), strict=True):
        file.parent.mkdir()
        file.write_text(text)
    sources = [Source(file) for file in files]
    parts = log_parts(sources)
    assert [part.size for part in parts] == [1, 2, 3]
    assert checksum_of_parts(parts) == checksum(files)
    assert log_parts(sources, ["a.jsonl:1", "a.jsonl:2"]) == parts[:2]
    with pytest.raises(UserError, match=r"data\.log_parts"):
        log_parts(sources, ["a.jsonl"])


def test_empty_files_are_those_of_servers_that_have_just_begun(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UserError, match="the log is empty"):
        log_sources(f"{tmp_path}/*.jsonl")
    (tmp_path / "b.jsonl").write_text("1")
    assert log_sources(f"{tmp_path}/*.jsonl") == [Source(tmp_path / "b.jsonl")]
    with pytest.raises(UserError, match="no such file"):
        log_sources(str(tmp_path / "c.jsonl"))


def test_other_data_note_nothing(tmp_path):
    runs = [Run({"data": {"path": str(tmp_path)}}, RunFolder(tmp_path))]
    assert with_log_parts(runs) == runs

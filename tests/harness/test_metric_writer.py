import json

import pytest

from harness.metric_writer import MetricWriter, read_rows
from sim.errors import UserError


def write(path, steps, last_step=0):
    with MetricWriter(path, last_step) as writer:
        for step in steps:
            writer.write(step, {"reward": step / 10})


def test_rows_and_events(tmp_path):
    write(tmp_path / "metrics.jsonl", [1, 2])
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}]
    assert list(tmp_path.glob("events.*"))


def test_resumed_run_has_each_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2, 3])
    write(path, [3, 4], last_step=2)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4]


def test_line_cut_short_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2])
    path.write_text(path.read_text() + '{"step": 3, "rew')
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    write(path, [3], last_step=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_damage_elsewhere_is_reported_with_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_rows(path)

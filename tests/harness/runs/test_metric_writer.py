import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.runs.metric_writer import MetricWriter, read_rows


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


@pytest.mark.parametrize("line", ["nonsense", "1", "[]", '{"a": 1}', '{"step": "x"}'])
def test_damage_elsewhere_is_reported_with_its_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match="line 2"):
        read_rows(path)


def test_undecodable_bytes_are_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_rows(tmp_path / "metrics.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_clear_error(tmp_path):
    writer = MetricWriter(tmp_path / "metrics.jsonl", 0)
    writer._file.close()
    writer._file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(UserError, match="No space left"):
        writer.write(1, {"reward": 0.5})


def test_labels_are_in_every_row(tmp_path):
    with MetricWriter(tmp_path / "metrics.jsonl", 0, {"synthetic": True}) as writer:
        writer.write(1, {"reward": 0.5})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "synthetic": True, "reward": 0.5}]


def test_missing_rows_are_mentioned(tmp_path, capsys):
    write(tmp_path / "metrics.jsonl", [1])
    write(tmp_path / "metrics.jsonl", [4], last_step=3)
    assert "lacks rows up to step 3" in capsys.readouterr().err

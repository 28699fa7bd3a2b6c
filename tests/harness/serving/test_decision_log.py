"""The log of a server: files of limited size, several writers, a disk that is full."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.serving import decision_log
from harness.serving.decision_log import PATTERN, DecisionLog


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob(PATTERN)) for line in file.read_text().splitlines()]


def test_log_files_are_limited(tmp_path):
    log = DecisionLog(tmp_path, file_mb=1, folder_mb=3)
    text = "x" * 100_000
    for number in range(60):
        log.answer(str(number), text, None, None)
    log.close()
    files = sorted(tmp_path.glob(PATTERN))
    assert 2 <= len(files) <= 4
    assert logged(tmp_path)[-1]["answer_to"] == "59"
    assert log.removed > 2
    assert sum(file.stat().st_size for file in files) < 3.5 * 2**20
    with pytest.raises(UserError, match="cannot be written"):
        DecisionLog(files[0])


def test_a_small_log_keeps_what_an_earlier_start_wrote(tmp_path, capsys):
    for number in range(3):
        log = DecisionLog(tmp_path, folder_mb=1)
        log.answer(str(number), 1, None, None)
        log.close()
    assert sorted(line["answer_to"] for line in logged(tmp_path)) == ["0", "1", "2"]
    assert "removed" not in capsys.readouterr().err


def test_files_that_another_server_appends_to_stay(tmp_path, capsys):
    other = DecisionLog(tmp_path, folder_mb=1)
    other.answer("first", 1, None, None)
    log = DecisionLog(tmp_path, folder_mb=1)
    for _ in range(20):
        assert log.answer("big", "x" * 100_000, None, None)
    other.answer("last", 1, None, None)
    kept = [line["answer_to"] for line in logged(tmp_path)]
    assert kept[0] == "first"
    assert "last" in kept
    assert log.removed > 0
    assert "oldest files removed" in capsys.readouterr().err
    # When it has ended, its file is one of the oldest.
    other.close()
    for _ in range(20):
        log.answer("big", "x" * 100_000, None, None)
    assert "first" not in [line["answer_to"] for line in logged(tmp_path)]
    log.close()


class FullDisk:
    """A file that takes some bytes of a line, and then none."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, content: bytes) -> int:
        return self.file.write(content[:9])

    def close(self) -> None:
        self.file.close()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_counted_and_a_new_file_is_tried(tmp_path, monkeypatch, capsys):
    log = DecisionLog(tmp_path)
    assert log.answer("0", 1, None, None)
    log._file = FullDisk(log._file)  # type: ignore[assignment]
    assert not log.answer("1", 1, None, None)
    assert not log.answer("2", 1, None, None)  # not tried again at once
    assert log.errors == 2
    assert capsys.readouterr().err.count("cannot be written") == 1
    monkeypatch.setattr(decision_log, "RETRY_SECONDS", 0.0)
    log._retry_at = 0.0
    assert log.answer("3", 1, None, None)
    log.close()
    first, second = sorted(tmp_path.glob(PATTERN))
    assert first.read_text().splitlines()[1] == '{"answer_'  # nothing was appended to the cut line
    assert json.loads(second.read_text())["answer_to"] == "3"


def test_the_present_file_goes_on_where_no_new_one_can_be_begun(tmp_path, monkeypatch):
    log = DecisionLog(tmp_path, file_mb=0.001)
    monkeypatch.setattr(log, "_begin", lambda: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    assert log.answer("0", "x" * 2000, None, None)
    assert log.answer("1", "x" * 2000, None, None)
    assert log.errors == 1
    assert [line["answer_to"] for line in logged(tmp_path)] == ["0", "1"]
    monkeypatch.undo()
    log._retry_at = 0.0
    assert log.answer("2", 1, None, None)
    assert len(list(tmp_path.glob(PATTERN))) == 2
    log.close()

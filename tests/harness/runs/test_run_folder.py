import contextlib

import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.run_folder import (
    RunFolder,
    discard_if_empty,
    emptied_on_failure,
    read_arrays,
    read_json,
    write_arrays,
    write_atomically,
    write_json,
)


def test_configuration_round_trip(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start({"seed": 1, "data": {"name": "x", "files": []}})
    assert folder.read_config() == {"seed": 1, "data": {"name": "x", "files": []}}


def test_a_folder_is_not_used_twice(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start({"seed": 1})
    with pytest.raises(UserError, match="already holds a run"):
        folder.start({"seed": 2})
    assert folder.read_config() == {"seed": 1}


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        RunFolder(tmp_path / "missing").read_config()
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder(tmp_path).read_config()


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "\xff\xfe"])
def test_damaged_configuration(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.yaml"):
        RunFolder(tmp_path).read_config()


def test_failed_write_leaves_the_old_file_and_no_remains(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_and_arrays_refuse_what_others_cannot_read(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"reward": float("nan")})
    with pytest.raises(ValueError, match="objects"):
        write_arrays(tmp_path / "x.npz", {"ids": np.array([{}])})
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_chosen_by_name(tmp_path):
    path = tmp_path / "x.npz"
    write_arrays(path, {"a": np.array([1]), "b": np.array([2]), "ab": np.array([3])})
    assert list(read_arrays(path, None)) == ["a", "b", "ab"]
    assert list(read_arrays(path, ["b"])) == ["b"]
    assert list(read_arrays(path, lambda name: name.endswith("b"))) == ["b", "ab"]
    with pytest.raises(UserError, match=r"x\.npz"):
        read_arrays(path, ["c"])


def test_damaged_json(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="is missing"):
        read_json(tmp_path / "y.json")


def test_empty_folder_is_discarded_on_failure_only(tmp_path):
    for name, content in (("empty", False), ("used", True)):
        path = tmp_path / name
        path.mkdir()
        if content:
            (path / "file").touch()
        with pytest.raises(UserError), discard_if_empty(path):
            raise UserError("wrong")
        assert path.exists() is content
    with discard_if_empty(tmp_path):
        pass
    assert tmp_path.exists()


def test_what_a_failed_run_wrote_into_a_new_folder_goes(tmp_path, monkeypatch):
    def fail(path, keeping=False):
        with contextlib.suppress(KeyboardInterrupt), emptied_on_failure(path) as keep:
            (path / "checkpoints").mkdir(parents=True)
            (path / "checkpoints" / "1").touch()
            (path / "config.yaml").touch()
            if keeping:
                keep()
            raise KeyboardInterrupt

    fail(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    fail(tmp_path / "new", keeping=True)
    assert (tmp_path / "new" / "config.yaml").exists()
    # What was there before stays, and so does the working folder.
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").touch()
    fail(tmp_path / "used")
    assert {path.name for path in (tmp_path / "used").iterdir()} == {"mine.txt", "checkpoints", "config.yaml"}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fail(tmp_path / "here")
    assert (tmp_path / "here" / "config.yaml").exists()


def test_arrays_of_objects_are_named(tmp_path):
    np.savez(tmp_path / "ids.npz", ids=np.array(["a", 1], dtype=object))
    with pytest.raises(UserError, match=r"holds Python objects, .*\n  Store numbers, or text as in np\.array"):
        read_arrays(tmp_path / "ids.npz", None)


def test_a_folder_is_trained_in_by_one_process_at_a_time(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(UserError, match="another process"), RunFolder(tmp_path).locked():
        pass
    with folder.locked():
        pass

"""Which runs are found below folders, how far they came, and which belong together."""

import json
import os

import pytest
from run_folders import make_run

from harness.errors import UserError
from harness.runs.index import Status, check_comparable, find_runs, flattened, group_by_settings, newest_of_each_seed
from harness.runs.run_folder import RunFolder


def find(*folders):
    return find_runs([str(folder) for folder in folders], "eval.json")


def statuses(folder):
    return {run.folder.path.name: (str(run.status), run.step) for run in find(folder).runs}


def test_status_of_each_run(tmp_path):
    make_run(tmp_path / "finished", [1, 2], step=6, checkpoint=6)
    make_run(tmp_path / "without_checkpoints", [1, 2])  # as of a method that does not learn
    make_run(tmp_path / "interrupted", checkpoint=4)
    make_run(tmp_path / "trained_on", [1, 2], step=6, checkpoint=8)
    make_run(tmp_path / "begun")
    make_run(tmp_path / "deep" / "er" / "locked", checkpoint=2)
    (tmp_path / "interrupted" / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    with RunFolder(tmp_path / "deep" / "er" / "locked").locked():
        assert statuses(tmp_path) == {
            "begun": ("no checkpoint yet", 0),
            "finished": ("finished", 6),
            "without_checkpoints": ("finished", 0),
            "interrupted": ("interrupted", 4),
            "trained_on": ("interrupted", 8),
            "locked": ("running", 2),
        }
    assert statuses(tmp_path)["locked"] == ("interrupted", 2)


def test_a_result_of_earlier_networks_names_the_newest_checkpoint_of_its_time(tmp_path):
    for name, checkpoint in (("finished", 8), ("trained_on", 6)):
        result = make_run(tmp_path / name, [1, 2], step=6, checkpoint=8) / "eval.json"
        result.write_text(json.dumps(json.loads(result.read_text()) | {"step": 4, "newest_checkpoint": checkpoint}))
    assert statuses(tmp_path) == {"finished": ("finished", 8), "trained_on": ("interrupted", 8)}


def test_looking_at_a_run_does_not_stop_another_process_from_training_in_it(tmp_path):
    folder = RunFolder(make_run(tmp_path / "run"))
    assert not folder.is_locked()
    with folder.locked():
        assert folder.is_locked()
    assert not folder.is_locked()


def test_seeds_of_a_group_are_found_one_by_one(tmp_path):
    group = make_run(tmp_path / "group", settings={"num_seeds": 2})
    for seed in (0, 1):
        make_run(group / f"seed_{seed}", [1, 2], {"seed": seed})
    make_run(tmp_path / "single", [1, 2])
    found = find(tmp_path, group, tmp_path / "single")  # found once, however often they are named
    assert [(run.folder.path.name, run.seeds_together) for run in found.runs] == [
        ("seed_0", 2),
        ("seed_1", 2),
        ("single", 1),
    ]
    assert [run.seeds_together for run in find(group / "seed_1").runs] == [2]


def test_damaged_folders_are_named_and_hide_nothing(tmp_path):
    make_run(tmp_path / "good", [1, 2])
    (make_run(tmp_path / "bad_config") / "config.yaml").write_text("a: [1")
    (make_run(tmp_path / "bad_record") / "run.json").write_text('{"data": {"name": "x"}}')
    (make_run(tmp_path / "bad_json", [1, 2]) / "eval.json").write_text("{")
    found = find(tmp_path)
    assert [run.folder.path.name for run in found.runs] == ["good"]
    assert len(found.unreadable) == 3
    for name, message in zip(("bad_config", "bad_json", "bad_record"), found.unreadable, strict=True):
        assert name in message
        assert "\n" not in message


def test_folders_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such folder"):
        find(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    assert find_runs(None, "eval.json").runs == []
    make_run(tmp_path / "outputs" / "a", [1, 2])
    make_run(tmp_path / "elsewhere" / "b", [1, 2])
    assert [str(run.folder.path) for run in find_runs(None, "eval.json").runs] == [os.path.join("outputs", "a")]


def test_runs_on_other_data_or_settings_are_not_comparable(tmp_path):
    make_run(tmp_path / "a", [1, 2])
    make_run(tmp_path / "b", [1, 2], {"env.episode_length": 8})
    make_run(tmp_path / "c", [1, 2], checksum="sha256:bb", name="other")
    a, b, c = find(tmp_path).runs
    check_comparable([a, b], ["env.alpha"])
    with pytest.raises(UserError, match=r"env\.episode_length is 32 in .*a and 8 in .*b"):
        check_comparable([a, b], ["env.alpha", "env.episode_length"])
    with pytest.raises(UserError, match=r"checksum is sha256:aa.* in .*a and sha256:bb.* in .*c.*\n.*data_name=NAME"):
        check_comparable([a, c], [])


def test_runs_that_read_the_same_files_as_other_tables_are_not_comparable(tmp_path):
    make_run(tmp_path / "a", [1, 2])
    service = {"data.rating_column": "service", "data.root": "elsewhere", "data.split_seed": 3}
    make_run(tmp_path / "b", [1, 2], service, table="sha256:dd")
    make_run(tmp_path / "c", [1, 2], table="sha256:dd")
    make_run(tmp_path / "old", [1, 2], table=None)
    a, b, c, old = find(tmp_path).runs
    with pytest.raises(UserError, match=r"different tables .*\(data\.rating_column is None and service") as caught:
        check_comparable([a, b], [])
    assert "data.root" not in str(caught.value)
    with pytest.raises(UserError, match=r"\(sha256:cc\.\.\. and sha256:dd\.\.\., by different code\)"):
        check_comparable([a, c], [])
    check_comparable([b, c, old], [])  # of old runs only the files are known


def test_a_key_that_an_older_run_lacks_is_one_that_changes_nothing(tmp_path):
    make_run(tmp_path / "old", [1, 2], {"seed": 0})
    make_run(tmp_path / "new", [1, 2], {"seed": 1, "tree.path": None})
    make_run(tmp_path / "other", [1, 2], {"seed": 1, "tree.path": "genres.npz"})
    groups = group_by_settings(find(tmp_path).runs, lambda key: key == "seed")
    assert sorted(len(group.runs) for group in groups) == [1, 2]
    assert sorted(str(group.distinction) for group in groups) == ["{'tree.path': 'genres.npz'}", "{'tree.path': None}"]


def test_grouping_by_settings(tmp_path):
    for number, settings in enumerate([{"seed": 0}, {"seed": 1}, {"train.steps": 20}, {"env.alpha": 0.2}]):
        make_run(tmp_path / str(number), [1, 2], settings)
    make_run(tmp_path / "4", [1, 2], {"agent.learner.clip_norm": 10})  # the default, 10.0, written otherwise
    groups = group_by_settings(find(tmp_path).runs, lambda key: key in ("seed", "tree.seed", "env.alpha"))
    names = [[run.folder.path.name for run in group.runs] for group in groups]
    assert names == [["0", "1", "3", "4"], ["2"]]
    assert [group.distinction for group in groups] == [{"train.steps": 1000}, {"train.steps": 20}]
    assert dict(flattened({"a": {"b": 1, "c": {}}, "d": [2]})) == {"a.b": 1, "a.c": {}, "d": [2]}


def test_a_repeated_seed_counts_once(tmp_path):
    for number, seed in enumerate([1, 0, 1]):
        make_run(tmp_path / str(number), [1, 2], {"seed": seed})
        os.utime(tmp_path / str(number) / "eval.json", (number, number))
    left_out: list[str] = []
    kept = newest_of_each_seed(find(tmp_path).runs, "eval.json", left_out)
    assert [run.folder.path.name for run in kept] == ["1", "2"]
    assert left_out == [f"{tmp_path / '0'}: an older repetition of seed 1"]
    assert kept[0].status is Status.FINISHED

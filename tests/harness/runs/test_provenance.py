"""What a run was made from is recorded, and anything else is refused."""

import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.provenance import Origin
from harness.runs.run_folder import RunFolder, read_json, write_json

DATA = {"name": "films", "checksum": "sha256:aa", "table": "sha256:11", "users": 3, "items": 2, "synthetic": False}


def origin(**changes) -> Origin:
    ids = {"user_ids": np.arange(3), "test_users": np.array([1])}
    return Origin(DATA | changes, "films.csv", ids, "test_users", "data.split_seed", "tree.npz")


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path)
    origin().record(folder)
    return folder


def test_the_same_data_are_accepted(folder):
    assert origin().check(folder)["data"] == DATA


@pytest.mark.parametrize(("key", "value"), [("checksum", "sha256:bb"), ("users", 4), ("items", 1)])
def test_other_data_are_refused(folder, key, value):
    with pytest.raises(UserError, match=r"the run was trained on films \(3 users, 2 items, sha256:aa"):
        origin(**{key: value}).check(folder)


def test_the_same_files_read_as_another_table_are_refused(folder):
    with pytest.raises(
        UserError, match=r"another table than is now built from films\.csv: .*sha256:11.*sha256:22"
    ) as e:
        origin(table="sha256:22").check(folder)
    assert "config.yaml" in e.value.do


def test_runs_of_earlier_commits_did_not_record_their_table(folder):
    record = read_json(folder.provenance)
    del record["data"]["table"]
    write_json(folder.provenance, record)
    assert origin(table="sha256:22").check(folder) == record


def test_another_split_is_refused(folder):
    with pytest.raises(UserError, match="the run's test users are not those of this split"):
        origin()._replace(ids={"test_users": np.array([2])}).check(folder)

"""Lists of many users in a file."""

import json

import numpy as np
import polars as pl
import pytest

from harness.errors import UserError
from sim.recommend import batch
from sim.recommend.lists import Recommendations

USERS = list(range(10, 17))
QUESTION = {"k": 2}


def lists_of(users):
    """The items 100 and 200 plus the user; user 12 has one item."""
    ids = np.array([[100, 200]]) + np.array(users)[:, None]
    ranks = np.where((np.array(users)[:, None] == 12) & (np.arange(2) == 1), 0, np.arange(1, 3)).astype(np.int32)
    scores = -ids.astype(np.float32)
    return Recommendations(np.array(users), ids, ids.astype(str), scores, ranks, "score", notes=("12: only 1 of 2",))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(batch, "USERS_PER_PART", 3)


@pytest.mark.parametrize(
    ("ending", "read"), [("parquet", pl.read_parquet), ("csv", pl.read_csv), ("jsonl", pl.read_ndjson)]
)
def test_a_row_per_item(ending, read, tmp_path):
    out = tmp_path / f"lists.{ending}"
    notes = batch.write_lists(lists_of, USERS, str(out), QUESTION)
    table = read(out)
    assert table.columns == ["user", "rank", "item", "title", "score"]
    assert table.select("user", "rank", "item").rows() == [
        (user, rank, 100 * rank + user) for user in USERS for rank in (1, 2) if (user, rank) != (12, 2)
    ]
    assert notes == ["12: only 1 of 2"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_was_interrupted_goes_on(tmp_path, capsys):
    out, asked = tmp_path / "lists.csv", []

    def interrupted(users):
        if asked:
            raise KeyboardInterrupt
        asked.append(users)
        return lists_of(users)

    def counting(users):
        asked.append(users)
        return lists_of(users)

    with pytest.raises(KeyboardInterrupt):
        batch.write_lists(interrupted, USERS, str(out), QUESTION)
    assert not out.exists()
    batch.write_lists(counting, USERS, str(out), QUESTION)
    assert asked == [USERS[:3], USERS[3:6], USERS[6:]]
    assert "going on" in capsys.readouterr().err
    batch.write_lists(lists_of, USERS, str(tmp_path / "whole.csv"), QUESTION)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_of_another_question_are_not_used(tmp_path):
    out = tmp_path / "lists.csv"
    parts = tmp_path / "lists.csv.parts"
    parts.mkdir()
    (parts / "question.json").write_text(json.dumps(batch.parts_key(USERS, {"k": 3})))
    (parts / "0.parquet").write_text("another's")
    batch.write_lists(lists_of, USERS, str(out), QUESTION)
    assert pl.read_csv(out).height == 13


def test_an_ending_that_is_no_table(tmp_path):
    with pytest.raises(UserError, match=r"\.parquet, \.csv, \.jsonl"):
        batch.write_lists(lists_of, USERS, str(tmp_path / "lists.xlsx"), QUESTION)
    assert not list(tmp_path.iterdir())

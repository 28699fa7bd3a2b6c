"""The first lines of training: what was read, and what about it is unlikely, before anything is refused or begins."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.phases import Phases
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.runs.seeds import Run
from tpgr_jax.train import train


@pytest.fixture
def refused(tmp_path, capsys):
    """Trains on stars of 20 users with one more line; returns the first lines and the error that ends it."""

    def call(last_line: str, *settings: str) -> tuple[str, str]:
        lines = [f"{user},{item},{1 + (user + item) % 5}" for user in range(20) for item in range(10)]
        path = tmp_path / "r.csv"
        path.write_text("\n".join(["user,item,rating", *lines, last_line, ""]))
        here = [f"data.path={path}", f"data.cache={tmp_path / 'tables'}", "env.episode_length=500", *settings]
        values = composed_values("train", ["data=ratings_file", *here])
        with pytest.raises(UserError) as caught:
            train([Run(values, RunFolder(Path(tmp_path, "run")))], False, Phases())
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().err, str(caught.value)

    return call


APART = "warning: the rating -3 (0.5% of all, first on line 202) stands apart from the others"


def test_a_rating_that_stands_apart_comes_before_its_scale_is_refused(refused):
    said, error = refused("0,99,-3", "data.split_seed=1")
    assert APART in said
    assert "ratings           201, from -3 to 5" in said
    assert "the rating -3 (0.5% of all, first on line 202) stands apart" in error
    assert "data.missing_ratings=[-3]" in error


def test_also_where_it_is_a_test_users(refused):
    """Whose ratings count as an end of the training users' scale."""
    said, error = refused("1,99,-3", "data.split_seed=1")
    assert "1 ratings of other users are outside the scale of training users, 1 to 5" in said
    assert APART in said
    assert "env.episode_length" in error


def test_what_was_left_out_is_said_on_every_start(refused):
    for _ in range(2):
        assert "left out          1 row by data.missing_ratings" in refused("0,99,-3", "data.missing_ratings=[-3]")[0]

"""The command that prints a data set's statistics, as people call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """Runs the command in an empty folder and checks that it leaves that folder empty."""

    def call(*arguments: str) -> subprocess.CompletedProcess:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TPGR_JAX_CACHE": str(tmp_path / "tables")}
        environment["TPGR_JAX_DATA"] = str(tmp_path / "data")
        command = [sys.executable, "-m", "sim.data", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert list(folder.iterdir()) == []
        return done

    return call


def test_statistics_for_people(run):
    done = run("data.size=tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert "users             200" in done.stdout
    assert "ratings           4,000" in done.stdout
    assert "GENERATED" in done.stdout


def test_statistics_for_programs(run, tmp_path):
    (tmp_path / "r.csv").write_text("u,i,r\na,1,2\nb,1,4\n")
    columns = ["data.user_column=u", "data.item_column=i", "data.rating_column=r"]
    done = run("data=ratings_file", f"data.path={tmp_path / 'r.csv'}", *columns, "json=true")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["users"], found["items"], found["ratings"], found["rating_mean"]) == (2, 1, 2, 3.0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["data=ratings_file"], "error: data.path: is not set"),
        (["data=ratings_file", "data.path=none.csv"], "error: none.csv: no such file"),
        (["data.test_fraction=2"], "error: data.test_fraction: 2 is out of range"),
        (["data=netflix", "data.offline_fallback=false"], "error: netflix: no files of this data set"),
    ],
)
def test_mistakes_give_one_message_and_code_2(run, arguments, problem):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(problem)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2

"""agent=python through the commands of TPGR: numbers, files, names, refusals."""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_lines import assert_one_message, run_module

TINY = ("data.size=tiny", "env.episode_length=6")
SOURCE = """
import json
from pathlib import Path

Path(__file__).with_name("ran").touch()

RANKING = json.load(open({ranking!r}))


def policy(history):
    seen = {{item for item, _ in history}}
    return next(item for item in RANKING if item not in seen)


def policies(histories):
    return [policy(history) for history in histories]


def wrong(history):
    return "nobody"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture
def run(command_environment, folder):
    return partial(run_module, folder, command_environment)


def test_a_list_in_python_earns_what_the_same_list_earns(run, folder):
    first = run("tpgr_jax.train", *TINY, "agent=popularity", "hydra.run.dir=popularity")
    assert first.returncode == 0, first.stderr
    listed = np.load(folder / "popularity" / "eval.npz")["items"][0].tolist()
    ranking = folder / "ranking.json"
    ranking.write_text(json.dumps(listed))
    (folder / "my.py").write_text(SOURCE.format(ranking=str(ranking)))
    mine = ("agent=python", "agent.path=my.py:policies", "agent.batched=true", "agent.label=mine")
    done = run("tpgr_jax.train", *TINY, *mine, "hydra.run.dir=mine")
    assert done.returncode == 0, done.stderr
    assert f"notice: agent.path runs policies in {folder}/my.py (sha256 " in done.stderr
    results = json.loads((folder / "mine" / "eval.json").read_text())["policies"]
    assert list(results) == ["mine", "random", "popularity", "best_fixed_list"]
    assert results["mine"] == results["popularity"]

    # The run knows the file; evaluate says whose code it runs, and that it is another; a report has its name.
    told = [json.loads((folder / "mine" / name).read_text())["agent_function"] for name in ("run.json", "eval.json")]
    sha256 = hashlib.sha256((folder / "my.py").read_bytes()).hexdigest()
    assert told == [{"file": f"{folder}/my.py", "function": "policies", "sha256": sha256}] * 2
    with (folder / "my.py").open("a") as file:
        file.write("# changed\n")
    evaluated = run("tpgr_jax.evaluate", "run=mine")
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"runs policies in {folder}/my.py" in evaluated.stderr
    assert f"warning: {folder}/my.py has changed since the run was made" in evaluated.stderr
    assert json.loads((folder / "mine" / "eval.json").read_text())["policies"] == results
    reported = run("tpgr_jax.report", "runs", ".")
    assert "mine" in reported.stdout
    (folder / "ran").unlink()
    assert_one_message(run("tpgr_jax.recommend", "run=mine", "user=1"), "a function of yours")
    assert not (folder / "ran").exists(), "the user's file ran although the command refuses it"
    assert_one_message(
        run("tpgr_jax.train", *TINY, "agent=python", "agent.path=my.py:wrong", "hydra.run.dir=wrong"),
        *("wrong in", "'nobody'", "for user", "step 1"),
    )


def test_without_a_path(run, folder):
    assert_one_message(run("tpgr_jax.train", *TINY, "agent=python"), "agent.path", "my.py:policy")

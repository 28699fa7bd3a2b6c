"""Equal budgets on real command lines: one run has a reading at episodes and at seconds."""

import json
import re

import numpy as np
import pytest
from command_lines import checkpoint_steps, trained_run
from run_folders import make_run

from harness.errors import UserError
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder, read_json, write_arrays, write_json
from harness.settings import read_settings
from sim.datasets.rating_settings import DataConfig
from tpgr_jax.problem import make_problem
from tpgr_jax.reports.table2 import Table2Config, report_table2
from tpgr_jax.settings import RunConfig

TINY = ("data.size=tiny", "data.selection=true", "env.episode_length=8")
BUDGETS = ("train.budgets.episodes=128", "train.budgets.seconds=10000")


@pytest.fixture(scope="module")
def run(command_environment, tmp_path_factory):
    """A run of four steps, of which the first two are within the budget of episodes."""
    arguments = (
        *("train.episodes_per_step=64", "train.steps=4", "train.log_every=2", "train.evaluate_every=4"),
        *("train.checkpoint_every=4", "train.max_to_keep=1", "agent.policy.hidden=[8]"),
        *("agent.policy.embedding_epochs=1", "agent.learner.episodes_per_user=8"),
    )
    place = tmp_path_factory.mktemp("run")
    folder, _ = trained_run(place, command_environment, "tpgr_jax.train", *TINY, *BUDGETS, *arguments)
    return folder


def _arrays(path):
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def test_a_run_is_read_at_each_budget(run):
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "selection_reward" in row] == [2, 4]
    at_episodes, at_seconds = (read_json(run / f"eval_at_{name}.json") for name in ("episodes", "seconds"))
    assert at_episodes["step"] == 2
    assert at_episodes["budget"]["limit"] == at_episodes["budget"]["episodes"] == 128
    assert at_seconds["step"] == max(rows, key=lambda row: row["selection_reward"])["step"]
    assert at_seconds["budget"]["selected"]
    assert set(checkpoint_steps(run)) >= {2, 4}
    # The reading is that of the test users at that step.
    assert [at["budget"]["candidates"] for at in (at_episodes, at_seconds)] == [1, 2]
    assert at_episodes["policies"]["tpgr"]["reward"] == pytest.approx(rows[0]["test_reward"], rel=1e-6)
    assert set(at_episodes["policies"]) == {"tpgr", "tpgr_sampled", "random", "popularity", "best_fixed_list"}


def test_users_who_choose_are_neither_training_nor_test_users(run):
    config = read_settings(RunConfig, RunFolder(run).read_config())
    problem = make_problem(config.data, config.env)
    groups = problem.train_users, problem.selection_users, problem.test_users
    assert min(map(len, groups)) > 0
    assert len(np.unique(np.concatenate(groups))) == sum(map(len, groups)) == problem.data.num_users
    # They are the validation users of a study.
    values = RunFolder(run).read_config()["data"]
    studied = make_problem(read_settings(DataConfig, {**values, "validation": True}), config.env)
    np.testing.assert_array_equal(studied.test_users, problem.selection_users)
    np.testing.assert_array_equal(studied.train_users, problem.train_users)
    assert len(studied.selection_users) == 0


def test_evaluate_repeats_both_readings(run, command_environment, run_command_line):
    paths = [run / f"eval_at_{name}.npz" for name in ("episodes", "seconds")]
    before = [_arrays(path) for path in paths]
    for path in paths:
        path.unlink()
    finished = run_command_line("tpgr_jax.evaluate", f"run={run}")
    assert finished.returncode == 0, finished.stderr
    assert "eval_at_seconds.json" in finished.stdout
    for path, arrays in zip(paths, before, strict=True):
        again = _arrays(path)
        assert again.keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(again[name], values, name)


def test_a_method_without_training_has_the_same_reading_at_every_budget(run_command_line, tmp_path):
    finished = run_command_line("tpgr_jax.train", "agent=popularity", *TINY, *BUDGETS, "hydra.run.dir=run")
    assert finished.returncode == 0, finished.stderr
    newest = _arrays(tmp_path / "run" / "eval.npz")
    for name in ("episodes", "seconds"):
        np.testing.assert_array_equal(_arrays(tmp_path / "run" / f"eval_at_{name}.npz")["reward"], newest["reward"])
        assert read_json(tmp_path / "run" / f"eval_at_{name}.json")["budget"]["seconds"] == 0


def _with_reading(folder, rewards, episodes=1000, seconds=60.0, limit=600.0, reached=None, candidates=20):
    budgets = {"train.steps": 10**6, "train.log_every": 5, "train.budgets.seconds": limit}
    budgets["train.budgets.evaluations"] = 20
    make_run(folder, [0.0] * len(rewards), {"agent.name": folder.name, **budgets})
    arrays = _arrays(folder / "eval.npz")
    for scale, metric in ((1, "reward"), (10, "precision"), (100, "recall"), (1000, "f1")):
        arrays[metric] = np.array(rewards, float) / scale
    write_arrays(folder / "eval_at_seconds.npz", arrays)
    about = {"name": "seconds", "limit": limit, "selected": True, "episodes": episodes, "seconds": seconds}
    about |= {"reached": reached or limit, "candidates": candidates}
    write_json(folder / "eval_at_seconds.json", {**json.loads((folder / "eval.json").read_text()), "budget": about})


def _report(folder, budget):
    report_table2(Table2Config("table2", [str(folder)], None, str(folder / "out"), budget=budget))
    return (folder / "out" / f"table2_{budget}.md").read_text()


def test_table2_reads_runs_at_a_budget(tmp_path):
    _with_reading(tmp_path / "tpgr", [1, 2, 3, 4])
    _with_reading(tmp_path / "dqn_r", [3, 3, 3, 4], episodes=500, reached=90.0, candidates=4)
    make_run(tmp_path / "ddpg_r", [9, 9, 9, 9], {"agent.name": "ddpg_r"})  # has no reading
    text = _report(tmp_path, "seconds")
    assert "at 600 seconds of training: of its states within that, the best on selection users" in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "2.5000" in lines["TPGR"]
    assert lines["TPGR"].rstrip("| ").endswith("| 1,000 | 60 | 20")
    assert "3.2500" in lines["DQN-R"]
    assert "DDPG-R" not in lines
    assert "has no result in eval_at_seconds.npz" in text
    assert "dqn_r stopped at 90 of 600 seconds" in text
    assert re.search(r"dqn_r chose among 4 states, .*tpgr among 20: a choice among more is a better one", text)
    (missing,) = [line for line in text.splitlines() if line.startswith("python") and "ddpg_knn_all" in line]
    for word in (
        "train.steps=1000000",
        "train.log_every=5",
        "train.budgets.episodes=null",
        "train.budgets.seconds=600",
        "train.budgets.evaluations=20",
    ):
        assert word in missing


def test_table2_refuses_to_mix_budgets(tmp_path):
    _with_reading(tmp_path / "tpgr", [1, 2, 3, 4])
    _with_reading(tmp_path / "dqn_r", [3, 3, 3, 4], limit=60.0)
    with pytest.raises(UserError, match=r"the budget is 60 seconds in .* and 600 in"):
        _report(tmp_path, "seconds")

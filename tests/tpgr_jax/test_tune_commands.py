"""The tuning command of TPGR's system on its real command line, and what its trials may see."""

import csv
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from command_lines import assert_one_message
from omegaconf import OmegaConf

TINY = (
    *("data.size=tiny", "env.episode_length=8", "train.episodes_per_step=64", "train.steps=4", "train.log_every=2"),
    *("train.evaluate_every=2", "train.checkpoint_every=2", "agent.policy.hidden=[8]"),
    *("agent.policy.embedding_epochs=1", "agent.learner.episodes_per_user=8"),
)


def _trials(study):
    with (study / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_a_study_ends_with_a_setting_that_trains(run_command_line, command_environment, tmp_path):
    finished = run_command_line("tpgr_jax.tune", "trials=2", "workers=2", "study=study", *TINY)
    assert finished.returncode == 0, finished.stderr
    study = tmp_path / "study"
    trials = _trials(study)
    assert [row["state"] for row in trials] == ["complete"] * 2
    assert float(trials[0]["agent.learner.learning_rate"]) == 0.01  # the published default
    # Each trial is a run on validation users.
    for row in trials:
        folder = tmp_path / row["run folder"]
        config = OmegaConf.load(folder / "config.yaml")
        assert config.data.validation
        assert config.agent.learner.learning_rate == float(row["agent.learner.learning_rate"])
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert float(row["validation reward"]) == max(row["test_reward"] for row in rows if "test_reward" in row)
    # The command that it prints trains with the best setting, on all training users.
    command = next(line for line in finished.stdout.splitlines() if line.startswith("python -m tpgr_jax.train"))
    words = [*shlex.split(command)[3:], "hydra.run.dir=run"]
    trained = subprocess.run(
        [sys.executable, "-m", "tpgr_jax.train", *words],
        cwd=tmp_path,
        env=command_environment,
        capture_output=True,
        text=True,
    )
    assert trained.returncode == 0, trained.stderr
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    best = max(trials, key=lambda row: float(row["validation reward"]))
    assert config.agent.learner.learning_rate == float(best["agent.learner.learning_rate"])
    assert not config.data.validation
    # Who joins must ask for the same.
    other = run_command_line("tpgr_jax.tune", "study=study", "seed=3", *TINY)
    assert_one_message(other, "the study there has other settings (arguments, seed)")
    same = run_command_line("tpgr_jax.tune", "study=study")
    assert same.returncode == 0, same.stderr
    assert _trials(study) == trials


def test_mistakes_leave_no_study(run_command_line, tmp_path):
    assert_one_message(run_command_line("tpgr_jax.tune", "agent=popularity"), "there is nothing to tune")
    assert_one_message(
        run_command_line("tpgr_jax.tune", "space.agent.learner.learning_rate.low=0.5"), "low 0.5 and high 0.1"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_trials_do_not_depend_on_test_users(run_command_line, tmp_path):
    """Two studies whose data differ in what test users rated: the same settings are tried and have the same values."""
    random = np.random.default_rng(0)
    users, items = (
        np.repeat(np.arange(60), 12),
        np.concatenate([random.choice(40, 12, replace=False) for _ in range(60)]),
    )
    ratings = random.integers(1, 6, len(users))
    results = []
    for name in ("logged", "perturbed"):
        table = np.column_stack([users, items, ratings])
        (tmp_path / f"{name}.csv").write_text("user,item,stars\n" + "\n".join(",".join(map(str, row)) for row in table))
        finished = run_command_line(
            "tpgr_jax.tune",
            *("agent=gaussian_posterior", "trials=2", f"study={name}", "env.episode_length=8", "data=ratings_file"),
            *(f"data.path={tmp_path}/{name}.csv", "data.user_column=user", "data.item_column=item"),
            *("data.rating_column=stars", "data.name=own"),
        )
        assert finished.returncode == 0, finished.stderr
        results.append([{key: row[key] for key in row if key != "run folder"} for row in _trials(tmp_path / name)])
        ids = np.load(tmp_path / name / "trials" / "0000" / "ids.npz")
        seen = np.union1d(ids["train_users"], ids["test_users"])  # the latter are validation users
        unseen = ~np.isin(users, seen.astype(int))
        assert 0 < unseen.sum() < len(users) / 2
        ratings = np.where(unseen, 6 - ratings, ratings)
    assert results[0] == results[1]

"""The tuning command of HRL-MG's system on its real command line."""

import csv

import pytest
from document_commands import shortened

from harness.runs.composition import composed_values
from harness.runs.index import flattened


@pytest.mark.long
def test_a_study_of_ddpg_never_plays_test_sessions(run_command_line, tmp_path):
    job = ["agent=ddpg"]
    tiny = shortened(job, {key for key, _ in flattened(composed_values("tune_hrl_mg", job))})
    finished = run_command_line("hrlmg_jax.tune", *tiny, "study=study")  # two trials
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "study" / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert [row["state"] for row in trials] == ["complete"] * 2
    assert float(trials[0]["agent.learner.actor_rate"]) == 0.0003
    for row in trials:
        folder = tmp_path / row["run folder"]
        assert (folder / "metrics.jsonl").exists()
        assert not list(folder.glob("online*")) + list(folder.glob("offline*"))

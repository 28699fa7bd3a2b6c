"""Runs that learn from all users, which are to be used rather than measured."""

import json

import numpy as np
import pytest
from command_lines import assert_one_message

TINY = ["data.size=tiny", "data.test_fraction=0", "env.episode_length=8", "hydra.run.dir=run"]
SMALL_AGENTS = {
    "tpgr": ["agent.policy.hidden=[8]", "agent.policy.embedding_epochs=1", "agent.learner.episodes_per_user=8"],
    "popularity": [],
}


@pytest.mark.parametrize("agent", SMALL_AGENTS)
def test_all_users_train_and_nothing_is_tested(run_command_line, tmp_path, agent):
    settings = [*TINY, f"agent={agent}", *SMALL_AGENTS[agent], "train.steps=2", "train.episodes_per_step=32"]
    learned = run_command_line("tpgr_jax.train", *settings)
    assert learned.returncode == 0, learned.stderr
    assert "learned from all 200 users" in learned.stdout
    folder = tmp_path / "run"
    with np.load(folder / "ids.npz", allow_pickle=False) as ids:
        assert len(ids["train_users"]) == 200
        assert len(ids["test_users"]) == 0
    assert not list(folder.glob("eval*"))
    metrics = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    assert bool(rows) == (agent == "tpgr")
    assert not any(name.startswith("test_") for row in rows for name in row)

    refused = run_command_line("tpgr_jax.evaluate", "run=run")
    assert_one_message(refused, "learned from all users", "data.test_fraction=0.2")
    listed = run_command_line("tpgr_jax.report", "runs", "runs=[run]")
    assert "learned from everything" in listed.stdout
    refused = run_command_line("tpgr_jax.report", "table2", "runs=[run]")
    assert_one_message(refused, "no runs below run", "learned from everything")

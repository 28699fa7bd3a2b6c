"""Training that starts from an earlier run's parameters, on newer data."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tpgr_jax
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints

SMALL = {"env": {"episode_length": 6, "alpha": 0.0}, "tree": {"spare": 0.2}, "data": {"relevant_above": 3}}
POLICY = {"agent.policy": {"hidden": [8], "embedding_epochs": 1, "state_hidden": 8}}


def _schedule(steps: int) -> dict:
    every = {f"{what}_every": steps for what in ("log", "evaluate", "checkpoint")}
    return {"train": {"steps": steps, "episodes_per_step": 256, **every}}


@pytest.fixture(scope="module")
def weeks() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ratings of 64 items, of which a few are loved; in the second week four are gone, and six have come."""
    random = np.random.default_rng(0)
    loved = random.permutation(70) < 12
    rows = [
        (user, item, int(np.clip(random.normal(4.5 if loved[item] else 1.5), 1, 5)))
        for user in range(150)
        for item in random.choice(70, 30, replace=False)
    ]
    ratings = pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row")
    return ratings.filter(pl.col("item") < 64), ratings.filter(pl.col("item") >= 4)


def _train(ratings, folder, **settings) -> Path:
    return Path(tpgr_jax.train(ratings, folder=folder, **settings).source)


@pytest.fixture(scope="module")
def last_week(weeks, tmp_path_factory):
    return _train(weeks[0], tmp_path_factory.mktemp("weeks") / "last", **SMALL, **POLICY, **_schedule(80))


def _reward(folder) -> float:
    return json.loads((folder / "eval.json").read_text())["policies"]["tpgr"]["reward"]


def _parameters(folder):
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_arrays()[1]["params"]


@pytest.mark.long
def test_last_weeks_policy_starts_above_a_fresh_one(weeks, last_week, tmp_path, capsys, run_command_line):
    this_week = {**SMALL, **POLICY, **_schedule(1)}
    warm = _train(weeks[1], tmp_path / "warm", init_from=str(last_week), **this_week)
    fresh = _train(weeks[1], tmp_path / "fresh", **this_week)
    assert _reward(warm) > _reward(fresh) + 0.1
    assert "60 of 66 items and 150 users are known from it, 6 items are new, 4 have vanished" in capsys.readouterr().err
    counts = {"known_items": 60, "new_items": 6, "vanished_items": 4, "known_users": 150}
    assert json.loads((warm / "run.json").read_text())["init_from"] == {"run": str(last_week), **counts}

    # A run that has begun needs the earlier one no more.
    values = (warm / "config.yaml").read_text()
    (warm / "config.yaml").write_text(values.replace(str(last_week), "/nowhere"))
    evaluated = run_command_line("tpgr_jax.evaluate", f"run={warm}")
    assert evaluated.returncode == 0, evaluated.stderr


def test_rows_of_known_items_are_carried_over_by_id(weeks, last_week, tmp_path):
    slow = {**SMALL, **_schedule(1), "agent.policy": POLICY["agent.policy"], "agent.learner": {"learning_rate": 1e-9}}
    warm = _train(weeks[1], tmp_path / "warm", init_from=str(last_week), **slow)
    before, after = _parameters(last_week), _parameters(warm)
    ids = [np.load(folder / "ids.npz")["item_ids"] for folder in (last_week, warm)]
    _, old, new = np.intersect1d(*ids, return_indices=True)
    assert len(old) == 60
    table = "encoder", "item_embedding"
    np.testing.assert_allclose(after[table[0]][table[1]][new], before[table[0]][table[1]][old], atol=1e-6)
    np.testing.assert_allclose(after["heads_1"]["kernel_0"], before["heads_1"]["kernel_0"], atol=1e-6)


@pytest.mark.long
def test_a_tree_without_room_is_built_anew(weeks, tmp_path, capsys):
    full = {**SMALL, "tree": {"spare": 0.0}, **POLICY, **_schedule(1)}
    first = _train(weeks[0], tmp_path / "first", **full)
    capsys.readouterr()
    _train(weeks[1], tmp_path / "second", init_from=str(first), **full)
    assert "the tree was built anew" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"agent": "linear_ucb", "agent.policy": {}}, "is a run of agent=tpgr"),
        ({"tree": {"depth": 1}}, "tree.depth is 1"),
        ({"agent.policy": {"hidden": [4]}}, "its networks are others"),
        ({"init_from": "nowhere"}, "no such folder"),
    ],
)
def test_runs_that_do_not_fit_are_refused(weeks, last_week, tmp_path, settings, part):
    given = {**SMALL, **POLICY, **_schedule(1), "init_from": str(last_week), **settings}
    with pytest.raises(UserError, match=part):
        _train(weeks[1], tmp_path / "run", **given)

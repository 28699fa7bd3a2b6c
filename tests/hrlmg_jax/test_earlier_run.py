"""Training that starts from an earlier run's item vectors and networks, on a newer log."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hrlmg_jax
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints

SMALL = {
    "agent": "ddpg",
    "agent.learner": {"sessions": 64, "batch_size": 256, "warm_up_steps": 20},
    "env": {"episode_length": 8},
    "simulator": {"embedding.size": 8, "train.steps": 200, "train.evaluate_every": 200, "trial_sessions": 0},
}
UNTESTED = {"evaluation": {"short": 4, "long": 8, "validation_sessions": 16, "final": False}}
TESTED = {"evaluation": {"short": 4, "long": 8, "sessions": 64, "validation_sessions": 64, "offline_sessions": 16}}
NO_WARM_UP = {"agent.learner": {**SMALL["agent.learner"], "warm_up_steps": 0}}


@pytest.fixture(scope="module")
def weeks() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A log of 64 items, of which a few are loved; in the second week four are gone, and six have come."""
    random = np.random.default_rng(0)
    loved = random.permutation(70) < 10
    rows = []
    for user, session in np.ndindex(80, 4):
        begin = 1_600_000_000 + 86_400 * session + 60 * user
        for place, item in enumerate(random.choice(70, 12, replace=False)):
            rows.append((user, item, begin + 10 * place, "impression"))
            if random.random() < (0.8 if loved[item] else 0.05):
                rows.append((user, item, begin + 10 * place + 3, "click"))
    log = pl.DataFrame(rows, schema=["user", "item", "time", "event"], orient="row")
    return log.filter(pl.col("item") < 64), log.filter(pl.col("item") >= 4)


def _train(log, folder, steps, **settings) -> Path:
    root = {**SMALL["simulator"], "root": str(folder.parent / "simulators")}
    every = {f"{what}_every": steps for what in ("log", "evaluate", "checkpoint")}
    given = {**SMALL, "simulator": root, "train": {"steps": steps, **every}, **settings}
    return Path(hrlmg_jax.train(log, folder=folder, **given).source)


@pytest.fixture(scope="module")
def last_week(weeks, tmp_path_factory):
    return _train(weeks[0], tmp_path_factory.mktemp("weeks") / "last", 21, **UNTESTED)


def _low_level(folder):
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_arrays()[1]["low"]


@pytest.mark.long
def test_networks_and_item_vectors_are_carried_over_by_id(weeks, last_week, tmp_path, capsys):
    slow = {"agent.learner": {**NO_WARM_UP["agent.learner"], "actor_rate": 1e-9, "critic_rate": 1e-9}}
    run = _train(weeks[1], tmp_path / "this", 1, init_from=str(last_week), **UNTESTED, **slow)
    assert "60 of 66 items and 80 users are known from it, 6 items are new, 4 have vanished" in capsys.readouterr().err
    counts = {"known_items": 60, "new_items": 6, "vanished_items": 4, "known_users": 80}
    assert json.loads((run / "run.json").read_text())["init_from"] == {"run": str(last_week), **counts}
    # Networks are the earlier run's, and so are the targets, which follow them.
    before, after = _low_level(last_week)["params"], _low_level(run)
    for part in ("params", "target"):
        kernel = after[part]["actor"]["encoder"]["inputs"]
        np.testing.assert_allclose(kernel, before["actor"]["encoder"]["inputs"], atol=1e-6)
    # No turn brings known items nearer to where they were: the products of their directions are symmetric.
    (ids, vectors), (old_ids, old_vectors) = (
        [np.load(folder / "simulator.npz")[name] for name in ("item_ids", "embedding")] for folder in (run, last_week)
    )
    _, new, old = np.intersect1d(ids, old_ids, return_indices=True)
    products = vectors[new, :-1].T @ old_vectors[old, :-1]
    np.testing.assert_allclose(products, products.T, atol=1e-4)
    assert np.linalg.eigvalsh(products).min() >= 0


@pytest.mark.long
def test_last_weeks_agent_starts_above_a_fresh_one(weeks, tmp_path):
    last = _train(weeks[0], tmp_path / "last", 300, **TESTED)
    warm = _train(weeks[1], tmp_path / "warm", 1, init_from=str(last), **TESTED, **NO_WARM_UP)
    fresh = _train(weeks[1], tmp_path / "fresh", 1, **TESTED, **NO_WARM_UP)
    warm, fresh = (
        json.loads((folder / "online.json").read_text())["policies"]["ddpg"]["long_reward"] for folder in (warm, fresh)
    )
    assert warm > 3 * fresh


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        pytest.param({"agent": "dnn"}, "is a run of agent=ddpg", marks=pytest.mark.long),
        pytest.param({"init_from": "nowhere"}, "no such folder", marks=pytest.mark.long),
        pytest.param({"agent.network": {"state_size": 4}}, "its networks are others", marks=pytest.mark.long),
        pytest.param(
            {"simulator": {**SMALL["simulator"], "embedding.size": 4}},
            "its item vectors have 8 dimensions",
            marks=pytest.mark.long,
        ),
    ],
)
def test_runs_that_do_not_fit_are_refused(weeks, last_week, tmp_path, settings, part):
    with pytest.raises(UserError, match=part):
        _train(weeks[1], tmp_path / "run", 1, **{"init_from": str(last_week), **UNTESTED, **NO_WARM_UP, **settings})

"""Who learns and who tests: folds, validation users, and what a run folder keeps of them."""

import json

import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from tpgr_jax.problem import Problem, make_problem, origin_of
from tpgr_jax.settings import RunConfig


def problem(*overrides: str) -> Problem:
    config = read_settings(RunConfig, composed_values("train", ["data=synthetic", "data.size=tiny", *overrides]))
    return make_problem(config.data, config.env)


@pytest.fixture(scope="module")
def folds():
    return [problem(f"data.fold={fold}") for fold in range(5)]


def test_the_test_users_of_folds_are_disjoint_and_all_users(folds):
    tested = np.concatenate([one.test_users for one in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(folds[0].data.num_users))
    for one in folds:
        assert not np.intersect1d(one.train_users, one.test_users).size


@pytest.mark.parametrize("split", ["data.fold=3", "data.split_seed=2"])
def test_validation_users_never_test(split):
    tested, tuned = problem(split), problem(split, "data.validation=true")
    assert len(tuned.test_users)
    np.testing.assert_array_equal(np.sort(np.concatenate([tuned.train_users, tuned.test_users])), tested.train_users)
    assert not np.intersect1d(tuned.test_users, tested.test_users).size
    np.testing.assert_array_equal(tuned.env_params.users, tuned.train_users)


def test_a_run_keeps_its_fold_and_refuses_another(folds, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    origin_of(folds[1]).record(folder)
    recorded = json.loads(folder.provenance.read_text())["data"]
    assert (recorded["fold"], recorded["folds"], recorded["split_seed"]) == (1, 5, 0)
    assert "test_fraction" not in recorded
    origin_of(folds[1]).check(folder)
    with pytest.raises(UserError, match=r"test users are not those of this split.*\n.*data\.fold"):
        origin_of(folds[2]).check(folder)

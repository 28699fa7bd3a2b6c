"""Which held-out users say when a fit stops."""

from __future__ import annotations

import numpy as np
import pytest

from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.problem import load_data
from hrlmg_jax.user_model import early_stopping as module
from hrlmg_jax.user_model.early_stopping import stopping_rows
from hrlmg_jax.user_model.settings import FitConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    words = ["data.size=tiny", f"data.cache={tmp_path_factory.mktemp('tables')}"]
    return load_data(read_settings(FitConfig, composed_values("fit_simulator", words)))


def test_few_held_out_users_all_say_when_a_fit_stops(data):
    np.testing.assert_array_equal(stopping_rows(data, 0), data.rows("held_out"))


def test_of_many_held_out_users_enough_are_drawn_with_all_of_their_rows(data, monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_USERS", 5)
    all_rows = data.rows("held_out")
    assert len(np.unique(data.log.user[all_rows])) > 5
    drawn = {seed: stopping_rows(data, seed) for seed in (0, 1)}
    for rows in drawn.values():
        users = np.unique(data.log.user[rows])
        assert len(users) == 5
        np.testing.assert_array_equal(rows, all_rows[np.isin(data.log.user[all_rows], users)])
    np.testing.assert_array_equal(stopping_rows(data, 0), drawn[0])
    assert not np.array_equal(drawn[0], drawn[1])

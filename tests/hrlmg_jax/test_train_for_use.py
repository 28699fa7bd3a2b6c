"""A log that is not split, to use what is learned rather than to measure it."""

import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.datasets.log_settings import LogConfig
from sim.datasets.sessions import load_sessions


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    small = ["data.size=tiny", "data.num_users=20", "data.num_items=100", "data.split=none"]
    values = composed_values("train_hrl_mg", [*small, f"data.cache={tmp_path_factory.mktemp('tables')}"])
    return load_sessions(read_settings(LogConfig, values["data"], "data"), 0.1, 0)


def test_all_sessions_are_for_training(whole):
    assert not whole.log.is_test.any()
    assert len(whole.rows("test")) == 0
    both = np.sort(np.concatenate([whole.rows("train"), whole.rows("held_out")]))
    assert np.array_equal(both, np.arange(whole.log.num_events))


def test_nothing_can_be_tested_on_it(whole):
    with pytest.raises(UserError, match="has no test sessions"):
        whole.spread_first_rows("test", 4)

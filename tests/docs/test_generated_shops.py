"""The generated log in the layouts of other shops is read back: the same clicks and orders, with or without skips."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.runs.composition import composed_values
from harness.settings import read_settings
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.generators.funnel import generate_log
from sim.tables.events import CLICK, ORDER

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "layouts" / "generated_shops.py"


@pytest.mark.long
def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), "tiny"])
    runpy.run_path(str(SCRIPT))
    written = generate_log(size="tiny", seed=0)

    def read(name: str, *words: str):
        places = [f"data={name}", f"data.root={tmp_path}", f"data.cache={tmp_path / 'tables'}", *words]
        return load_log(read_settings(LogConfig, composed_values("train_hrl_mg", places)["data"], "data"))

    shown = read("diginetica", "data.split=day")
    counts = np.bincount(written.feedback)
    np.testing.assert_array_equal(np.bincount(shown.feedback), counts)
    assert not shown.synthetic_skips
    of_item = [np.bincount(log.item[log.feedback >= CLICK], minlength=200) for log in (shown, written)]
    np.testing.assert_array_equal(*of_item)
    clicked = read("retailrocket", "data.expected_events=null", "data.min_item_events=1", "data.skips_per_event=0")
    assert np.sum(clicked.feedback == ORDER) == counts[ORDER]
    # Sessions are those between pauses, and an item that is clicked twice in one of them has one row.
    assert 0.99 * counts[CLICK] <= np.sum(clicked.feedback == CLICK) <= counts[CLICK]

"""Ids and their indices."""

import numpy as np

from sim.recommend.ids import Ids


def test_integers_may_be_given_as_text():
    ids = Ids(np.array([30, 10, 20]), "user", "run")
    wanted = [10, "20", np.int64(30), 10.0, "010", "ten", None, 11, True, 2**70, float("nan")]
    np.testing.assert_array_equal(ids.find(wanted), [1, 2, 0, 1, -1, -1, -1, -1, -1, -1, -1])
    assert len(ids.find([])) == 0


def test_text_is_compared_as_it_is():
    ids = Ids(np.array(["b", "007", "a"]), "item", "run")
    np.testing.assert_array_equal(ids.find(["a", "007", 7, "c", "abc"]), [2, 1, -1, -1, -1])
    assert len(ids.find([])) == 0


def test_unknown_ids_are_listed():
    text = str(Ids(np.array([1]), "user", "run").refuse(list(range(2, 10))))
    assert "run: unknown users: 2, 3, 4, 5, 6 and 3 more" in text
    assert "unknown=skip" in text

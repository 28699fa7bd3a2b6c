"""Figure 3 by hand, and its counts against a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.reports.command import make_report
from harness.reports.results import Estimate
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder, write_json
from harness.settings import read_settings
from sim.datasets.rating_settings import DataConfig
from sim.datasets.ratings import load_dataset
from sim.tables.ratings import build_rating_data
from tpgr_jax.report import MODULE, REPORTS
from tpgr_jax.reports.figure3 import (
    AverageRating,
    average_ratings,
    consecutive_counts,
    share_of_ties,
    shuffled_rows,
    slope,
)


def table(users, ratings, times):
    return build_rating_data(
        name="hand-made",
        users=np.array(users),
        items=np.arange(len(users))[::-1],  # stored in the reverse order of the source
        ratings=np.array(ratings),
        timestamps=np.array(times),
        rating_min=1,
        rating_max=5,
        checksum="none",
        source="hand-made",
        synthetic=True,
        keep_source_rows=True,
    )


def test_points_by_hand():
    # User 1 in order of time: 4, 5, 3, 2, 1, 5 (the 3 and the 2 at one time, in the order of the source).
    # User 2: 5, 4.
    users = [1, 1, 1, 1, 2, 1, 1, 2]
    ratings = [5, 5, 3, 2, 4, 4, 1, 5]
    times = [9, 2, 3, 3, 2, 1, 4, 1]
    data = table(users, ratings, times)
    found = {(point.sign, point.count): point for point in average_ratings(data, data.rows_by_time(), 3.0, max_count=2)}
    assert {key: (point.average.mean, point.ratings, point.users) for key, point in found.items()} == {
        ("positive", 0): ((4 + 2 + 1 + 5 + 5) / 5, 5, 2),
        ("positive", 1): ((5 + 4) / 2, 2, 2),
        ("positive", 2): (3.0, 1, 1),
        ("negative", 0): ((4 + 5 + 3 + 5 + 4) / 5, 5, 2),
        ("negative", 1): (2.0, 1, 1),
        ("negative", 2): (1.0, 1, 1),
    }  # the last 5 comes after three negatives
    # Counts of 1: totals 5 and 4, residuals 0.5 and -0.5, error sqrt(0.5 * 2) / 2 = 1/2, t(0.975, 1) = 12.7062.
    assert found["positive", 1].average == pytest.approx((4.5, 4.5 - 6.353102, 4.5 + 6.353102), abs=1e-5)
    assert found["positive", 2].average == Estimate(3.0, 3.0, 3.0)
    assert share_of_ties(data, data.rows_by_time()) == 1 / 8


def test_the_threshold_itself_is_negative():
    data = table([1, 1, 1], [3, 2, 2], [1, 2, 3])

    def keys(above):
        return [(point.sign, point.count) for point in average_ratings(data, data.rows_by_time(), above, 5)]

    assert keys(3.0) == [
        ("positive", 0),
        ("negative", 0),
        ("negative", 1),
        ("negative", 2),
    ]
    assert ("positive", 2) in keys(1.0)


def test_a_random_order_leaves_nothing_sequential():
    # One user whose ratings alternate 1, 5, 1, 5, ...: each is the opposite of the one before.
    data = table(np.ones(2000, int), np.tile([1, 5], 1000), np.arange(2000))
    in_time = average_ratings(data, data.rows_by_time(), 3.0, 3)
    assert [(point.sign, point.count, point.average.mean) for point in in_time] == [
        ("positive", 0, pytest.approx((1 + 5 * 1000) / 1001)),  # the first rating of all has nothing before it
        ("positive", 1, 1.0),
        ("negative", 0, 1.0),
        ("negative", 1, 5.0),
    ]
    order = shuffled_rows(data, seed=0)
    np.testing.assert_array_equal(np.sort(order), np.arange(2000))
    shuffled = average_ratings(data, order, 3.0, 3)
    assert len(shuffled) == 8
    assert all(abs(point.average.mean - 3) < 4 * 2 / point.ratings**0.5 for point in shuffled)


def test_shuffling_keeps_users_together():
    data = table([1, 2, 1, 2, 1], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    order = shuffled_rows(data, seed=3)
    assert sorted(order[:3]) == [0, 1, 2]
    assert sorted(order[3:]) == [3, 4]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_counts_against_a_loop(ratings):
    ratings = sorted(ratings, key=lambda rating: rating[0])
    wanted = []
    for row, (user, _) in enumerate(ratings):
        runs = []
        for sign in (True, False):
            length = 0
            while row > length and ratings[row - length - 1] == (user, sign):
                length += 1
            runs.append(length)
        wanted.append(tuple(runs))
    users = np.array([user for user, _ in ratings], int)
    found = consecutive_counts(np.array([positive for _, positive in ratings], bool), users)
    assert list(zip(*(counts.tolist() for counts in found), strict=True)) == wanted


def test_slope_weighs_points_by_their_ratings():
    def point(count, ratings, mean):
        return AverageRating("positive", count, ratings, 1, Estimate(mean, mean, mean))

    points = [point(0, 100, -50.0), point(1, 3, 1.0), point(2, 1, 2.0), point(4, 2, 2.5)]
    raw_counts = np.repeat([1, 2, 4], [3, 1, 2])
    raw_ratings = np.repeat([1.0, 2.0, 2.5], [3, 1, 2])
    assert slope(points) == pytest.approx(np.polyfit(raw_counts, raw_ratings, 1)[0])


def test_given_runs_the_ratings_are_theirs_and_never_generated(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating,time\na,1,2,30\na,2,4,20\na,3,5,10\na,4,1,40\nb,1,4,2\nb,2,4,1\n")
    overrides = ["data=ratings_file", f"data.path={path}", "data.timestamp_column=time", "data.offline_fallback=true"]
    values = composed_values("train", overrides)
    data = load_dataset(read_settings(DataConfig, values["data"], "data"))
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.start(values)
    about = {"name": data.name, "checksum": data.checksum, "synthetic": False}
    write_json(run.provenance, {"data": about})

    def report():
        composed = composed_values("report", ["report=figure3", f"runs=[{run.path}]", f"out={tmp_path / 'out'}"])
        make_report(MODULE, REPORTS, OmegaConf.create(composed))
        return (tmp_path / "out" / "figure3.md").read_text()

    text = report()
    assert text.startswith("# Figure 3: ratings_file\n")
    assert "6 ratings of 2 users" in text
    write_json(run.provenance, {"data": about | {"table": "sha256:other"}})
    with pytest.raises(UserError, match=r"and the run had .* \(sha256:other\)"):
        report()
    write_json(run.provenance, {"data": about | {"checksum": "sha256:other"}})
    with pytest.raises(UserError, match=r"have checksum .* and the run had sha256:other"):
        report()
    path.unlink()
    with pytest.raises(UserError, match=r"ratings\.csv"):
        report()

"""Figure 3: the average rating against the number of consecutive positive (negative) ratings before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.reports.plots import Points, PointsPanel, plot_points
from harness.reports.results import Estimate
from harness.reports.system_results import RunsConfig
from harness.reports.tables import Cell, Table, kind_of, markdown_table, markdown_text, write_report
from harness.settings import Count, read_settings
from harness.statistics import clustered_mean_interval
from sim.datasets.ratings import AnyDataConfig, load_dataset
from sim.tables.ratings import RatingData
from tpgr_jax.reports.results import SYSTEM

SIGNS = ("positive", "negative")


@dataclass(frozen=True)
class Figure3Config(RunsConfig):
    """What to draw: the ratings of `data`, or those that `runs` learned from (`conf/report/figure3.yaml`)."""

    data: AnyDataConfig
    max_count: Count


@dataclass(frozen=True)
class AverageRating:
    """The ratings that come just after `count` consecutive ratings of one sign.

    Attributes:
        sign: "positive" or "negative".
        count: Of consecutive ratings of this sign before them.
        ratings: Their number.
        users: Number of users who gave them.
        average: Mean with its interval, in which users and not ratings are independent.
    """

    sign: str
    count: int
    ratings: int
    users: int
    average: Estimate


def consecutive_counts(positive: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts the consecutive positive and negative ratings just before each rating of the same user.

    Args:
        positive: [R] bool, in order of time within a user.
        users: [R] ascending user of each rating.

    Returns:
        Two arrays [R]: consecutive positive and consecutive negative ratings before each; 0 for a user's first rating.
    """
    rows = np.arange(len(positive))
    first_of_user = np.searchsorted(users, users)

    def counts(same: np.ndarray) -> np.ndarray:
        after_break = np.maximum.accumulate(np.where(same, 0, rows + 1))  # the row after the last one of the other sign
        return rows - np.maximum(first_of_user, np.concatenate([[0], after_break[:-1]]))

    return counts(positive), counts(~positive)


def average_ratings(data: RatingData, order: np.ndarray, positive_above: float, max_count: int) -> list[AverageRating]:
    """Computes the points of Figure 3.

    The ratings of a user are one sequence. A rating above `positive_above` is positive, any other is
    negative. Every rating has a consecutive positive and a consecutive negative count, of which at least one is 0.

    Args:
        data: All ratings.
        order: [R] rows user by user; the paper's figure has them in order of time (`RatingData.rows_by_time`).
        positive_above: The paper's 3.
        max_count: Largest count shown; ratings after longer runs are left out.
    """
    users = np.repeat(np.arange(data.num_users), np.diff(data.indptr))
    ratings = data.rating_values[data.codes[order]]
    points = []
    for sign, before in zip(SIGNS, consecutive_counts(ratings > positive_above, users), strict=True):
        for count in range(max_count + 1):
            rows = before == count
            if rows.any():
                points.append(_average(sign, count, ratings[rows], users[rows], data.num_users))
    return points


def shuffled_rows(data: RatingData, seed: int) -> np.ndarray:
    """Returns the [R] rows user by user, each user's in random order: what is left is not sequential."""
    users = np.repeat(np.arange(data.num_users), np.diff(data.indptr))
    return np.lexsort((np.random.default_rng(seed).random(data.num_ratings), users))


def share_of_ties(data: RatingData, order: np.ndarray) -> float:
    """Returns the share of ratings with the same user and time as the one before, given the rows in order of time."""
    assert data.timestamps is not None
    times = data.timestamps[order]
    users = np.repeat(np.arange(data.num_users), np.diff(data.indptr))
    return float(np.sum((times[1:] == times[:-1]) & (users[1:] == users[:-1])) / data.num_ratings)


def slope(points: Sequence[AverageRating]) -> float:
    """Returns the least-squares rise of the rating per consecutive one, over the ratings with counts from 1 on."""
    after = [point for point in points if point.count]
    counts, weights = np.array([point.count for point in after]), np.array([point.ratings for point in after], float)
    averages = np.array([point.average.mean for point in after])
    centred = counts - np.average(counts, weights=weights)
    spread = float(weights @ centred**2)
    return float(weights @ (centred * averages)) / spread if spread else float("nan")


def _average(sign: str, count: int, ratings: np.ndarray, users: np.ndarray, num_users: int) -> AverageRating:
    counts = np.bincount(users, minlength=num_users)
    totals = np.bincount(users, ratings, num_users)
    rated = counts > 0
    interval = clustered_mean_interval(totals[rated], counts[rated])
    return AverageRating(sign, count, len(ratings), int(rated.sum()), Estimate(float(ratings.mean()), *interval))


def report_figure3(config: Figure3Config) -> None:
    """Prints and writes `figure3.md`, `.csv` and `.png`.

    Raises:
        UserError: The ratings cannot be loaded, have no timestamps, or the folder cannot be written.
    """
    # The ratings, and the points.
    data, positive_above = _load(config)
    order = data.rows_by_time()
    points, shuffled = (
        average_ratings(data, rows, positive_above, config.max_count) for rows in (order, shuffled_rows(data, seed=0))
    )
    # The picture, on the whole scale of ratings.
    title = f"Figure 3: {data.name}{kind_of({'synthetic': data.synthetic})}"
    colours = dict(zip(SIGNS, ("tab:green", "tab:red"), strict=True))
    lines = [
        Points(
            f"consecutive {sign} ratings",
            [one.count for one in of_sign],
            [one.average for one in of_sign],
            colours[sign],
        )
        for sign in SIGNS
        if (of_sign := [point for point in points if point.sign == sign])
    ]
    reference = {"all ratings": float(data.rating_values[data.codes].mean())}
    panel = PointsPanel("average rating", lines, reference, (data.rating_min, data.rating_max))
    folder = Path(config.out)
    plot_points(folder / "figure3.png", title, "consecutive ratings before", [panel])
    # The tables.
    text = _lines(title, config.max_count, positive_above, data, share_of_ties(data, order), points, shuffled)
    write_report(folder, "figure3", text, _table(data, points), ["figure3.png"])


def _load(config: Figure3Config) -> tuple[RatingData, float]:
    """Returns the ratings, and above which of them one is positive; of runs never generated ones in place of files.

    Raises:
        UserError: They cannot be loaded, the runs are about several data sets, or the data are no longer those of the
            runs.
    """
    if config.runs is None:
        return load_dataset(config.data, keep_source_rows=True), config.data.hits_above
    run = SYSTEM.comparable(config, SYSTEM.runs(config.runs), ["data.relevant_above"]).runs[0]
    values = {field.name: getattr(config, field.name) for field in fields(config)} | {"data": run.values["data"]}
    settings = replace(read_settings(Figure3Config, values).data, offline_fallback=False)
    data = load_dataset(settings, keep_source_rows=True)
    found = {"checksum": data.checksum, "table": data.table_hash}
    if any(run.data.get(key, found[key]) != found[key] for key in found):
        raise UserError(
            f"the ratings have checksum {data.checksum} (table {data.table_hash}) and the run had "
            f"{run.data['checksum']} ({run.data.get('table')})",
            where=str(run.folder.path),
            do="Restore the data, or name others with data=NAME in place of runs.",
        )
    return data, settings.hits_above


def _slopes(points: Sequence[AverageRating]) -> str:
    parts = []
    for sign in SIGNS:
        of_sign = [point for point in points if point.sign == sign and point.count]
        parts.append(f"{slope(of_sign):+.4f} per consecutive {sign} rating" if len(of_sign) > 1 else f"no {sign} runs")
    return ", ".join(parts)


def _lines(
    title: str,
    max_count: int,
    positive_above: float,
    data: RatingData,
    ties: float,
    points: Sequence[AverageRating],
    shuffled: Sequence[AverageRating],
) -> list[str]:
    heads = ["before it", "average rating ± 95 % over users", "ratings", "users"]
    rows = [
        [f"{point.count} {point.sign}", str(point.average), f"{point.ratings:,}", f"{point.users:,}"]
        for point in points
    ]
    return [
        f"# {markdown_text(title)}",
        "",
        f"{data.num_ratings:,} ratings of {data.num_users:,} users in order of time; positive: above "
        f"{positive_above:g}, negative: all others. {ties:.1%} have the same time as the "
        "user's rating before, and then the order of the file. Intervals: users are independent, a user's ratings are "
        f"not. Counts above {max_count} are left out.",
        "",
        *markdown_table(heads, rows),
        "",
        f"Least-squares slopes over counts 1 to {max_count}: {_slopes(points)}. With each user's ratings in "
        f"random order: {_slopes(shuffled)}; so much is due to lenient and strict users and not to sequence.",
        "",
        f"Data: {markdown_text(data.source)}, checksum {data.checksum}",
    ]


def _table(data: RatingData, points: Sequence[AverageRating]) -> Table:
    heads = ["data", "synthetic", "checksum", "sign", "count", "average", "low", "high", "ratings", "users"]
    about: list[Cell] = [data.name, data.synthetic, data.checksum]
    return Table(heads, [[*about, one.sign, one.count, *one.average, one.ratings, one.users] for one in points])

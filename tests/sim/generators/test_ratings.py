"""The generator: exact shapes, MovieLens's statistics, and what a recommender can learn from it."""

from __future__ import annotations

import dataclasses
import gzip
import os
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from sim.generators import ratings as synthetic
from sim.tables.ratings import RatingData, build_rating_data

EPISODE_LENGTH = 32


@pytest.fixture(scope="module")
def small() -> RatingData:
    return synthetic.generate("small", seed=0)


@pytest.fixture(scope="module")
def movielens_shape() -> RatingData:
    return synthetic.generate("movielens_1m", seed=0)


def user_of_row(data: RatingData) -> np.ndarray:
    return np.repeat(np.arange(data.num_users), np.diff(data.indptr))


def share_of_top_items(data: RatingData, part: float = 0.1) -> float:
    counts = np.sort(np.bincount(data.items, minlength=data.num_items))[::-1]
    return counts[: int(part * data.num_items)].sum() / data.num_ratings


def with_strength(strength: float, seed: int) -> RatingData:
    shape = synthetic._resolve_shape("small", None, None, None)
    model = dataclasses.replace(synthetic._MODEL, sequential_strength=strength)
    return synthetic._generate("test", shape, seed, model)


def check_contract(data: RatingData, users: int, items: int, ratings: int) -> None:
    """Checks shape, order, ranges and uniqueness by building the table again from triples."""
    assert data.shape == (users, items)
    assert data.num_ratings == len(data.codes) == len(data.timestamps) == data.indptr[-1] == ratings
    assert np.bincount(data.items, minlength=items).min() >= 1
    assert np.diff(data.indptr).min() >= 1
    assert data.codes.min() >= 1
    assert data.codes.max() <= 5
    again = build_rating_data(  # raises for a pair rated twice
        name=data.name,
        users=data.user_ids[user_of_row(data)],
        items=data.item_ids[data.items],
        ratings=data.rating_values[data.codes],
        timestamps=data.timestamps,
        rating_min=1,
        rating_max=5,
        checksum=data.checksum,
        source=data.source,
        synthetic=True,
    )
    for field in ("user_ids", "item_ids", "indptr", "items", "codes", "timestamps", "rating_values"):
        ours, rebuilt = getattr(data, field), getattr(again, field)
        assert ours.dtype == rebuilt.dtype, field
        np.testing.assert_array_equal(ours, rebuilt, err_msg=field)


@pytest.mark.parametrize(
    ("size", "users", "items", "ratings"),
    [("tiny", 200, 100, 4_000), ("small", 1_500, 600, 60_000), ("movielens_1m", 6_040, 3_706, 1_000_209)],
)
def test_shape_is_exact_and_the_table_is_well_formed(size: str, users: int, items: int, ratings: int) -> None:
    data = synthetic.generate(size, seed=3)
    check_contract(data, users, items, ratings)
    assert np.diff(data.indptr).min() >= (10 if size == "tiny" else 20)
    assert (data.rating_min, data.rating_max) == (1.0, 5.0)
    assert data.synthetic
    assert data.name == f"synthetic_{size}"
    assert data.checksum.startswith("sha256:")


def test_the_default_is_fast() -> None:
    start = time.perf_counter()
    synthetic.generate()
    assert time.perf_counter() - start < 5  # takes about 0.1 s; the rest is for busy machines


def test_same_seed_same_data_other_seed_other_data(small: RatingData) -> None:
    again, other = synthetic.generate("small", seed=0), synthetic.generate("small", seed=1)
    for field in ("indptr", "items", "codes", "timestamps"):
        np.testing.assert_array_equal(getattr(small, field), getattr(again, field))
    assert small.checksum == again.checksum != other.checksum
    assert not np.array_equal(small.items, other.items)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"num_users": 50}, (50, 100, 1_000)),
        ({"num_users": 5, "num_items": 30}, (5, 30, 75)),  # 20 ratings each would be more than half of all pairs
        ({"num_items": 1_000}, (200, 1_000, 4_000)),
        ({"num_items": 5_000}, (200, 5_000, 5_000)),  # one rating for every item
        ({"num_ratings": 10_000}, (200, 100, 10_000)),  # the densest allowed
        ({"num_ratings": 200}, (200, 100, 200)),  # the sparsest allowed
        ({"num_users": 2, "num_items": 2}, (2, 2, 2)),
        ({"num_users": 40, "num_items": 70_000, "num_ratings": 90_000}, (40, 70_000, 90_000)),  # items beyond uint16
    ],
)
def test_overrides_change_the_shape(overrides: dict[str, int], expected: tuple[int, int, int]) -> None:
    data = synthetic.generate("tiny", seed=1, **overrides)
    assert (*data.shape, data.num_ratings) == expected
    if set(np.unique(data.codes)) == {1, 2, 3, 4, 5}:  # else rebuilding would drop rating values
        check_contract(data, *expected)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"size": "huge"}, ("data.size", "movielens_10m")),
        ({"size": "tiny", "num_ratings": 10_001}, ("data.num_ratings", "200", "10,000")),
        ({"size": "tiny", "num_ratings": 199}, ("data.num_ratings", "200", "10,000")),
        ({"size": "tiny", "num_ratings": 1000.5}, ("data.num_ratings", "whole number")),
        ({"size": "tiny", "num_users": 1}, ("data.num_users", "between 2")),
        ({"size": "tiny", "num_items": -3}, ("data.num_items", "between 2")),
        ({"size": "tiny", "seed": -1}, ("data.seed",)),
    ],
)
def test_impossible_settings_name_the_key_and_the_range(arguments: dict, names: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        synthetic.generate(**arguments)
    for name in names:
        assert name in str(error.value)


def test_chunks_cover_all_users_also_when_one_exceeds_a_chunk() -> None:
    shape = synthetic._resolve_shape("tiny", None, None, None)
    model = dataclasses.replace(synthetic._MODEL, chunk_ratings=25, rejection_rounds=2)
    check_contract(synthetic._generate("test", shape, 0, model), 200, 100, 4_000)


def test_sampling_without_replacement_has_the_exact_distribution() -> None:
    """Two of three items, weights 0.5, 0.3, 0.2: P(pair) = a b / (1 - a) + a b / (1 - b), by rounds and by race."""
    weights = np.array([0.5, 0.3, 0.2])
    num_users = 40_000
    expected = [a * b / (1 - a) + a * b / (1 - b) for a, b in ((0.5, 0.3), (0.5, 0.2), (0.3, 0.2))]
    for rounds in (1, 50):
        keys = synthetic._draw_items(
            np.random.default_rng(0),
            np.ones((num_users, 1)),
            np.cumsum(weights)[None],
            np.full(num_users, 2),
            np.empty(0, np.int64),
            rounds,
        )
        first, second = (keys % 3).reshape(num_users, 2).T
        pairs = np.bincount(first + second - 1, minlength=3) / num_users  # (0,1), (0,2), (1,2)
        np.testing.assert_allclose(pairs, expected, atol=0.01)


@pytest.mark.parametrize("name", ["small", "movielens_shape"])
def test_marginals_look_like_movielens(name: str, request: pytest.FixtureRequest) -> None:
    data: RatingData = request.getfixturevalue(name)
    shares = np.bincount(data.codes, minlength=6)[1:] / data.num_ratings
    np.testing.assert_allclose(shares, synthetic._MODEL.rating_shares, atol=0.01)
    assert 0.40 < share_of_top_items(data) < 0.52  # MovieLens-1M: 0.444
    counts = np.diff(data.indptr)
    assert counts.max() > 3 * counts.mean()
    assert counts.mean() > 1.2 * np.median(counts)
    per_item = np.bincount(data.items, minlength=data.num_items)
    mean_rating = np.bincount(data.items, data.rating_values[data.codes]) / per_item
    often = per_item >= 20
    correlation = np.corrcoef(np.log(per_item[often]), mean_rating[often])[0, 1]
    assert 0.2 < correlation < 0.6  # MovieLens-1M: 0.366


def test_times_strictly_increase_and_come_in_sessions(small: RatingData) -> None:
    users = user_of_row(small)
    order = np.lexsort((small.timestamps, users))
    gaps = np.diff(small.timestamps[order])[users[order][1:] == users[order][:-1]]
    assert gaps.min() >= 1
    assert np.median(gaps) < 60
    assert 0.01 < np.mean(gaps > 3600) < 0.03
    assert abs(np.corrcoef(small.items, small.timestamps)[0, 1]) < 0.05  # order of storage is not order of time


# Figure 3 of the paper.


def consecutive_counts(positive: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plain loop: consecutive positives and negatives just before each row; `starts` marks each user's first row."""
    num_positive, num_negative = np.zeros(len(positive), int), np.zeros(len(positive), int)
    for row in range(1, len(positive)):
        if not starts[row]:
            num_positive[row] = num_positive[row - 1] + 1 if positive[row - 1] else 0
            num_negative[row] = 0 if positive[row - 1] else num_negative[row - 1] + 1
    return num_positive, num_negative


def figure_3_slopes(
    data: RatingData, *, within_users: bool = False, shuffle_seed: int | None = None
) -> tuple[float, float]:
    """Rise of the average rating per consecutive positive and per consecutive negative rating (counts 1 to 8).

    Args:
        data: Ratings with timestamps.
        within_users: Subtract each user's own means first, so that lenient and strict users do not make a slope. This
            leaves a small slope of the opposite sign, because a rating is part of its user's mean.
        shuffle_seed: Put every user's ratings in random order first: what is left is not sequential.
    """
    users = user_of_row(data)
    when = data.timestamps if shuffle_seed is None else np.random.default_rng(shuffle_seed).random(data.num_ratings)
    order = np.lexsort((when, users))
    ratings = data.rating_values[data.codes[order]]
    starts = np.concatenate([[True], users[1:] != users[:-1]])
    slopes = []
    for counts in consecutive_counts(ratings > 3, starts):
        rows = (counts >= 1) & (counts <= 8)
        groups = users[rows] if within_users else np.zeros(rows.sum(), int)
        run, rating = (
            values - np.bincount(groups, values)[groups] / np.bincount(groups)[groups]
            for values in (counts[rows], ratings[rows])
        )
        slopes.append(float(run @ rating / (run @ run)))
    return slopes[0], slopes[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_ratings_rise_with_consecutive_positives_and_fall_with_negatives(seed: int) -> None:
    data, without = synthetic.generate("small", seed=seed), with_strength(0.0, seed)
    slopes, slopes_without = figure_3_slopes(data), figure_3_slopes(without)
    assert slopes[0] > 0.07  # MovieLens-1M: 0.088
    assert slopes[1] < -0.09  # MovieLens-1M: -0.141
    assert slopes[0] - slopes_without[0] > 0.025
    assert slopes[1] - slopes_without[1] < -0.025
    within = figure_3_slopes(data, within_users=True)
    shuffled = figure_3_slopes(data, within_users=True, shuffle_seed=seed)
    assert within[0] - shuffled[0] > 0.035  # MovieLens-1M: 0.060
    assert within[1] - shuffled[1] < -0.04  # MovieLens-1M: -0.095


@pytest.mark.parametrize("within_users", [False, True])
def test_without_the_sequential_term_only_the_users_differences_remain(within_users: bool) -> None:
    differences = []
    for seed in (0, 1, 2):
        data = with_strength(0.0, seed)
        in_time = figure_3_slopes(data, within_users=within_users)
        shuffled = figure_3_slopes(data, within_users=within_users, shuffle_seed=seed)
        differences.append(np.subtract(in_time, shuffled))
    np.testing.assert_allclose(np.mean(differences, axis=0), 0.0, atol=0.008)


def test_ratings_follow_the_recurrence_of_the_docstring() -> None:
    """The vectorised recurrence against a plain loop."""
    rng = np.random.default_rng(0)
    counts = np.array([3, 1, 40, 7])
    scores = rng.normal(size=counts.sum()).astype(np.float32)
    cut_points = np.array([-1.5, -0.5, 0.3, 1.0], np.float32)
    model = dataclasses.replace(synthetic._MODEL, sequential_strength=0.25, sequential_limit=3)
    ratings, shifted = synthetic._rate_in_order(scores, counts, cut_points, model)
    row = 0
    for count in counts:
        run = 0
        for _ in range(count):
            value = scores[row] + 0.25 * run
            rating = 1 + sum(value > cut for cut in cut_points)
            assert ratings[row] == rating
            assert shifted[row] == pytest.approx(value, abs=1e-6)
            run = min(max(run, 0) + 1, 3) if rating > 3 else max(min(run, 0) - 1, -3)
            row += 1


# What a recommender can gain: the paper's simulator with an independent GaussianPosterior.


def empirical_rewards(data: RatingData) -> np.ndarray:
    values = 2 * data.rating_values / 5 - 1
    rewards = np.zeros(data.shape)
    rewards[user_of_row(data), data.items] = values[data.codes]
    return rewards


def mean_reward(rewards: np.ndarray, alpha: float) -> float:
    """Mean of r + alpha (c_p - c_n) over [B, T] empirical rewards in the order of recommendation."""
    positives, negatives, total = np.zeros(len(rewards)), np.zeros(len(rewards)), 0.0
    for reward in rewards.T:
        total += np.sum(reward + alpha * (positives - negatives))
        positives = np.where(reward > 0, positives + 1, 0)
        negatives = np.where(reward < 0, negatives + 1, 0)
    return total / rewards.size


def gaussian_posterior(train: np.ndarray, test: np.ndarray, noise: float) -> np.ndarray:
    """[B, T] rewards of greedily recommending the highest conditional mean, solved anew at every step."""
    mean, covariance = train.mean(axis=0), np.cov(train, rowvar=False)
    noisy = covariance + noise * np.eye(len(mean))
    users = np.arange(len(test))
    chosen = np.full((len(test), 1), np.argmax(mean))
    while chosen.shape[1] < EPISODE_LENGTH:
        seen = np.take_along_axis(test, chosen, axis=1) - mean[chosen]
        gram = noisy[chosen[:, :, None], chosen[:, None, :]]
        weights = np.linalg.solve(gram, seen[:, :, None])[:, :, 0]
        posterior = mean + np.einsum("bt,bti->bi", weights, covariance[chosen])
        posterior[users[:, None], chosen] = -np.inf
        chosen = np.concatenate([chosen, np.argmax(posterior, axis=1)[:, None]], axis=1)
    return np.take_along_axis(test, chosen, axis=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_personal_recommendation_beats_the_best_fixed_list(seed: int) -> None:
    data = synthetic.generate("small", seed=seed)
    rewards = empirical_rewards(data)
    order = np.random.default_rng(seed).permutation(data.num_users)
    train, test = rewards[order[:1_200]], rewards[order[1_200:]]
    best_list = test[:, np.argsort(-train.mean(axis=0))[:EPISODE_LENGTH]]
    posterior = gaussian_posterior(train, test, noise=0.05)
    for alpha in (0.0, 0.1):
        ratio = mean_reward(posterior, alpha) / mean_reward(best_list, alpha)
        assert 1.33 < ratio < 2.0, (alpha, ratio)


@pytest.fixture(scope="module")
def real_movielens() -> RatingData:
    root = Path(os.environ.get("TPGR_JAX_DATA", "."))
    candidates = [root / folder / name for folder in ("", "ml-1m") for name in ("ratings.dat", "ratings.dat.gz")]
    path = next((path for path in candidates if path.is_file()), None)
    if "TPGR_JAX_DATA" not in os.environ or path is None:
        pytest.skip("TPGR_JAX_DATA does not point to MovieLens-1M")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    users, items, ratings, timestamps = np.array(raw.replace(b"::", b" ").split(), np.int64).reshape(-1, 4).T
    return build_rating_data(
        name="movielens_1m",
        users=users,
        items=items,
        ratings=ratings,
        timestamps=timestamps,
        rating_min=1,
        rating_max=5,
        checksum="",
        source=str(path),
        synthetic=False,
    )


def test_resembles_the_real_movielens_1m(real_movielens: RatingData, movielens_shape: RatingData) -> None:
    if real_movielens.shape != movielens_shape.shape:
        pytest.skip("TPGR_JAX_DATA holds another data set")
    for part in (0.01, 0.05, 0.1, 0.2, 0.5):
        real, ours = share_of_top_items(real_movielens, part), share_of_top_items(movielens_shape, part)
        assert ours == pytest.approx(real, abs=0.03)
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
    real, ours = (np.quantile(np.diff(data.indptr), quantiles) for data in (real_movielens, movielens_shape))
    np.testing.assert_allclose(ours, real, rtol=0.1)
    real_slopes, our_slopes = figure_3_slopes(real_movielens), figure_3_slopes(movielens_shape)
    np.testing.assert_allclose(our_slopes, real_slopes, rtol=0.25)

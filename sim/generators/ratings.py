"""Seeded generator of ratings that look like MovieLens: the data set of tests, demonstrations and scale trials.

The model, for users u, items i and K latent topics:

* Exposure. Item i has a topic mixture theta_i ~ (1 - f) Dirichlet(a) + f / K and a popularity weight w_i that falls
  with its rank fraction q = rank / I as log w_i = -(s q^p + t q^8), a long tail fitted by hand to MovieLens-1M. User u
  has tastes pi_u ~ Dirichlet(b) and rates n_u = 20 + lambda Weibull(0.76) items, lambda being such that the numbers add
  up. The items are drawn one after the other, without replacement, with probability sum_k pi_uk phi_ik, where phi_ik is
  proportional to w_i theta_ik over items. One rating of every item is placed at random first, so that none is empty.
* Rating. x_ui = quality_i + leniency_u + g <theta_i, pi_u> + noise, quality_i being correlated with -q^p: popular items
  are rated higher, and the taste that chooses what is rated also raises how it is rated.
* Sequence. A user's ratings have a random order in time. With c the signed length of the run of ratings just before
  (positive: ratings above 3; negative: 3 and below), limited to [-C, C], the rating is the number of cut points below
  x_ui + h c, plus 1. The term h c gives Figure 3 of the TPGR paper: ratings rise with consecutive positives and fall
  with consecutive negatives, beyond what lenient and strict users alone would show. Cut points are fitted so that
  ratings 1 to 5 have the shares they have in MovieLens-1M.
* Time. A user starts at a random moment; then seconds to minutes lie between ratings, or now and then days (a new
  session). Times strictly increase within a user. Runs of ratings carry over from session to session, as in the paper,
  which treats all ratings of a user as one sequence.

It is meant for tests without downloads, for a program that runs out of the box, and for trials of speed and memory at
the shapes of MovieLens-10M and Netflix. It is not meant for scientific claims: who wins here says that a method can
find topics of taste, not that people have such topics. There is no drift of taste, no new items, no text, no genres,
and the steepness of popularity is fitted at the shape of MovieLens-1M only.

How close it comes to MovieLens-1M at that shape (32 recommendations, 80/20 split, seeds 0 to 4; real set in brackets):
the 10 % most rated items hold 0.455 of the ratings (0.444); the best fixed list has mean reward 0.25 to 0.28 (0.27) at
alpha 0 and 0.33 to 0.37 (0.37) at 0.1, GaussianPosterior with noise 0.02 has 0.36 to 0.39 (0.36) and 0.53 to 0.58
(0.52). Ratings rise by 0.092 (0.088) per consecutive positive and fall by 0.119 (0.141) per consecutive negative one.
Personalising therefore pays more here than on the real set: 1.41 to 1.47 times the best list (1.33) at alpha 0.

Results repeat for equal (size, seed, overrides), GENERATOR_VERSION and NumPy streams (NumPy may change those of its
distributions between releases). Elementary functions may differ in the last bit between processors, which can in rare
cases move a single rating; the checksum covers the arrays and would show either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import UserError
from sim.tables.ratings import RatingData

GENERATOR_VERSION = 1
"""Increment when the same arguments would give different ratings."""

_MAX_ITEMS = 2**18
_MAX_USERS = 2**22
_MAX_DENSITY = 0.5
_MAX_SHARE_OF_ITEMS = 0.8
_FIRST_SECOND = 956_700_000  # spring 2000, when MovieLens-1M begins
_YEAR_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class _Size:
    """A named shape: U, I, R, and the two constants that have to follow the shape.

    Where users rate few items, tastes must be narrower for 32 recommendations to be worth personalising.
    """

    num_users: int
    num_items: int
    num_ratings: int
    steepness: float  # s: how steeply popularity falls with rank
    taste_mass: float  # sum of a user's Dirichlet parameters b: small values give users of one topic


_SIZES = {
    "tiny": _Size(200, 100, 4_000, 4.0, 0.65),
    "small": _Size(1_500, 600, 60_000, 7.0, 0.65),
    "movielens_1m": _Size(6_040, 3_706, 1_000_209, 6.8, 1.6),
    "movielens_10m": _Size(69_878, 10_677, 10_000_054, 7.0, 1.6),
    "netflix": _Size(480_189, 17_770, 100_480_507, 7.0, 1.6),
}


@dataclass(frozen=True)
class _Model:
    """The constants that all shapes share; the module docstring gives the equations."""

    num_topics: int = 12  # K
    topic_mass: float = 0.6  # sum of an item's Dirichlet parameters a: small values give items of one topic
    topic_floor: float = 0.07  # f: share of every item's mixture that is spread evenly
    head_exponent: float = 0.36  # p
    tail_steepness: float = 6.0  # t
    user_shape: float = 0.76  # Weibull shape of the number of ratings; fits MovieLens-1M's quantiles
    min_ratings: int = 20
    quality: float = 0.7
    quality_of_popularity: float = 0.5  # correlation of quality with -q^p
    leniency: float = 0.3
    affinity: float = 1.2  # g
    noise: float = 0.7
    sequential_strength: float = 0.06  # h
    sequential_limit: int = 10  # C
    rating_shares: tuple[float, ...] = (0.056, 0.108, 0.261, 0.349, 0.226)
    session_gap_seconds: float = 25.0
    new_session_probability: float = 0.02
    between_sessions_days: float = 12.0
    years: float = 3.0
    chunk_ratings: int = 1_000_000  # ratings in memory at a time; part of what the seed means
    rejection_rounds: int = 30


_MODEL = _Model()


@dataclass(frozen=True)
class _World:
    """The drawn parameters of users and items.

    Attributes:
        topics: [I, K] float32 theta.
        cumulative: [K, I] cumulative sum of phi over items, its last entry 1.
        quality: [I] float32.
        tastes: [U, K] pi.
        leniency: [U] float32.
        counts: [U] ratings per user.
    """

    topics: np.ndarray
    cumulative: np.ndarray
    quality: np.ndarray
    tastes: np.ndarray
    leniency: np.ndarray
    counts: np.ndarray


def generate(
    size: str = "small",
    seed: int = 0,
    num_users: int | None = None,
    num_items: int | None = None,
    num_ratings: int | None = None,
) -> RatingData:
    """Generates ratings 1 to 5 with timestamps; the numbers of users, items and ratings are exact.

    Args:
        size: "tiny", "small", "movielens_1m", "movielens_10m" or "netflix".
        seed: Seed of everything random, 0 or more.
        num_users: U in place of the size's own.
        num_items: I in place of the size's own.
        num_ratings: R in place of the size's own. Where it is None and U or I is given, the size's ratings per user are
            kept as far as the new shape allows.

    Raises:
        UserError: An unknown size, a negative seed, or a shape that cannot be filled.
    """
    shape = _resolve_shape(size, num_users, num_items, num_ratings)
    if seed < 0:
        raise UserError(f"seed {seed} is negative", where="data.seed", do="Set it to 0 or more.")
    return _generate(f"synthetic_{size}", shape, seed, _MODEL)


def _resolve_shape(size: str, num_users: int | None, num_items: int | None, num_ratings: int | None) -> _Size:
    """Applies the overrides to the named size and checks the result."""
    if size not in _SIZES:
        raise UserError(f"unknown size {size!r}", where="data.size", do=f"Choose one of: {', '.join(_SIZES)}.")
    base = _SIZES[size]
    users = _checked("data.num_users", base.num_users if num_users is None else num_users, 2, _MAX_USERS)
    items = _checked("data.num_items", base.num_items if num_items is None else num_items, 2, _MAX_ITEMS)
    low, high = max(users, items), int(_MAX_DENSITY * users * items)
    if num_ratings is None:
        ratings = min(max(round(base.num_ratings * users / base.num_users), low), high)
    else:
        because = f" for {users:,} users and {items:,} items"
        ratings = _checked("data.num_ratings", num_ratings, low, high, because)
    return replace(base, num_users=users, num_items=items, num_ratings=ratings)


def _checked(key: str, value: int, low: int, high: int, because: str = "") -> int:
    """Returns `value` if it is an integer in [low, high]; else raises a UserError that names the key and the range."""
    if not low <= value <= high or value != int(value):
        do = f"Set it to a whole number between {low:,} and {high:,}{because}."
        raise UserError(f"{value:,} is out of range", where=key, do=do)
    return int(value)


def _generate(name: str, shape: _Size, seed: int, model: _Model) -> RatingData:
    """Generates the data set of a resolved shape, chunk of users by chunk of users."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([GENERATOR_VERSION, seed])))
    world = _draw_world(rng, shape, model)
    indptr = np.append(0, np.cumsum(world.counts))
    forced_users, forced_items = _place_every_item(rng, indptr, shape.num_items)

    items = np.empty(shape.num_ratings, np.uint16 if shape.num_items <= 2**16 else np.int32)
    codes = np.empty(shape.num_ratings, np.uint8)
    timestamps = np.empty(shape.num_ratings, np.int64)
    cut_points: np.ndarray | None = None
    # Chunk by chunk: which items the users rate, how, and when.
    for first, last in _user_chunks(indptr, model.chunk_ratings):
        rows = slice(indptr[first], indptr[last])
        counts = world.counts[first:last]
        of_chunk = slice(*np.searchsorted(forced_users, [first, last]))
        forced = (forced_users[of_chunk] - first) * shape.num_items + forced_items[of_chunk]
        keys = _draw_items(rng, world.tastes[first:last], world.cumulative, counts, forced, model.rejection_rounds)
        users, chunk_items = np.divmod(keys, shape.num_items)
        scores = _scores(rng, world, users + first, chunk_items, model)
        in_time = _random_order(rng, users, counts)
        if cut_points is None:  # users are in random order, so the first chunk is representative
            cut_points = _fit_cut_points(scores[in_time], counts, model)
        items[rows] = chunk_items
        codes[rows][in_time] = _rate_in_order(scores[in_time], counts, cut_points, model)[0]
        timestamps[rows][in_time] = _times(rng, counts, model)

    return RatingData(
        name=name,
        user_ids=np.arange(1, shape.num_users + 1, dtype=np.int64),
        item_ids=np.arange(1, shape.num_items + 1, dtype=np.int64),
        indptr=indptr,
        items=items,
        codes=codes,
        rating_values=np.array([np.nan, 1.0, 2.0, 3.0, 4.0, 5.0]),
        timestamps=timestamps,
        rating_min=1.0,
        rating_max=5.0,
        checksum=_checksum(indptr, items, codes, timestamps),
        source=f"generated (version {GENERATOR_VERSION}, seed {seed})",
        synthetic=True,
    )


def _draw_world(rng: np.random.Generator, shape: _Size, model: _Model) -> _World:
    """Draws the parameters of all items and users."""
    num_items, num_topics = shape.num_items, model.num_topics
    rank = rng.permutation(num_items) / num_items
    head = -shape.steepness * rank**model.head_exponent
    weight = np.exp(head - model.tail_steepness * rank**8)
    mixture = rng.dirichlet(np.full(num_topics, model.topic_mass / num_topics), num_items)
    topics = (1 - model.topic_floor) * mixture + model.topic_floor / num_topics
    cumulative = np.cumsum((weight[:, None] * topics).T, axis=1)
    cumulative /= cumulative[:, -1:]
    spread = (head - head.mean()) / head.std()
    correlation = model.quality_of_popularity
    noise = rng.standard_normal(num_items)
    quality = model.quality * (correlation * spread + np.sqrt(1 - correlation**2) * noise)
    tastes = rng.dirichlet(np.full(num_topics, shape.taste_mass / num_topics), shape.num_users)
    leniency = model.leniency * rng.standard_normal(shape.num_users)
    counts = _draw_counts(rng, shape, model)
    return _World(
        topics.astype(np.float32), cumulative, quality.astype(np.float32), tastes, leniency.astype(np.float32), counts
    )


def _draw_counts(rng: np.random.Generator, shape: _Size, model: _Model) -> np.ndarray:
    """Draws [U] ratings per user whose sum is R exactly.

    The minimum is 20, or half the mean if that is smaller; the maximum is 80 % of the items.
    """
    low = max(1, min(model.min_ratings, shape.num_ratings // (2 * shape.num_users)))
    high = max(1, int(_MAX_SHARE_OF_ITEMS * shape.num_items))
    draws = rng.weibull(model.user_shape, shape.num_users) + 1e-6

    def counts_at(scale: float) -> np.ndarray:
        return np.minimum(low + scale * draws, high)

    smallest, largest = 0.0, high / float(draws.min())
    for _ in range(100):
        scale = (smallest + largest) / 2
        if counts_at(scale).sum() < shape.num_ratings:
            smallest = scale
        else:
            largest = scale
    exact = counts_at(largest)
    counts = exact.astype(np.int64)
    missing = shape.num_ratings - int(counts.sum())
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[:missing]] += 1
    return counts


def _place_every_item(rng: np.random.Generator, indptr: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives every item one rating of some user, never more than the user has; returns (users ascending, items)."""
    rows = np.sort(rng.choice(indptr[-1], num_items, replace=False))
    return np.searchsorted(indptr, rows, side="right") - 1, rng.permutation(num_items)


def _user_chunks(indptr: np.ndarray, chunk_ratings: int) -> Iterator[tuple[int, int]]:
    """Yields ranges of users that hold about `chunk_ratings` ratings each, at least one user."""
    first, num_users = 0, len(indptr) - 1
    while first < num_users:
        last = int(np.searchsorted(indptr, indptr[first] + chunk_ratings, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _draw_items(
    rng: np.random.Generator,
    tastes: np.ndarray,
    cumulative: np.ndarray,
    counts: np.ndarray,
    forced: np.ndarray,
    rejection_rounds: int,
) -> np.ndarray:
    """Draws distinct items for the users of a chunk: [r] ascending keys `user * I + item`.

    Each round draws as many items as are missing and drops repetitions, which is sequential sampling without
    replacement exactly. Users who own most of what they like would need very many rounds: the rest of theirs comes from
    an exponential race over all items, which has the same distribution.

    Args:
        rng: Random generator.
        tastes: [B, K] mixture of each user.
        cumulative: [K, I] cumulative item probabilities of each topic.
        counts: [B] number of items of each user.
        forced: Keys that must be in the result, at most `counts` of each user.
        rejection_rounds: Number of rounds before the race.
    """
    num_users, num_items = len(counts), cumulative.shape[1]
    finished, keys = [], np.sort(forced)
    wanting = np.ones(num_users, bool)
    for _ in range(rejection_rounds):
        held = np.bincount(keys // num_items, minlength=num_users)
        wanting &= held < counts
        complete = ~wanting[keys // num_items]
        finished.append(keys[complete])
        keys = keys[~complete]
        active = np.flatnonzero(wanting)
        if len(active) == 0:
            break
        drawn = _draw_with_replacement(rng, tastes, cumulative, active, (counts - held)[active])
        keys = _sorted_distinct(np.concatenate([keys, drawn]))
    else:
        finished.append(_finish_by_race(rng, tastes, cumulative, counts, keys))
    return np.sort(np.concatenate(finished))


def _draw_with_replacement(
    rng: np.random.Generator, tastes: np.ndarray, cumulative: np.ndarray, users: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Draws `counts` items for each of `users`, repetitions allowed; returns keys."""
    num_items = cumulative.shape[1]
    by_topic = rng.multinomial(counts, tastes[users])
    keys = []
    for topic, topic_counts in enumerate(by_topic.T):
        item = np.searchsorted(cumulative[topic], rng.random(int(topic_counts.sum())), side="right")
        keys.append(np.repeat(users * num_items, topic_counts) + item)
    return np.concatenate(keys)


def _sorted_distinct(keys: np.ndarray) -> np.ndarray:
    """Sorts keys and drops repetitions."""
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def _finish_by_race(
    rng: np.random.Generator, tastes: np.ndarray, cumulative: np.ndarray, counts: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """Completes the users of `keys` (ascending): the missing items are those whose exponential clocks ring first."""
    num_items = cumulative.shape[1]
    probabilities = np.diff(cumulative, axis=1, prepend=0.0)
    users, starts = np.unique(keys // num_items, return_index=True)
    completed = [keys]
    for user, held in zip(users, np.split(keys % num_items, starts[1:]), strict=True):
        missing = int(counts[user]) - len(held)
        if missing <= 0:
            continue
        rate = tastes[user] @ probabilities
        clock = rng.standard_exponential(num_items) / rate
        clock[held] = np.inf
        completed.append(user * num_items + np.argpartition(clock, missing - 1)[:missing])
    return np.concatenate(completed)


def _scores(rng: np.random.Generator, world: _World, users: np.ndarray, items: np.ndarray, model: _Model) -> np.ndarray:
    """Returns [r] x_ui, the part of a rating that does not depend on the ratings before it."""
    tastes = world.tastes.astype(np.float32)[users]
    affinity = np.einsum("rk,rk->r", world.topics[items], tastes)
    noise = model.noise * rng.standard_normal(len(users), dtype=np.float32)
    return world.quality[items] + world.leniency[users] + np.float32(model.affinity) * affinity + noise


def _random_order(rng: np.random.Generator, users: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns [r] rows in order of time: users stay together, the rows of each are shuffled."""
    # One sort of packed integers (user, random, row) is several times faster than an argsort.
    row_bits = max(1, int(len(users) - 1).bit_length())
    user_bits = max(1, int(len(counts) - 1).bit_length())
    random_bits = 63 - row_bits - user_bits
    packed = rng.integers(0, 2**random_bits, len(users)) << row_bits
    packed |= users << (row_bits + random_bits)
    packed |= np.arange(len(users))
    packed.sort()
    return packed & (2**row_bits - 1)


def _fit_cut_points(scores: np.ndarray, counts: np.ndarray, model: _Model) -> np.ndarray:
    """Returns the 4 cut points for which ratings, with the sequential term, have the required shares."""
    shares = np.cumsum(model.rating_shares)[:-1]
    num_users = max(1, int(np.searchsorted(np.cumsum(counts), 200_000)))
    scores, counts = scores[: counts[:num_users].sum()], counts[:num_users]
    cut_points = np.quantile(scores, shares).astype(np.float32)
    if model.sequential_strength:
        for _ in range(6):
            _, shifted = _rate_in_order(scores, counts, cut_points, model)
            cut_points = (0.5 * (cut_points + np.quantile(shifted, shares))).astype(np.float32)
    return cut_points


def _rate_in_order(
    scores: np.ndarray, counts: np.ndarray, cut_points: np.ndarray, model: _Model
) -> tuple[np.ndarray, np.ndarray]:
    """Turns scores in order of time into ratings, each depending on the run of ratings before it.

    Args:
        scores: [r] x_ui, the rows of a user together and in order of time.
        counts: [B] number of rows of each user.
        cut_points: [4] cut points, ascending.
        model: Strength and limit of the sequential term.

    Returns:
        ([r] ratings 1 to 5 as uint8, [r] scores with the sequential term).
    """
    limit = model.sequential_limit
    runs = np.arange(-limit, limit + 1)
    effect = (model.sequential_strength * runs).astype(np.float32)
    after_negative = np.maximum(np.minimum(runs, 0) - 1, -limit) + limit
    after_positive = np.minimum(np.maximum(runs, 0) + 1, limit) + limit
    next_run = np.stack([after_negative, after_positive])

    # Longest users first: those still rating at position t are then a prefix.
    by_length = np.argsort(-counts, kind="stable")
    row = (np.cumsum(counts) - counts)[by_length]
    rating_users = len(counts) - np.searchsorted(np.sort(counts), np.arange(counts.max()), side="right")
    run = np.full(len(counts), limit)
    ratings, shifted = np.empty(len(scores), np.uint8), np.empty_like(scores)
    for num_rating in rating_users:
        row, run = row[:num_rating], run[:num_rating]
        value = scores[row] + effect[run]
        rating = np.searchsorted(cut_points, value) + 1
        shifted[row], ratings[row] = value, rating
        run = next_run[(rating > 3).astype(np.intp), run]
        row = row + 1
    return ratings, shifted


def _times(rng: np.random.Generator, counts: np.ndarray, model: _Model) -> np.ndarray:
    """Returns [r] seconds, strictly increasing within each user."""
    num_ratings = int(counts.sum())
    gaps = 1 + (model.session_gap_seconds * rng.standard_exponential(num_ratings)).astype(np.int64)
    breaks = np.flatnonzero(rng.random(num_ratings) < model.new_session_probability)
    pause = 24 * 3600 * model.between_sessions_days * rng.standard_exponential(len(breaks))
    gaps[breaks] += 3600 + pause.astype(np.int64)
    elapsed = np.cumsum(gaps)
    start = _FIRST_SECOND + rng.integers(0, int(model.years * _YEAR_SECONDS), len(counts))
    first_row = np.cumsum(counts) - counts
    return elapsed + np.repeat(start - elapsed[first_row], counts)


def _checksum(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays, byte for byte the same on little- and big-endian machines."""
    digest = hashlib.sha256(f"synthetic {GENERATOR_VERSION}".encode())
    for array in arrays:
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(np.ascontiguousarray(little_endian).data)
    return "sha256:" + digest.hexdigest()

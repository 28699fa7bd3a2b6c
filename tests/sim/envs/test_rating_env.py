"""The simulator step by step against an oracle in plain Python that follows Eq. 6, and golden values by hand."""

import functools
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_ratings
from harness.errors import UserError
from harness.settings import read_settings
from sim.envs.rating_env import EnvConfig, RatingEnv, empirical_rewards, make_env_params, make_rating_env

NUM_USERS, NUM_ITEMS = 12, 40
RELEVANT_ABOVE = 3


def make_config(**changes):
    settings = {
        "alpha": 0.1,
        "episode_length": 6,
        "reward_scale": "half_open",
        "cold_start": "policy",
        "allow_repeats": False,
        "rating_layout": "auto",
        "dense_limit_mb": 100.0,
    }
    return read_settings(EnvConfig, settings | changes, "env")


def make_data(ratings, low=None, high=None):
    """Rating data from {(user, item): rating}."""
    users, items = np.array(list(ratings)).T
    return hand_made_ratings(users, items, np.array(list(ratings.values()), float), low, high)


def oracle_episode(ratings, user, actions, alpha, scale, low, high, allow_repeats, counts_by="sign"):
    """One episode in exact fractions: per step (R, r, hit, repeated, nine counts after the step)."""
    steps, signs = [], []
    positive_run = negative_run = 0

    def trailing(matches):
        return len(list(itertools.takewhile(matches, reversed(signs))))

    for t, item in enumerate(actions):
        repeated = item in actions[:t]
        rating = ratings.get((user, item))
        if repeated and not allow_repeats:
            rating = None
        if rating is None:
            r = Fraction(0)
        elif scale == "half_open":
            r = 2 * Fraction(rating) / Fraction(high) - 1
        else:
            r = 2 * (Fraction(rating) - Fraction(low)) / (Fraction(high) - Fraction(low)) - 1
        reward = r + Fraction(alpha) * (positive_run - negative_run)
        positive, negative = r > 0, r < 0
        if counts_by == "rating":
            positive, negative = rating is not None and rating > 3, rating is not None and rating <= 3
        if positive:
            positive_run, negative_run = positive_run + 1, 0
        elif negative:
            positive_run, negative_run = 0, negative_run + 1
        else:
            positive_run = negative_run = 0
        signs.append(positive - negative)
        counts = [
            signs.count(-1),
            signs.count(1),
            signs.count(0),
            len(signs),
            trailing(lambda sign: sign == -1),
            trailing(lambda sign: sign == 1),
            trailing(lambda sign: sign == 0),
            trailing(lambda sign: sign != -1),
            trailing(lambda sign: sign != 1),
        ]
        hit = rating is not None and rating > RELEVANT_ABOVE
        steps.append((float(reward), float(r), hit, repeated, counts))
    return steps


@functools.partial(jax.jit, static_argnums=0)
def play(env, params, users, actions):
    """[B] users and [B, T] actions -> the first observation and everything each step returns, [T, B]."""
    first, state = jax.vmap(env.reset_at)(users)

    def step(state, action):
        observation, state, *outcome = jax.vmap(env.step, (None, 0, 0, None))(None, state, action, params)
        return state, (observation, state, *outcome)

    return first, jax.lax.scan(step, state, actions.T)[1]


def random_ratings(generator, low):
    """Half-star ratings with users who like much or little, so that long positive and negative runs occur.

    Always the same number of ratings and of distinct values: one compilation serves all.
    """
    ratings = {}
    values = np.delete(np.arange(low, 5.5, 0.5), 1) if low == 0.5 else np.arange(low, 5.5, 0.5)
    for user in range(NUM_USERS):
        for item in generator.permutation(NUM_ITEMS)[: NUM_ITEMS if user == 0 else 28].tolist():
            liked = generator.random() < (0.85 if user % 2 else 0.3)
            ratings[user, item] = float(generator.choice(values[values >= 3] if liked else values[values <= 3]))
    assert set(ratings.values()) == set(values)
    return ratings


def check_against_oracle(env, params, ratings, alpha, scale, low, users, actions, counts_by="sign"):
    first, (observation, state, reward, terminated, truncated, info) = jax.tree.map(
        np.asarray, play(env, params, jnp.asarray(users, jnp.int32), jnp.asarray(actions, jnp.int32))
    )
    length = env.episode_length
    assert (first.status == 0).all()
    assert (first.recommended == -1).all()
    assert (first.last_item == -1).all()
    assert (first.last_reward == 0).all()
    assert (first.last_empirical == 0).all()
    assert (first.step == 0).all()
    for b, user in enumerate(users):
        expected = oracle_episode(ratings, user, list(actions[b]), alpha, scale, low, 5, env.allow_repeats, counts_by)
        total, empirical, hit, repeated, counts = (np.array(column) for column in zip(*expected, strict=True))
        np.testing.assert_allclose(reward[:, b], total, atol=2e-6)
        np.testing.assert_allclose(info.empirical[:, b], empirical, atol=1e-7)
        np.testing.assert_array_equal(info.hit[:, b], hit)
        np.testing.assert_array_equal(info.repeated[:, b], repeated)
        np.testing.assert_array_equal(state.counts[:, b], counts)
        np.testing.assert_allclose(observation.status[:, b], counts / length, rtol=1e-6)
        np.testing.assert_array_equal(observation.last_item[:, b], actions[b])
        so_far = np.where(np.tri(length, dtype=bool), actions[b], -1)
        carried = so_far[:, :0] if env.allow_repeats else so_far
        np.testing.assert_array_equal(observation.recommended[:, b], carried)
        np.testing.assert_array_equal(state.user[:, b], np.full(length, user))
    np.testing.assert_array_equal(observation.last_reward, reward)
    np.testing.assert_array_equal(observation.last_empirical, info.empirical)
    np.testing.assert_array_equal(observation.step, np.tile(np.arange(length)[:, None] + 1, len(users)))
    assert not terminated.any()
    np.testing.assert_array_equal(truncated, np.tile(np.arange(length)[:, None] == length - 1, len(users)))


@pytest.mark.parametrize("allow_repeats", [False, True])
@pytest.mark.parametrize("scale", ["half_open", "symmetric"])
@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_every_step_equals_the_oracle(layout, scale, allow_repeats):
    # 8 settings x 3 alphas x 2 sets of ratings x 21 episodes = 1,008 episodes.
    generator = np.random.default_rng(["dense", "csr"].index(layout) + 2 * (scale == "symmetric") + 4 * allow_repeats)
    for number, (low, alpha) in enumerate(itertools.product((0.5, 1), (0.0, 0.1, 0.2))):
        ratings = random_ratings(generator, low)
        length = (6, 32)[number % 2]
        config = make_config(
            alpha=alpha,
            episode_length=length,
            reward_scale=scale,
            allow_repeats=allow_repeats,
            rating_layout=layout,
        )
        data = make_data(ratings, low, 5)
        env = make_rating_env(config, data)
        params = make_env_params(config, data, np.arange(NUM_USERS), RELEVANT_ABOVE)
        assert (params.ratings.dense is None) == (layout == "csr")
        users = generator.integers(0, NUM_USERS, 21)
        actions = np.array(
            [
                generator.permutation(NUM_ITEMS)[:length]  # no repeats, some, many
                if b % 3 == 0
                else generator.integers(0, NUM_ITEMS if b % 3 == 1 else 6, length)
                for b in range(21)
            ]
        )
        check_against_oracle(env, params, ratings, alpha, scale, low, users, actions)


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_counts_by_rating_are_those_of_the_papers_text(layout):
    generator = np.random.default_rng(5)
    ratings = random_ratings(generator, 1)
    config = make_config(counts_by="rating", episode_length=32, rating_layout=layout)
    data = make_data(ratings, 1, 5)
    params = make_env_params(config, data, np.arange(NUM_USERS), RELEVANT_ABOVE)
    users, actions = generator.integers(0, NUM_USERS, 9), generator.integers(0, NUM_ITEMS, (9, 32))
    env = make_rating_env(config, data)
    check_against_oracle(env, params, ratings, 0.1, "half_open", 1, users, actions, "rating")


def play_one(data, config, actions, user=0):
    env = make_rating_env(config, data)
    params = make_env_params(config, data, np.array([user]), RELEVANT_ABOVE)
    outcome = play(env, params, jnp.array([user], jnp.int32), jnp.asarray([actions], jnp.int32))
    return jax.tree.map(lambda array: np.asarray(array)[:, 0], outcome[1])


def test_golden_episode_half_open():
    # Scale 0.5 to 5, alpha 0.1, r = 2 * rating / 5 - 1.
    #   item rating  r     c_p c_n (before)  R
    #   0    5        1     0   0             1
    #   1    3        0.2   1   0             0.2 + 0.1 = 0.3
    #   2    0.5     -0.8   2   0            -0.8 + 0.2 = -0.6
    #   3    1       -0.6   0   1            -0.6 - 0.1 = -0.7
    #   4    2.5      0     0   2             0 - 0.2 = -0.2    exactly neutral: both counts are 0 again
    #   5    4        0.6   0   0             0.6
    data = make_data({(0, 0): 5, (0, 1): 3, (0, 2): 0.5, (0, 3): 1, (0, 4): 2.5, (0, 5): 4})
    assert (data.rating_min, data.rating_max) == (0.5, 5)
    observation, _, reward, terminated, truncated, info = play_one(data, make_config(), range(6))
    np.testing.assert_allclose(info.empirical, [1, 0.2, -0.8, -0.6, 0, 0.6], atol=1e-7)
    np.testing.assert_allclose(reward, [1, 0.3, -0.6, -0.7, -0.2, 0.6], atol=1e-6)
    np.testing.assert_array_equal(info.hit, [True, False, False, False, False, True])  # 3 is not above 3
    assert not info.repeated.any()
    assert not terminated.any()
    np.testing.assert_array_equal(truncated, [False] * 5 + [True])
    # Total negative, positive, zero; steps; consecutive negative, positive, zero, not negative, not positive.
    golden = [
        [0, 1, 0, 1, 0, 1, 0, 1, 0],
        [0, 2, 0, 2, 0, 2, 0, 2, 0],
        [1, 2, 0, 3, 1, 0, 0, 0, 1],
        [2, 2, 0, 4, 2, 0, 0, 0, 2],
        [2, 2, 1, 5, 0, 0, 1, 1, 3],
        [2, 3, 1, 6, 0, 1, 0, 2, 0],
    ]
    np.testing.assert_allclose(observation.status, np.array(golden) / 6, rtol=1e-6)


def test_golden_episode_symmetric_with_an_unrated_item():
    # Scale 1 to 5, alpha 0.2, r = (rating - 3) / 2; user 0 does not rate item 4.
    #   item rating  r     c_p c_n  R
    #   0    5        1     0   0    1
    #   1    3        0     1   0    0 + 0.2 = 0.2   neutral
    #   2    4        0.5   0   0    0.5
    #   3    5        1     1   0    1 + 0.2 = 1.2
    #   4    none     0     2   0    0.4
    #   5    1       -1     0   0   -1
    data = make_data({(0, 0): 5, (0, 1): 3, (0, 2): 4, (0, 3): 5, (0, 5): 1, (1, 4): 5})
    config = make_config(alpha=0.2, reward_scale="symmetric")
    _, state, reward, _, _, info = play_one(data, config, range(6))
    np.testing.assert_allclose(reward, [1, 0.2, 0.5, 1.2, 0.4, -1], atol=1e-6)
    np.testing.assert_array_equal(info.hit, [True, False, True, True, False, False])
    np.testing.assert_array_equal(state.counts[-1], [1, 3, 2, 6, 1, 0, 0, 0, 2])


def test_the_sign_that_counts_is_that_of_r_not_of_the_reward():
    # alpha 2: r = 0.2 after two dislikes gives R = 0.2 - 4 < 0, which still counts as positive.
    data = make_data({(0, 0): 0.5, (0, 1): 0.5, (0, 2): 3, (0, 3): 3, (0, 4): 5})
    config = make_config(alpha=2.0, episode_length=4)
    _, state, reward, _, _, _ = play_one(data, config, range(4))
    np.testing.assert_allclose(reward, [-0.8, -2.8, -3.8, 2.2], atol=1e-5)
    np.testing.assert_array_equal(state.counts[2, 4:6], [0, 1])


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_a_repeat_pays_only_where_repeats_are_allowed(layout):
    data = make_data({(0, 0): 5, (0, 1): 0.5, (0, 2): 4})
    actions = [0, 0, 0]
    config = make_config(episode_length=3, rating_layout=layout)
    _, _, reward, _, _, info = play_one(data, config, actions)
    np.testing.assert_allclose(reward, [1, 0.1, 0], atol=1e-6)  # the repeat resets the run, like an unrated item
    np.testing.assert_array_equal(info.hit, [True, False, False])
    np.testing.assert_array_equal(info.repeated, [False, True, True])
    config = make_config(episode_length=3, rating_layout=layout, allow_repeats=True)
    _, _, reward, _, _, info = play_one(data, config, actions)
    np.testing.assert_allclose(reward, [1, 1.1, 1.2], atol=1e-6)
    np.testing.assert_array_equal(info.hit, [True, True, True])
    np.testing.assert_array_equal(info.repeated, [False, True, True])


@pytest.mark.parametrize("allow_repeats", [False, True])
def test_observations_carry_the_recommended_items_unless_they_may_come_again(allow_repeats):
    data = make_data({(0, item): 3 for item in range(4)})
    config = make_config(episode_length=3, allow_repeats=allow_repeats)
    env, actions = make_rating_env(config, data), jnp.asarray([[2], [1], [3]])
    params = make_env_params(config, data, np.array([0]), RELEVANT_ABOVE)
    before = env.recommended_before(actions)
    assert before.shape == (3, 1, 0 if allow_repeats else 3)
    observation, state = env.reset_at(jnp.int32(0), params)
    for t, action in enumerate(actions[:, 0]):
        np.testing.assert_array_equal(observation.recommended, before[t, 0])
        observation, state, *_ = env.step(jax.random.key(0), state, action, params)
        assert observation.last_item == action
    np.testing.assert_array_equal(env.recommended_before(actions, jnp.asarray([1])), before[1:2])


def test_reset_draws_only_from_the_given_users():
    data = make_data({(user, item): 1 + (user + item) % 5 for user in range(9) for item in range(6)})
    config = make_config()
    params = make_env_params(config, data, np.array([2, 5, 7]), RELEVANT_ABOVE)
    env = make_rating_env(config, data)
    keys = jax.random.split(jax.random.key(0), 3_000)
    observation, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    users, counts = np.unique(np.asarray(state.user), return_counts=True)
    np.testing.assert_array_equal(users, [2, 5, 7])
    assert (np.abs(counts - 1_000) < 130).all()  # 5 standard deviations
    assert (np.asarray(state.counts) == 0).all()
    assert (np.asarray(observation.status) == 0).all()


@pytest.mark.parametrize(
    ("scale", "low", "high", "values", "expected"),
    [
        ("half_open", 0.5, 5, [0.5, 2.5, 3, 5], [-0.8, 0, 0.2, 1]),
        ("half_open", 1, 5, [1, 2, 3, 4, 5], [-0.6, -0.2, 0.2, 0.6, 1]),
        ("half_open", 0, 10, [0, 5, 10], [-1, 0, 1]),
        ("half_open", 0.5, 5, [1, 4], [-0.6, 0.6]),  # the ends of the scale need not occur
        ("half_open", 1, 1, [1], [1]),
        ("symmetric", 0.5, 5, [0.5, 5], [-1, 1]),
        ("symmetric", 1, 5, [1, 2, 3, 4, 5], [-1, -0.5, 0, 0.5, 1]),
        ("symmetric", -10, 10, [-10, -1, 0, 10], [-1, -0.1, 0, 1]),
    ],
)
def test_empirical_rewards(scale, low, high, values, expected):
    data = make_data({(0, item): value for item, value in enumerate(values)}, low, high)
    np.testing.assert_allclose(empirical_rewards(data, scale), [0, *expected], atol=1e-12)


@pytest.mark.parametrize(
    ("scale", "low", "high", "value"),
    [("half_open", -10, 10, 5), ("half_open", -0.5, 5, 5), ("half_open", 0, 0, 0), ("symmetric", 3, 3, 3)],
)
def test_scales_that_cannot_be_mapped(scale, low, high, value):
    data = make_data({(0, 0): value}, low, high)
    with pytest.raises(UserError, match=f"env.reward_scale={scale}"):
        empirical_rewards(data, scale)


@pytest.mark.parametrize(
    ("ratings", "problem", "advice"),
    [
        (
            [-10, -5, 0, 5, 10, 99],
            "the rating 99 (16.7% of",
            "data.missing_ratings=[99]. The others are from -10 to 10",
        ),
        (
            [-3, 1, 2, 3, 4, 5],
            "the rating -3 (16.7% of",
            "data.missing_ratings=[-3]. Use env.reward_scale=symmetric if",
        ),
        ([-2, -1, 0, 1, 2], "needs ratings >= 0", "Use env.reward_scale=symmetric."),
        ([-2, -1, 0, 1, 2, 3, 4, 5], "needs ratings >= 0", "If the scale is right, use env.reward_scale=symmetric"),
    ],
)
def test_what_stands_apart_is_named_before_any_advice_on_scales(ratings, problem, advice):
    data = make_data({(0, item): value for item, value in enumerate(ratings)}, min(ratings), max(ratings))
    with pytest.raises(UserError) as caught:
        empirical_rewards(data, "half_open")
    assert caught.value.what.startswith((problem, "env.reward_scale=half_open"))
    assert problem in caught.value.what
    assert advice in caught.value.do
    # No advice leaves out what does not stand apart.
    assert ("data.missing_ratings" in caught.value.do) == ("the rating" in problem)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("alpha", float("inf")),
        ("episode_length", 0),
        ("episode_length", -32),
        ("reward_scale", "linear"),
        ("cold_start", "greedy"),
        ("counts_by", "reward"),
        ("rating_layout", "sparse"),
    ],
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(UserError, match=f"env.{key}"):
        make_config(**{key: value})


def test_a_catalogue_smaller_than_the_episode_needs_repeats():
    data = make_data({(0, item): 1 + item for item in range(5)})
    with pytest.raises(UserError, match="5 items"):
        make_rating_env(make_config(episode_length=6), data)
    assert make_rating_env(make_config(episode_length=5), data) == RatingEnv(5, 5, "policy", False)
    assert make_rating_env(make_config(episode_length=6, allow_repeats=True), data).allow_repeats


def test_hits_are_ratings_above_the_threshold():
    data = make_data({(0, item): rating for item, rating in enumerate([1, 2, 3, 3.5, 4, 5])})
    params = make_env_params(make_config(), data, np.array([0]), 3.5)
    np.testing.assert_array_equal(np.asarray(params.relevant_code), [False] * 5 + [True, True])


def test_an_episode_of_one_step():
    data = make_data({(0, 0): 4, (0, 1): 5})
    observation, _, reward, _, truncated, _ = play_one(data, make_config(episode_length=1), [0])
    np.testing.assert_allclose(reward, [0.6], rtol=1e-6)
    np.testing.assert_array_equal(observation.status, [[0, 1, 0, 1, 0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(truncated, [True])


def test_the_middle_of_a_scale_is_exactly_neutral():
    for low, middle, high in ((0.1, 0.4, 0.7), (0.2, 0.5, 0.8)):
        data = hand_made_ratings(np.arange(3), np.arange(3), np.array([low, middle, high]), low, high)
        assert empirical_rewards(data, "symmetric")[2] == 0

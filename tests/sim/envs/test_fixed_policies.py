"""Random and fixed-list policies, and item rankings against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_ratings
from harness.errors import UserError
from sim.envs.fixed_policies import fixed_list_policy, random_policy, rank_items, scripted_policy
from sim.envs.policy import recommend_best
from sim.envs.rating_env import Observation, empirical_rewards

RANDOM_15, RANDOM_7, RANDOM_3, FIXED_LIST = random_policy(15), random_policy(7), random_policy(3), fixed_list_policy()


def observe(recommended, length, allow_repeats=False):
    """A batch of observations in which each row of items has been recommended."""
    recommended = np.asarray(recommended, np.int32)
    batch, step = recommended.shape
    padded = np.full((batch, length), -1, np.int32)
    padded[:, :step] = recommended
    return Observation(
        step=jnp.full(batch, step, jnp.int32),
        recommended=jnp.asarray(padded[:, :0] if allow_repeats else padded),
        last_item=jnp.asarray(padded[:, step - 1]),  # -1 before the first step
        last_reward=jnp.zeros(batch),
        last_empirical=jnp.zeros(batch),
        status=jnp.zeros((batch, 9)),
    )


def play(policy, params, length, batch, explore, seed=0, allow_repeats=False):
    """All items of a batch of episodes, [B, T], and their log-probabilities."""
    act = jax.jit(policy.act, static_argnums=4)
    carry = policy.initial_carry(params, batch)
    items, log_probs = np.zeros((batch, 0), np.int32), []
    for t in range(length):
        observation = observe(items, length, allow_repeats)
        carry, decision = act(params, carry, observation, jax.random.fold_in(jax.random.key(seed), t), explore)
        items = np.concatenate([items, np.asarray(decision.action)[:, None]], axis=1)
        log_probs.append(np.asarray(decision.log_prob))
    return items, np.stack(log_probs, axis=1)


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("length", [7, 4])
def test_random_episodes_never_repeat_an_item(explore, length):
    items, log_probs = play(RANDOM_7, None, length, 500, explore)
    assert items.dtype == np.int32
    assert items.min() == 0
    assert items.max() == 6
    assert all(len(set(row)) == length for row in items.tolist())
    np.testing.assert_allclose(log_probs, np.tile(-np.log(7.0 - np.arange(length)), (500, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    "past",
    [[], [0], [14], [0, 1, 2], [14, 13, 12], [3, 0, 9, 4, 14], [5, 6, 4, 7, 8, 3], list(range(14)), list(range(1, 15))],
)
def test_random_choices_are_uniform_over_what_is_left(past):
    draws = 15_000
    observation = observe(np.tile(np.array(past, np.int32), (draws, 1)), 15)
    _, decision = RANDOM_15.act(None, (), observation, jax.random.key(len(past)), True)
    counts = np.bincount(np.asarray(decision.action), minlength=15)
    left = np.setdiff1d(np.arange(15), past)
    assert counts[past].sum() == 0
    expected = draws / len(left)
    assert ((counts[left] - expected) ** 2 / expected).sum() < len(left) + 5 * np.sqrt(2 * len(left)) + 5
    np.testing.assert_allclose(decision.log_prob, -np.log(len(left)), rtol=1e-6, atol=1e-7)


def test_a_fixed_list_is_played_in_order():
    ranking = jnp.array([5, 2, 9, 0, 7])
    items, log_probs = play(FIXED_LIST, ranking, 5, 3, explore=True)
    np.testing.assert_array_equal(items, np.tile(ranking, (3, 1)))
    np.testing.assert_array_equal(log_probs, np.zeros((3, 5)))


def test_a_fixed_list_skips_what_was_recommended():
    ranking = jnp.array([5, 2, 9, 0, 7])
    past = np.array([[5, 2, 9], [0, 5, 1], [3, 4, 8], [2, 9, 5], [1, 2, 7]])
    seen = FIXED_LIST.initial_carry(ranking, len(past))
    for t in range(4):
        seen, decision = FIXED_LIST.act(ranking, seen, observe(past[:, :t], 6), jax.random.key(0), False)
    np.testing.assert_array_equal(decision.action, [0, 2, 5, 0, 5])


def test_a_script_is_played_per_episode_even_with_repeats():
    script = jnp.array([[3, 3, 1], [0, 2, 0]])
    items, _ = play(scripted_policy(), script, 3, 2, explore=False)
    np.testing.assert_array_equal(items, script)


def make_data(table, low=1, high=5):
    """Rating data of a [U, I] array, 0 = not rated; every item must have a rating."""
    users, items = np.nonzero(table)
    data = hand_made_ratings(users, items, table[users, items], low, high)
    assert data.shape == table.shape
    return data


def brute_force(table, users, by):
    """Ranks by exact integers: best first, ties to the more rated item, then to the lower index."""

    def key(item):
        ratings = [int(table[user, item]) for user in users if table[user, item]]
        if by == "count":
            score = len(ratings)
        elif by == "average":
            score = sum(ratings) * 10**9 // len(ratings) if ratings else -1
        else:
            score = sum(2 * rating - 4 for rating in ratings)  # reward rating / 2 - 1 on the scale up to 4
        return -score, -len(ratings), item

    return sorted(range(table.shape[1]), key=key)


@pytest.mark.parametrize("by", ["average", "count", "reward"])
@pytest.mark.parametrize("seed", range(4))
def test_rankings_against_brute_force_with_ties(by, seed):
    # Scale 1 to 4: all rewards and their sums are exact in binary, and 40 items on 9 users tie often.
    generator = np.random.default_rng(seed)
    table = np.where(generator.random((12, 40)) < 0.4, generator.integers(1, 5, (12, 40)), 0)
    table[11] = 4  # not a training user; rates what nobody else may have rated
    table[:, 39] = 0
    table[11, 39] = 4
    users = np.array([0, 1, 3, 4, 5, 7, 8, 9, 10])
    data = make_data(table, 1, 4)
    found = rank_items(data, users, by, empirical_rewards(data, "half_open"))
    assert found.dtype == np.int32
    assert found.tolist() == brute_force(table, users, by)


def test_rankings_by_hand():
    # Item: ratings           average  count  summed reward (2 r / 5 - 1)
    #  0:   5                 5        1      1
    #  1:   4, 4, 4           4        3      1.8
    #  2:   1, 1, 1, 1        1        4      -2.4
    #  3:   none by users 0-3 (last)   0      0
    table = np.array([[5, 4, 1, 0], [0, 4, 1, 0], [0, 4, 1, 0], [0, 0, 1, 0], [5, 5, 5, 5]])
    data = make_data(table)
    rewards = empirical_rewards(data, "half_open")
    users = np.arange(4)
    assert rank_items(data, users, "average", rewards).tolist() == [0, 1, 2, 3]
    assert rank_items(data, users, "count", rewards).tolist() == [2, 1, 0, 3]
    assert rank_items(data, users, "reward", rewards).tolist() == [1, 0, 3, 2]


def test_an_unknown_ranking():
    data = make_data(np.array([[1, 2, 3]]))
    with pytest.raises(UserError, match="popularity"):
        rank_items(data, np.array([0]), "median", empirical_rewards(data, "half_open"))


def test_ranking_ties_that_rounding_would_break():
    # Item 0: one rating 3 (r = 0.2). Item 1: ratings 5 and 0.5 (1 - 0.8 = 0.2): a tie, the more rated item first.
    data = hand_made_ratings(np.array([2, 0, 1]), np.array([0, 1, 1]), np.array([3, 5, 0.5]), 0.5, 5)
    assert rank_items(data, np.arange(3), "reward", empirical_rewards(data, "half_open")).tolist() == [1, 0]


def test_random_policy_may_repeat_where_repeats_are_allowed():
    items, log_probs = play(RANDOM_3, None, 8, 200, True, allow_repeats=True)
    assert np.bincount(items.ravel(), minlength=3).min() > 400
    np.testing.assert_allclose(log_probs, -np.log(3), rtol=1e-6)


@pytest.mark.parametrize(("allow_repeats", "expected"), [(False, [2, 3, 0]), (True, [1, 3, 0])])
def test_the_best_item_is_one_not_recommended_yet_unless_repeats_are_allowed(allow_repeats, expected):
    score = jnp.array([[0.0, 9, 5, 4], [-8, -9, -9, -7], [3, 2, 3, 1]])  # the third row ties: the lower index
    recommended = jnp.array([[1, 3, -1], [0, 1, 2], [-1, -1, -1]])
    decision = recommend_best(score, recommended[:, :0] if allow_repeats else recommended)
    np.testing.assert_array_equal(decision.action, expected)
    assert decision.action.dtype == jnp.int32
    np.testing.assert_array_equal(decision.log_prob, [0, 0, 0])

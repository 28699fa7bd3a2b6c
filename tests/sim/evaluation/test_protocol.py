"""The evaluation: returned items replayed against the rating matrix, order and batches of users."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_ratings
from sim.envs.fixed_policies import fixed_list_policy, random_policy
from sim.envs.policy import Decision, Policy
from sim.envs.rating_env import EnvConfig, RatingEnv, make_env_params
from sim.evaluation.protocol import evaluate_policy, make_episode_batch, num_relevant_items

NUM_USERS, NUM_ITEMS, LENGTH, ALPHA, RELEVANT_ABOVE = 23, 30, 8, 0.1, 3
METRICS = ("reward", "precision", "recall", "f1")


def make_table():
    """[U, I] ratings 1 to 5, 0 = not rated; user 4 likes nothing, user 5 everything, user 6 rates one item."""
    generator = np.random.default_rng(0)
    table = generator.integers(0, 6, (NUM_USERS, NUM_ITEMS))
    table[4] = generator.integers(1, 4, NUM_ITEMS)
    table[5] = 5
    table[6] = 0
    table[6, -1] = 4
    return table


TABLE = make_table()


def make_data():
    users, items = np.nonzero(TABLE)
    return hand_made_ratings(users, items, TABLE[users, items], 1, 5)


def adaptive_policy():
    """Greedy and without repeats: which of two fresh items comes next depends on the last reward."""

    def act(params, carry, observation, key, explore):
        liked = observation.last_reward > 0
        return carry, Decision(2 * observation.step + liked, jnp.zeros(liked.shape))

    return Policy(lambda params, batch_size: (), act)


def replay(user, items):
    """Rewards by Eq. 6 and hits of one episode (half-open scale, maximum 5)."""
    rewards, hits, positive, negative = [], [], 0, 0
    assert len(set(items)) == len(items)
    for item in items:
        rating = TABLE[user, item]
        r = 2 * rating / 5 - 1 if rating else 0
        rewards.append(r + ALPHA * (positive - negative))
        positive, negative = (positive + 1 if r > 0 else 0), (negative + 1 if r < 0 else 0)
        hits.append(rating > RELEVANT_ABOVE)
    return rewards, hits


POLICIES = {"adaptive": adaptive_policy(), "list": fixed_list_policy(), "random": random_policy(NUM_ITEMS)}


@functools.cache
def make_batch(policy, cold_start):
    return make_episode_batch(RatingEnv(NUM_ITEMS, LENGTH, cold_start), POLICIES[policy], explore=False)


def evaluate(policy, policy_params, users, users_per_batch, seed=0, cold_start="policy"):
    data = make_data()
    config = EnvConfig(ALPHA, LENGTH, "half_open", cold_start, False, "csr", 0.0)
    params = make_env_params(config, data, np.array([0]), RELEVANT_ABOVE)  # evaluation does not draw users
    relevant = num_relevant_items(data, RELEVANT_ABOVE)
    return evaluate_policy(
        make_batch(policy, cold_start), params, policy_params, users, relevant, jax.random.key(seed), users_per_batch
    )


def check_replay(result, users):
    assert result.items.shape == (len(users), LENGTH)
    for row, user in enumerate(users):
        rewards, hits = replay(user, list(result.items[row]))
        num_relevant = (TABLE[user] > RELEVANT_ABOVE).sum()
        precision = sum(hits) / LENGTH
        recall = sum(hits) / num_relevant if num_relevant else 0
        f1 = 2 * precision * recall / (precision + recall) if sum(hits) else 0
        assert result.metrics.reward[row] == pytest.approx(np.mean(rewards), abs=1e-6)
        assert result.metrics.precision[row] == pytest.approx(precision)
        assert result.metrics.recall[row] == pytest.approx(recall)
        assert result.metrics.f1[row] == pytest.approx(f1)


@pytest.mark.parametrize("cold_start", ["policy", "random"])
def test_each_users_metrics_are_a_replay_of_that_users_items(cold_start):
    users = np.random.default_rng(1).permutation(NUM_USERS)[:17]  # not in ascending order
    ranking = jnp.asarray(np.random.default_rng(2).permutation(NUM_ITEMS))
    check_replay(evaluate("list", ranking, users, 6, cold_start=cold_start), users)
    check_replay(evaluate("random", None, users, 6), users)


def test_rows_follow_the_order_of_the_users():
    users = np.array([9, 0, 22, 5, 6, 4, 13])
    forward = evaluate("adaptive", None, users, 6)
    backward = evaluate("adaptive", None, users[::-1], 6)
    check_replay(forward, users)
    assert len(np.unique(forward.items, axis=0)) > 1  # the policy does tell users apart
    np.testing.assert_array_equal(forward.items, backward.items[::-1])
    for name in METRICS:
        np.testing.assert_array_equal(getattr(forward.metrics, name), getattr(backward.metrics, name)[::-1])


@pytest.mark.parametrize("users_per_batch", [1, 6, 22, 1_000])
def test_the_batch_size_does_not_change_greedy_results(users_per_batch):
    users = np.arange(NUM_USERS)
    whole = evaluate("adaptive", None, users, NUM_USERS)
    check_replay(whole, users)
    parts = evaluate("adaptive", None, users, users_per_batch)
    np.testing.assert_array_equal(parts.items, whole.items)
    for name in METRICS:
        np.testing.assert_array_equal(getattr(parts.metrics, name), getattr(whole.metrics, name))


def recording_batch(calls):
    def batch(env_params, policy_params, users, key):
        calls.append((np.asarray(users), key))
        columns = jnp.broadcast_to(users, (LENGTH, len(users)))
        return columns, columns.astype(jnp.float32), columns % 2 == 0

    return batch


@pytest.mark.parametrize(("count", "size", "batches"), [(10, 4, 3), (9, 8, 2), (8, 4, 2), (3, 50, 1), (1, 1, 1)])
def test_every_batch_has_the_same_size_and_padding_leaves_no_trace(count, size, batches):
    calls, users = [], np.arange(100, 100 + count)
    result = evaluate_policy(recording_batch(calls), None, None, users, np.ones(200, int), jax.random.key(0), size)
    assert len(calls) == batches
    assert {len(batch) for batch, _ in calls} == {min(size, count)}
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in calls])[:count], users)
    np.testing.assert_array_equal(result.items, np.repeat(users[:, None], LENGTH, axis=1))
    np.testing.assert_allclose(result.metrics.reward, users)
    np.testing.assert_array_equal(result.metrics.precision, users % 2 == 0)


def test_batches_use_different_keys_and_the_key_repeats_the_evaluation():
    calls = []
    evaluate_policy(recording_batch(calls), None, None, np.arange(9), np.ones(9, int), jax.random.key(4), 3)
    assert len({tuple(jax.random.key_data(key).tolist()) for _, key in calls}) == 3
    users = np.arange(NUM_USERS)
    first, again, other = (evaluate("random", None, users, 6, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.items, again.items)
    assert (first.items != other.items).any()


@pytest.mark.parametrize("threshold", [-10, 0, 2.5, 3, 4, 5])
def test_relevant_items_against_brute_force(threshold):
    counts = num_relevant_items(make_data(), threshold)
    expected = [sum(rating > threshold and rating != 0 for rating in row) for row in TABLE]
    np.testing.assert_array_equal(counts, expected)

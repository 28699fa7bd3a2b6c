"""The rollout: scripted episodes, the first item of a cold start, and an environment whose value is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_made import hand_made_ratings
from sim.envs.fixed_policies import fixed_list_policy, scripted_policy
from sim.envs.policy import Decision, Policy, with_random_first_item
from sim.envs.rating_env import EnvConfig, RatingEnv, make_env_params
from sim.envs.rollout import rollout as eager_rollout

RELEVANT_ABOVE = 3
FIXED_LIST, SCRIPTED = fixed_list_policy(), scripted_policy()

rollout = jax.jit(eager_rollout, static_argnums=(0, 2), static_argnames="explore")


def make_world(table, alpha, length, cold_start="policy"):
    """Environment and tables for a [U, I] array of ratings (0 = not rated) on the scale 1 to 5."""
    users, items = np.nonzero(table)
    data = hand_made_ratings(users, items, table[users, items], 1, 5)
    assert data.shape == table.shape
    config = EnvConfig(alpha, length, "half_open", cold_start, False, "csr", 0.0)
    env = RatingEnv(data.num_items, length, cold_start)
    return env, make_env_params(config, data, np.arange(len(table)), RELEVANT_ABOVE)


def random_table(seed, num_users=8, num_items=15):
    generator = np.random.default_rng(seed)
    table = generator.integers(0, 6, (num_users, num_items))
    table[0] = 5
    table[:, 0] = 1
    return table


def replay(table, user, items, alpha):
    """Rewards, hits, repeats and the status before each step of one episode (half-open scale, maximum 5)."""
    rewards, hits, repeats, statuses = [], [], [], []
    signs = []

    def run(allowed):
        length = 0
        while length < len(signs) and signs[-1 - length] in allowed:
            length += 1
        return length

    for t, item in enumerate(items):
        totals = [signs.count(-1), signs.count(1), signs.count(0), t]
        runs = [run({-1}), run({1}), run({0}), run({0, 1}), run({0, -1})]
        statuses.append(totals + runs)
        repeated = item in items[:t]
        rating = 0 if repeated else table[user, item]
        r = 2 * rating / 5 - 1 if rating else 0.0
        rewards.append(r + alpha * (run({1}) - run({-1})))
        signs.append(int(np.sign(r)))
        hits.append(rating > RELEVANT_ABOVE)
        repeats.append(repeated)
    return rewards, hits, repeats, np.array(statuses) / len(items)


def test_a_scripted_policy_gives_the_oracles_episodes():
    table, generator = random_table(0), np.random.default_rng(1)
    env, params = make_world(table, 0.2, 10)
    users = generator.integers(0, 8, 20)
    script = generator.integers(0, 15, (20, 10))
    played = rollout(env, params, SCRIPTED, jnp.asarray(script), jnp.asarray(users), jax.random.key(0), explore=False)
    np.testing.assert_array_equal(played.item, script.T)
    np.testing.assert_array_equal(played.log_prob, np.zeros((10, 20)))
    assert np.asarray(played.repeated).any()
    for b, user in enumerate(users):
        rewards, hits, repeats, statuses = replay(table, user, list(script[b]), 0.2)
        np.testing.assert_allclose(played.reward[:, b], rewards, atol=1e-5)
        np.testing.assert_array_equal(played.hit[:, b], hits)
        np.testing.assert_array_equal(played.repeated[:, b], repeats)
        np.testing.assert_allclose(played.status[:, b], statuses, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2])
def test_one_user_who_likes_everything_pays_one_plus_alpha_t(alpha):
    env, params = make_world(np.full((1, 40), 5), alpha, 32)
    script = jnp.arange(32)[None, :]
    played = rollout(env, params, SCRIPTED, script, jnp.zeros(1, jnp.int32), jax.random.key(0), explore=True)
    np.testing.assert_allclose(played.reward[:, 0], 1 + alpha * np.arange(32), rtol=1e-6)
    assert np.asarray(played.hit).all()
    assert not np.asarray(played.repeated).any()


def test_one_user_who_dislikes_everything_loses_alpha_t():
    env, params = make_world(np.ones((1, 40), int), 0.1, 32)
    script = jnp.arange(32)[None, :]
    played = rollout(env, params, SCRIPTED, script, jnp.zeros(1, jnp.int32), jax.random.key(0), explore=True)
    np.testing.assert_allclose(played.reward[:, 0], -0.6 - 0.1 * np.arange(32), rtol=1e-5)
    assert not np.asarray(played.hit).any()


def test_the_policy_decides_the_first_item_by_default():
    env, params = make_world(random_table(2), 0.1, 6)
    ranking = jnp.array([7, 3, 11, 0, 1, 2, 4, 5])
    played = rollout(env, params, FIXED_LIST, ranking, jnp.zeros(50, jnp.int32), jax.random.key(3), explore=True)
    np.testing.assert_array_equal(played.item, np.repeat(ranking[:6, None], 50, axis=1))


@pytest.mark.parametrize("explore", [False, True])
def test_a_random_cold_start_draws_the_first_item_uniformly_and_leaves_the_rest_to_the_policy(explore):
    num_episodes, num_items = 6_000, 15
    env, params = make_world(random_table(4), 0.1, 5, "random")
    ranking = np.array([7, 3, 11, 0, 1, 2])
    played = rollout(
        env,
        params,
        FIXED_LIST,
        jnp.asarray(ranking),
        jnp.zeros(num_episodes, jnp.int32),
        jax.random.key(5),
        explore=explore,
    )
    items = np.asarray(played.item)
    expected = num_episodes / num_items
    counts = np.bincount(items[0], minlength=num_items)
    assert len(counts) == num_items
    assert ((counts - expected) ** 2 / expected).sum() < 45  # 14 degrees of freedom: p = 4e-5
    np.testing.assert_allclose(played.log_prob[0], -np.log(num_items), rtol=1e-6)
    np.testing.assert_array_equal(played.log_prob[1:], 0)
    for b in range(0, num_episodes, 97):
        rest = [item for item in ranking if item != items[0, b]][:4]
        np.testing.assert_array_equal(items[1:, b], rest)


def test_the_random_first_item_counts_in_reward_and_hits():
    table = random_table(6)
    env, params = make_world(table, 0.2, 6, "random")
    users = np.arange(40) % 8
    script = jnp.asarray(np.random.default_rng(7).integers(0, 15, (40, 6)))
    played = rollout(env, params, SCRIPTED, script, jnp.asarray(users), jax.random.key(8), explore=False)
    items = np.asarray(played.item)
    assert (items[0] != np.asarray(script)[:, 0]).any()
    np.testing.assert_array_equal(items[1:], np.asarray(script).T[1:])
    for b, user in enumerate(users):
        rewards, hits, _, _ = replay(table, user, list(items[:, b]), 0.2)
        np.testing.assert_allclose(played.reward[:, b], rewards, atol=1e-5)
        np.testing.assert_array_equal(played.hit[:, b], hits)


def test_the_policys_memory_and_key_move_on_with_every_step():
    def act(params, carry, observation, key, explore):
        item = (carry + params) % 15
        noise = jax.random.uniform(key, item.shape)
        return carry + 1, Decision(item, noise)

    policy = Policy(lambda params, batch_size: jnp.zeros(batch_size, jnp.int32), act)
    env, params = make_world(random_table(9), 0.1, 8)
    played = rollout(env, params, policy, jnp.int32(4), jnp.zeros(3, jnp.int32), jax.random.key(0), explore=True)
    np.testing.assert_array_equal(played.item[:, 0], 4 + np.arange(8))
    assert len(np.unique(np.asarray(played.log_prob))) == 24  # a fresh draw in every step and episode
    wrapped = with_random_first_item(policy, 15)
    again = rollout(env, params, wrapped, jnp.int32(4), jnp.zeros(3, jnp.int32), jax.random.key(0), explore=True)
    np.testing.assert_array_equal(again.item[1:, 0], 5 + np.arange(7))  # the first step is remembered all the same


def test_the_same_key_gives_the_same_episodes_and_another_key_others():
    env, params = make_world(random_table(10), 0.1, 5, "random")

    def first_items(seed):
        users = jnp.zeros(30, jnp.int32)
        return np.asarray(
            rollout(env, params, FIXED_LIST, jnp.arange(15), users, jax.random.key(seed), explore=True).item[0]
        )

    np.testing.assert_array_equal(first_items(1), first_items(1))
    assert (first_items(1) != first_items(2)).any()

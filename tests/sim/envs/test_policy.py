"""Rankings of items, against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sim.envs.fixed_policies import fixed_list_policy, random_policy
from sim.envs.policy import Decision, Policy, rank_best, recommend, scoring_policy
from sim.envs.rating_env import Observation

ITEMS = 7


def observe(recommended) -> Observation:
    """A batch of observations after the given items ([B, T])."""
    recommended = jnp.asarray(recommended, jnp.int32)
    batch, step = recommended.shape
    return Observation(
        step=jnp.full(batch, step, jnp.int32),
        recommended=recommended,
        last_item=recommended[:, -1] if step else jnp.full(batch, -1),
        last_reward=jnp.zeros(batch),
        last_empirical=jnp.zeros(batch),
        status=jnp.zeros((batch, 9)),
    )


def sorted_items(score, allowed, k):
    """The best k allowed items by score (ties: the lower index first) and their scores, padded."""
    order = [item for item in sorted(range(len(score)), key=lambda item: (-score[item], item)) if item in allowed][:k]
    spare = k - len(order)
    return order + [-1] * spare, [score[item] for item in order] + [-np.inf] * spare


@pytest.mark.parametrize("k", [1, 3, ITEMS, ITEMS + 2])
def test_the_best_items_come_in_order_and_none_that_is_not_allowed(k):
    generator = np.random.default_rng(k)
    for _ in range(20):
        score = generator.integers(0, 4, ITEMS).astype(np.float32)  # with ties
        available = generator.random(ITEMS) < 0.5
        recommended = generator.permutation(ITEMS)[:3]
        found = rank_best(jnp.asarray(score), jnp.asarray([*recommended, -1, -1]), k, jnp.asarray(available))
        items, scores = sorted_items(score, set(np.flatnonzero(available)) - set(recommended.tolist()), k)
        np.testing.assert_array_equal(found.items, items)
        np.testing.assert_array_equal(found.scores, scores)
        assert found.items.dtype == jnp.int32


def _fixed_scores(params, carry, observation):
    return carry + 1, params


SCORING = scoring_policy(lambda params, batch: jnp.zeros(batch), _fixed_scores)


def test_a_policy_of_scores_ranks_first_what_it_decides_for():
    scores = jnp.asarray(np.random.default_rng(0).standard_normal((4, ITEMS)), jnp.float32)
    observation = observe([[5, 1], [0, 2], [3, 4], [6, 0]])
    carry, decision = SCORING.act(scores, SCORING.initial_carry(scores, 4), observation, jax.random.key(0), True)
    ranking = recommend(SCORING, scores, jnp.zeros(4), observation, jax.random.key(0), ITEMS, jnp.ones(ITEMS, bool))
    np.testing.assert_array_equal(ranking.items[:, 0], decision.action)
    np.testing.assert_array_equal(carry, np.ones(4))
    for row in range(4):
        allowed = set(range(ITEMS)) - set(observation.recommended[row].tolist())
        assert ranking.items[row].tolist() == sorted_items(np.asarray(scores[row]), allowed, ITEMS)[0]


def test_equal_scores_give_the_same_policy():
    assert scoring_policy(SCORING.initial_carry, _fixed_scores) is SCORING


@pytest.mark.parametrize("each", [False, True])
def test_a_fixed_list_ranks_by_place_over_all_items(each):
    policy, ranking = fixed_list_policy(3), jnp.asarray([4, 2, 6, 0, 1])  # items 3 and 5 are not in it
    generator = np.random.default_rng(1)
    for _ in range(10):
        mask = generator.random((2, ITEMS) if each else ITEMS) < 0.6
        seen = policy.initial_carry(ranking, 2)
        found = policy.rank(ranking, seen, observe([[4], [5]]), 4, jnp.asarray(mask))
        for row, last in enumerate((4, 5)):
            allowed = set(np.flatnonzero(np.broadcast_to(mask, (2, ITEMS))[row])) - {last}
            expected = [item for item in (4, 2, 6, 0, 1) if item in allowed][:4]
            assert found.items[row].tolist() == expected + [-1] * (4 - len(expected))
            assert np.all(np.diff(found.scores[row][: len(expected)]) < 0)


def test_a_fixed_list_ranks_first_what_it_decides_for_even_where_items_may_come_again():
    policy, ranking = fixed_list_policy(3), jnp.asarray([4, 2, 6, 0, 1])
    carry = policy.initial_carry(ranking, 1)
    for last in ([], [4], [2]):
        observation = observe([last]).replace(recommended=jnp.zeros((1, 0), jnp.int32))
        ranked = policy.rank(ranking, carry, observation, 2, jnp.ones(ITEMS, bool))
        carry, decision = policy.act(ranking, carry, observation, jax.random.key(0), False)
        assert ranked.items[0, 0] == decision.action[0]


@pytest.mark.parametrize("each", [False, True])
def test_a_policy_without_a_ranking_names_its_decision_if_it_is_allowed(each):
    decided = jnp.asarray([2, 5], jnp.int32)
    policy = Policy(
        lambda params, batch: (),
        lambda params, carry, observation, key, explore: (carry, Decision(decided + explore, jnp.asarray([-1.0, -2]))),
    )
    mask = np.ones(ITEMS, bool)
    mask[5] = False
    available = jnp.asarray(np.stack([mask, mask]) if each else mask)
    found = recommend(policy, None, (), observe([[0], [0]]), jax.random.key(0), 3, available)
    np.testing.assert_array_equal(found.items, [[2, -1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(found.scores, [[-1, -np.inf, -np.inf], [-np.inf] * 3])


def test_a_random_policy_recommends_one_new_item():
    observation = observe([[0, 1, 2, 3, 4, 5]] * 5)
    found = recommend(random_policy(ITEMS), None, (), observation, jax.random.key(0), 1, jnp.ones(ITEMS, bool))
    np.testing.assert_array_equal(found.items, [[6]] * 5)

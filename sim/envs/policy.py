"""The policy protocol of simulator, evaluation and learners."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sim.envs.available_items import hide_recommended
from sim.envs.fast_argmax import fast_argmax

EXPECTED_REWARD = "expected empirical reward of the answer (an item that the user does not rate: 0)"
UPPER_BOUND = f"upper confidence bound of the {EXPECTED_REWARD}"
"""What scores can be (`Policy.score`)."""


class Decision(NamedTuple):
    """One recommendation per episode: `action` [B] int32 items, `log_prob` [B] float32 (0 for fixed choices)."""

    action: jax.Array
    log_prob: jax.Array


class Ranking(NamedTuple):
    """The k best items of each episode, best first: `items` [B, k] int32, `scores` [B, k] float32.

    Where fewer than k items are available, the remaining items are -1 and their scores -inf.
    """

    items: jax.Array
    scores: jax.Array


class Path(NamedTuple):
    """How a policy on a tree reaches items: at each of D levels, from the root, the child that is taken.

    Attributes:
        score: [B, k, D] float32 what the child scores there among its siblings.
        child: [B, k, D] int32 which of the next level's nodes it is, of the last level which leaf; -1 once an item has
            been reached, and where there is none.
        items: [B, k, D] int32 items below the child that are allowed.
    """

    score: jax.Array
    child: jax.Array
    items: jax.Array


class Policy(NamedTuple):
    """A policy as pure functions on a batch of B episodes.

    Attributes:
        initial_carry: `(params, batch_size) -> carry`, the policy's memory before the first step.
        act: `(params, carry, observation, key, explore) -> (carry, Decision)`; `explore` is static: True samples,
            False decides greedily. The observation's arrays have a leading batch axis.
        rank: `(params, carry, observation, k, available) -> Ranking` of what `act` would recommend now, greedily; the
            first item is the one that `act` decides for. `k` is static; `available` [I] or [B, I] bool, any mask of
            items that a caller allows (items recommended in the episode are excluded as well). What a caller excludes
            from single episodes may follow in `observation.recommended` after the episode's own items: a few items per
            episode, where a mask would be an array of episodes x items. None if the policy can only give its one
            decision.
        path: `(params, carry, observation, items [B, k], available) -> Path` of the items of a ranking, with the
            arguments of `rank`; None without a tree.
        score: What the scores of `rank` are, and in which unit.
        path_score: What those of `path` are.
        on_host: `(environment params, starts [B], items [B, t], answers [B, t]) -> items [B]` of a policy that
            is Python code and is asked between compiled programs (`sim.envs.host_rollout`). It decides by what was
            recommended and answered, the rest is for messages; its `act` is never called. None for all others.
        probability: `(params, carry, observation, item [B]) -> [B]` the probability with which `act` recommends items
            now, with the carry that `act` gets; None: it is not known, or all is decided without chance.
    """

    initial_carry: Callable[[Any, int], Any]
    act: Callable[[Any, Any, Any, jax.Array, bool], tuple[Any, Decision]]
    rank: Callable[[Any, Any, Any, int, jax.Array], Ranking] | None = None
    path: Callable[[Any, Any, Any, jax.Array, jax.Array], Path] | None = None
    score: str = "log-probability (nats; 0 for a fixed choice)"
    path_score: str = ""
    on_host: Callable[[Any, np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    probability: Callable[[Any, Any, Any, jax.Array], jax.Array] | None = None


def recommend_best(score: jax.Array, recommended: jax.Array) -> Decision:
    """Recommends the item with the highest score; ties go to the lower index.

    Args:
        score: [B, I] score of each item.
        recommended: [B, T] int32 items recommended so far in the episode, padded with -1; they are excluded.
    """
    chex.assert_rank([score, recommended], 2)
    chex.assert_equal_shape_prefix([score, recommended], 1)
    score = jax.vmap(hide_recommended)(score, recommended)
    return Decision(fast_argmax(score), jnp.zeros(score.shape[:1]))


def rank_best(score: jax.Array, recommended: jax.Array, k: int, available: jax.Array) -> Ranking:
    """Returns the k items with the highest scores of one episode; ties go to the lower index.

    Args:
        score: [I] finite score of each item.
        recommended: [T] int32 items recommended so far in the episode, padded with -1; they are excluded.
        k: Number of items (static).
        available: [I] bool, items that may be recommended.

    Returns:
        A `Ranking` without a batch axis.
    """
    score = jnp.where(available, hide_recommended(score, recommended), -jnp.inf)
    best, items = jax.lax.top_k(score, min(k, score.shape[0]))
    items = jnp.where(best > -jnp.inf, items, -1).astype(jnp.int32)
    spare = (0, k - items.shape[0])  # k may exceed the number of items
    return Ranking(jnp.pad(items, spare, constant_values=-1), jnp.pad(best, spare, constant_values=-jnp.inf))


@functools.cache
def scoring_policy(
    initial_carry: Callable[[Any, int], Any],
    score: Callable[[Any, Any, Any], tuple[Any, jax.Array]],
    meaning: str = "score of the method, without a unit",
) -> Policy:
    """Returns the policy that takes the item with the highest score, whatever `explore` is.

    Equal arguments give the same policy object, so that compiled functions are reused.

    Args:
        initial_carry: See `Policy`.
        score: `(params, carry, observation) -> (carry, [B, I] scores)`.
        meaning: Of the scores, with their unit.
    """

    def act(params: Any, carry: Any, observation: Any, key: jax.Array, explore: bool) -> tuple[Any, Decision]:
        carry, scores = score(params, carry, observation)
        return carry, recommend_best(scores, observation.recommended)

    def rank(params: Any, carry: Any, observation: Any, k: int, available: jax.Array) -> Ranking:
        _, scores = score(params, carry, observation)
        available = jnp.broadcast_to(available, scores.shape)
        return jax.vmap(rank_best, (0, 0, None, 0))(scores, observation.recommended, k, available)

    return Policy(initial_carry, act, rank, score=meaning)


def recommend(
    policy: Policy, params: Any, carry: Any, observation: Any, key: jax.Array, k: int, available: jax.Array
) -> Ranking:
    """Returns the k best items of any policy, as `Policy.rank` does.

    A policy without `rank` gives only its greedy decision, with the log-probability as score. The other entries of the
    ranking, and this one if the caller does not allow the item, are empty (-1).

    Args:
        params: Parameters of the policy.
        carry: The policy's memory of B episodes.
        observation: Observations of B episodes.
        key: Random key, for stochastic policies.
        k: Number of items, at least 1 (static).
        available: [I] or [B, I] bool, items that may be recommended.
    """
    if policy.rank is not None:
        return policy.rank(params, carry, observation, k, available)
    _, (action, log_prob) = policy.act(params, carry, observation, key, False)
    available = jnp.broadcast_to(available, (action.shape[0], available.shape[-1]))
    allowed = jnp.take_along_axis(available, action[:, None], -1)
    items = jnp.where(allowed, action[:, None], -1)
    scores = jnp.where(allowed, log_prob[:, None], -jnp.inf)
    spare = ((0, 0), (0, k - 1))
    return Ranking(jnp.pad(items, spare, constant_values=-1), jnp.pad(scores, spare, constant_values=-jnp.inf))


def with_random_first_item(policy: Policy, num_items: int) -> Policy:
    """Wraps a policy so that the first item of every episode is drawn uniformly (`cold_start: random`).

    `rank` is unchanged, also at the first step.
    """

    def act(params: Any, carry: Any, observation: Any, key: jax.Array, explore: bool) -> tuple[Any, Decision]:
        first_key, key = jax.random.split(key)
        carry, decision = policy.act(params, carry, observation, key, explore)
        first = observation.step == 0
        drawn = jax.random.randint(first_key, decision.action.shape, 0, num_items, jnp.int32)
        log_prob = jnp.where(first, -jnp.log(jnp.float32(num_items)), decision.log_prob)
        return carry, Decision(jnp.where(first, drawn, decision.action), log_prob)

    return policy._replace(act=act)

"""The policy protocol of simulator, evaluation and learners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from sim.envs.available_items import hide_recommended


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


class Policy(NamedTuple):
    """A policy as pure functions on a batch of B episodes.

    Attributes:
        initial_carry: `(params, batch_size) -> carry`, the policy's memory before the first step.
        act: `(params, carry, observation, key, explore) -> (carry, Decision)`; `explore` is static: True samples,
            False decides greedily. The observation's arrays have a leading batch axis.
        rank: `(params, carry, observation, k, available) -> Ranking` of what `act` would recommend now, greedily; the
            first item is the one that `act` decides for. `k` is static; `available` [I] or [B, I] bool, any mask of
            items that a caller allows (what was recommended in the episode is excluded besides). None where a policy
            can only name its one decision.
    """

    initial_carry: Callable[[Any, int], Any]
    act: Callable[[Any, Any, Any, jax.Array, bool], tuple[Any, Decision]]
    rank: Callable[[Any, Any, Any, int, jax.Array], Ranking] | None = None


def recommend_best(score: jax.Array, recommended: jax.Array, allow_repeats: bool) -> Decision:
    """Recommends the item with the highest score; ties go to the lower index.

    Args:
        score: [B, I] score of each item.
        recommended: [B, T] int32 items recommended so far in the episode, padded with -1.
        allow_repeats: Whether these may be recommended again.
    """
    chex.assert_rank([score, recommended], 2)
    chex.assert_equal_shape_prefix([score, recommended], 1)
    if not allow_repeats:
        score = jax.vmap(hide_recommended)(score, recommended)
    return Decision(jnp.argmax(score, axis=-1).astype(jnp.int32), jnp.zeros(score.shape[:1]))


def with_random_first_item(policy: Policy, num_items: int) -> Policy:
    """Wraps a policy so that the first item of every episode is drawn uniformly (`cold_start: random`)."""

    def act(params: Any, carry: Any, observation: Any, key: jax.Array, explore: bool) -> tuple[Any, Decision]:
        first_key, key = jax.random.split(key)
        carry, decision = policy.act(params, carry, observation, key, explore)
        first = observation.step == 0
        drawn = jax.random.randint(first_key, decision.action.shape, 0, num_items, jnp.int32)
        log_prob = jnp.where(first, -jnp.log(jnp.float32(num_items)), decision.log_prob)
        return carry, Decision(jnp.where(first, drawn, decision.action), log_prob)

    return Policy(policy.initial_carry, act)

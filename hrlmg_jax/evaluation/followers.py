"""Policies that need no training: lists, and followers of what users clicked and were shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sim.datasets.sessions import SessionData
from sim.envs.available_items import draw_item, hide_recommended, uniform_chance
from sim.envs.fast_argmax import fast_argmax
from sim.envs.histories import NO_ITEM
from sim.envs.policy import Decision, Policy
from sim.envs.session_env import SessionObservation

RANDOM = "random"
_FOLLOWED = 4  # last click, mean of the clicks, mean of them when the session began, mean of what was shown


@flax.struct.dataclass
class FollowerParams:
    """A policy that scores items by a list and by what the user's histories hold.

    Attributes:
        prior: [I] score of each item.
        vectors: [I, F] items by which it follows.
        weights: [4] of the products with the last clicked item, the mean of those in the histories, the same when the
            session began, and the mean of what was shown.
        noise: Scalar scale of Gumbel noise on the scores; 0: none.
        random: Scalar share of uniformly drawn items.
    """

    prior: jax.Array
    vectors: jax.Array
    weights: jax.Array
    noise: jax.Array
    random: jax.Array


@cache
def follower_policy() -> Policy:
    """Returns the policy of `FollowerParams`; one for all, so that it is compiled once."""

    def initial_carry(params: FollowerParams, batch_size: int) -> jax.Array:
        return jnp.zeros((batch_size, params.vectors.shape[1]))

    def act(
        params: FollowerParams, carry: jax.Array, observation: SessionObservation, key: jax.Array, explore: bool
    ) -> tuple[jax.Array, Decision]:
        noise_key, whether_key, which_key = jax.random.split(key, 3)
        carry, scores = _followed(params, carry, observation)
        # The best, or any; nothing is drawn for nothing.
        scores = jax.lax.cond(
            params.noise > 0,
            lambda: scores + params.noise * jax.random.gumbel(noise_key, scores.shape),
            lambda: scores,
        )
        best = fast_argmax(scores)
        anything = jax.lax.cond(
            params.random > 0,
            lambda: draw_item(which_key, observation.step, observation.recommended, scores.shape[1]),
            lambda: best,
        )
        at_random = jax.random.bernoulli(whether_key, params.random, best.shape)
        return carry, Decision(jnp.where(at_random, anything, best), jnp.zeros(best.shape))

    def probability(
        params: FollowerParams, carry: jax.Array, observation: SessionObservation, item: jax.Array
    ) -> jax.Array:
        # Gumbel noise makes a softmax; without noise it is the best item's place.
        _, scores = _followed(params, carry, observation)
        chances = jax.nn.softmax(scores / jnp.where(params.noise > 0, params.noise, 1.0), -1)
        chances = jnp.where(params.noise > 0, chances, jax.nn.one_hot(jnp.argmax(scores, -1), scores.shape[1]))
        known = item < scores.shape[1]
        own = jnp.where(known, jnp.take_along_axis(chances, jnp.where(known, item, 0)[:, None], 1)[:, 0], 0.0)
        uniform = uniform_chance(item, observation.recommended, scores.shape[1])
        return (1 - params.random) * own + params.random * uniform

    return Policy(initial_carry, act, probability=probability)


def _followed(params: FollowerParams, carry: jax.Array, observation: SessionObservation) -> tuple[jax.Array, jax.Array]:
    """Returns the carry, what was clicked when the session began [B, F], and [B, I] scores, -inf for what was shown."""
    clicked, browsed = observation.histories.clicked, observation.histories.browsed
    last, mean = _known(params.vectors, clicked[:, -1:]), _known(params.vectors, clicked)
    carry = jnp.where((observation.step == 0)[:, None], mean, carry)
    followed = jnp.stack([last, mean, carry, _known(params.vectors, browsed)], 1)
    scores = params.prior + jnp.einsum("w,bwf->bf", params.weights, followed) @ params.vectors.T
    return carry, jax.vmap(hide_recommended)(scores, observation.recommended)


def _known(vectors: jax.Array, items: jax.Array) -> jax.Array:
    """Returns [B, F] the mean vectors of items [B, N], of which -1 is none."""
    known = (items != NO_ITEM).astype(jnp.float32)
    return jnp.einsum("bn,bnf->bf", known, vectors[items]) / jnp.maximum(known.sum(1, keepdims=True), 1)


def fixed_followers(
    data: SessionData, rankings: Mapping[str, np.ndarray], embedding: np.ndarray | jax.Array
) -> dict[str, FollowerParams]:
    """Returns lists and followers of clicks by name.

    Args:
        data: The log.
        rankings: [I] fixed lists by name.
        embedding: [J, E] item vectors.
    """
    # Lists, as scores in standard deviations.
    counts, items = data.training_counts(), data.num_items
    shown = counts["shown"]

    def rate(of: str) -> np.ndarray:
        happened = counts[of]
        return (happened + 100 * happened.sum() / shown.sum()) / (shown + 100)

    scores = {name: -np.argsort(ranking).astype(float) for name, ranking in rankings.items()}
    scores |= {"click_rate": rate("clicked"), "order_rate": rate("ordered")}
    scores = {name: (score - score.mean()) / (score.std() or 1) for name, score in scores.items()}
    nothing = FollowerParams(
        prior=jnp.zeros(items),
        vectors=jnp.asarray(embedding[:items]),
        weights=jnp.zeros(_FOLLOWED),
        noise=jnp.float32(0),
        random=jnp.float32(0),
    )

    # What a follower of clicks adds to a list, and the policies by name.
    def listed(name: str) -> FollowerParams:
        return dataclasses.replace(nothing, prior=jnp.asarray(scores[name], jnp.float32))

    def following(*weights: float) -> FollowerParams:
        return dataclasses.replace(listed("best_rate"), weights=jnp.asarray(weights))

    log_shown = jnp.asarray(np.log(shown + 0.5), jnp.float32)
    return {
        RANDOM: dataclasses.replace(nothing, random=jnp.float32(1)),
        "as_logged": dataclasses.replace(nothing, prior=log_shown, noise=jnp.float32(1)),
        **{name: listed(name) for name in scores},
        "last_click": following(30.0, 0.0, 0.0, 0.0),
        "last_clicks": following(0.0, 30.0, 0.0, 0.0),
        "rate_and_clicks": following(0.0, 3.0, 0.0, 0.0),
        "clicks_before": following(0.0, 0.0, 30.0, 0.0),
        "unlike_shown": following(0.0, 5.0, 0.0, -5.0),
    }

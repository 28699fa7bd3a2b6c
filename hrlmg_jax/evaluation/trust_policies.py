"""The policies of the trust bench: lists, followers of clicks, mixtures, one that exploits the simulator, agents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.problem import Problem
from sim.envs.available_items import draw_item, hide_recommended, uniform_chance
from sim.envs.fast_argmax import fast_argmax
from sim.envs.histories import NO_ITEM
from sim.envs.policy import Decision, Policy
from sim.envs.session_env import SessionObservation

_CLUSTERS = 25
_FOLLOWED = 4  # last click, mean of the clicks, mean of them when the session began, mean of what was shown
_FIRST_GUESS = (0.0, 3.0, 0.0, 0.0, 1.0)


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
        # The best, or any.
        scores += params.noise * jax.random.gumbel(noise_key, scores.shape)
        best = fast_argmax(scores)
        anything = draw_item(which_key, observation.step, observation.recommended, scores.shape[1])
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


@cache
def mixed_policy(policy: Policy, num_items: int) -> Policy:
    """Returns a policy that takes half of its items uniformly; `policy` decides without chance."""

    def act(params: Any, carry: Any, observation: Any, key: jax.Array, explore: bool) -> tuple[Any, Decision]:
        own_key, whether_key, which_key = jax.random.split(key, 3)
        carry, decision = policy.act(params, carry, observation, own_key, False)
        anything = draw_item(which_key, observation.step, observation.recommended, num_items)
        half = jax.random.bernoulli(whether_key, 0.5, anything.shape)
        return carry, Decision(jnp.where(half, anything, decision.action), decision.log_prob)

    def probability(params: Any, carry: Any, observation: Any, item: jax.Array) -> jax.Array:
        _, decision = policy.act(params, carry, observation, jax.random.key(0), False)
        return 0.5 * (decision.action == item) + 0.5 * uniform_chance(item, observation.recommended, num_items)

    return policy._replace(act=act, probability=probability)


def tested(params: FollowerParams) -> EvaluationPolicy:
    """Returns a follower as the tests take it."""
    policy = follower_policy()
    return EvaluationPolicy(lambda _: policy, lambda _: params, True, None)


def mixed(policy: EvaluationPolicy, num_items: int) -> EvaluationPolicy:
    """Returns a policy with half of its items drawn uniformly."""
    return EvaluationPolicy(lambda users: mixed_policy(policy.policy(users), num_items), policy.params, True, None)


def fixed_policies(problem: Problem) -> dict[str, FollowerParams]:
    """Returns the policies that need no training, by name."""
    # Lists, as scores in standard deviations.
    counts, items = problem.data.training_counts(), problem.data.num_items
    shown = counts["shown"]

    def rate(of: str) -> np.ndarray:
        happened = counts[of]
        return (happened + 100 * happened.sum() / shown.sum()) / (shown + 100)

    scores = {name: -np.argsort(ranking).astype(float) for name, ranking in problem.rankings.items()}
    scores |= {"click_rate": rate("clicked"), "order_rate": rate("ordered")}
    scores = {name: (score - score.mean()) / score.std() for name, score in scores.items()}
    nothing = FollowerParams(
        prior=jnp.zeros(items),
        vectors=jnp.asarray(problem.simulator.params.embedding[:items]),
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
    found = {
        "random": dataclasses.replace(nothing, random=jnp.float32(1)),
        "as_logged": dataclasses.replace(nothing, prior=log_shown, noise=jnp.float32(1)),
        **{name: listed(name) for name in scores},
        "last_click": following(30.0, 0.0, 0.0, 0.0),
        "last_clicks": following(0.0, 30.0, 0.0, 0.0),
        "rate_and_clicks": following(0.0, 3.0, 0.0, 0.0),
        "clicks_before": following(0.0, 0.0, 30.0, 0.0),
        "unlike_shown": following(0.0, 5.0, 0.0, -5.0),
        "best_cluster": _best_cluster(listed("best_rate")),
    }
    halves = ("best_rate", "last_click", "last_clicks", "best_cluster")
    return found | {
        f"{name}, half random": dataclasses.replace(found[name], random=jnp.float32(0.5)) for name in halves
    }


def _best_cluster(listed: FollowerParams) -> FollowerParams:
    """Returns the policy that stays in the cluster of items which the user clicked most before the session."""
    from sklearn.cluster import KMeans  # slow to import, needed by this computation only

    vectors = np.asarray(listed.vectors)
    clusters = min(_CLUSTERS, len(vectors))
    cluster = KMeans(clusters, n_init=1, random_state=0).fit_predict(vectors)
    return dataclasses.replace(
        listed, vectors=jnp.asarray(np.eye(clusters, dtype=np.float32)[cluster]), weights=jnp.asarray([0, 0, 50.0, 0])
    )


def exploiter(
    problem: Problem, value: Callable[[FollowerParams], float], generations: int, size: int
) -> FollowerParams:
    """Returns the follower that is worth most to the simulator's own judgement, with nothing held back.

    The cross-entropy method over the weights of the list, of what is followed, and nothing else.

    Args:
        value: What a policy earns in the simulator.
        generations: How often the best quarter is kept.
        size: Policies in a generation.
    """
    base = fixed_policies(problem)["best_rate"]

    def of(theta: np.ndarray) -> FollowerParams:
        return dataclasses.replace(base, prior=base.prior * theta[-1], weights=jnp.asarray(theta[:-1], jnp.float32))

    random = np.random.default_rng(0)
    mean, spread = np.asarray(_FIRST_GUESS), np.full(len(_FIRST_GUESS), 3.0)
    best, most = mean, -np.inf
    for _ in range(generations):
        tried = mean + spread * random.standard_normal((size, len(mean)))
        values = np.asarray([value(of(theta)) for theta in tried])
        elite = tried[np.argsort(-values)[: max(size // 4, 2)]]
        mean, spread = elite.mean(0), elite.std(0) + 0.1
        if values.max() > most:
            best, most = tried[values.argmax()], float(values.max())
    return of(best)

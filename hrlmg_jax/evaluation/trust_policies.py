"""The policies of the trust bench: lists, followers of clicks, mixtures, one that exploits the simulator, agents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.evaluation.followers import FollowerParams, fixed_followers, follower_policy
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.problem import Problem
from sim.envs.available_items import draw_item, uniform_chance
from sim.envs.policy import Decision, Policy

_CLUSTERS = 25
_FIRST_GUESS = (0.0, 3.0, 0.0, 0.0, 1.0)


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
    found = fixed_followers(problem.data, problem.rankings, problem.simulator.params.embedding)
    found["best_cluster"] = _best_cluster(found["best_rate"])
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
    base: FollowerParams, value: Callable[[FollowerParams], float], generations: int, size: int
) -> FollowerParams:
    """Returns the follower that is worth most to the simulator's own judgement, with nothing held back.

    The cross-entropy method over the weights of the list, of what is followed, and nothing else.

    Args:
        base: A list, of which the weight is searched for as well.
        value: What a policy earns in the simulator.
        generations: How often the best quarter is kept.
        size: Policies in a generation.
    """

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

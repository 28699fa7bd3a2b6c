"""What is tested: trained agents, fixed lists, random items, oracles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from hrlmg_jax.baselines.fixed_lists import BEST_RATE, POPULARITY
from hrlmg_jax.evaluation.followers import RANDOM
from hrlmg_jax.evaluation.offline import LoggedSessions, OfflineTest, rank_by_list, rank_randomly, rerank
from hrlmg_jax.problem import Problem
from sim.envs.fixed_policies import fixed_list_policy, random_policy
from sim.envs.policy import Policy
from sim.envs.session_env import FeedbackModel

BASELINES = (RANDOM, POPULARITY, BEST_RATE)
"""What is tested beside every agent, by name."""


class EvaluationPolicy(NamedTuple):
    """A policy as the tests take it.

    Attributes:
        policy: `users -> what recommends to them`; only oracles look at the users.
        params: `parameters of the users -> parameters of the policy`.
        samples: Whether it decides at random.
        rank: `(logged sessions, how many at a time) -> their items ranked`; None for one that cannot do without users
            to ask.
    """

    policy: Callable[[FeedbackModel], Policy]
    params: Callable[[Any], Any]
    samples: bool
    rank: Callable[[LoggedSessions, int], OfflineTest] | None


def learned(problem: Problem, policy: Policy, params: Any) -> EvaluationPolicy:
    """Returns a policy with what it has learned."""
    return EvaluationPolicy(lambda users: policy, lambda _: params, False, partial(rerank, problem, policy, params))


def random_items(problem: Problem) -> EvaluationPolicy:
    """Returns one that recommends items drawn uniformly."""
    policy = random_policy(problem.data.num_items)
    return EvaluationPolicy(lambda users: policy, lambda _: None, True, lambda sessions, _: rank_randomly(sessions))


def fixed_list(problem: Problem, name: str) -> EvaluationPolicy:
    """Returns one that recommends the items of a list of `problem.rankings` to everyone."""
    ranking = problem.rankings[name]
    best, policy = jnp.asarray(ranking), fixed_list_policy(problem.longest_session + 1)
    return EvaluationPolicy(
        lambda users: policy,
        lambda _: best,
        False,
        lambda sessions, _: rank_by_list(ranking, sessions),
    )


def baselines(problem: Problem) -> dict[str, EvaluationPolicy]:
    """Returns what is tested beside every agent, by name."""
    return {RANDOM: random_items(problem), **{name: fixed_list(problem, name) for name in (POPULARITY, BEST_RATE)}}

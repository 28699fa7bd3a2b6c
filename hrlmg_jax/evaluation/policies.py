"""Who takes part in the tests: trained agents, fixed lists, random items, ceilings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hrlmg_jax.agent.learner import HrlLearner
from hrlmg_jax.agent.policy import ActingParams
from hrlmg_jax.evaluation.offline import LoggedSessions, OfflineTest, rank_by_list, rank_randomly, rerank
from hrlmg_jax.evaluation.oracles import oracle_policy
from hrlmg_jax.problem import Problem
from hrlmg_jax.settings import BEST_RATE, POPULARITY, RunConfig
from sim.envs.fixed_policies import fixed_list_policy, random_policy
from sim.envs.policy import Policy
from sim.envs.session_env import FeedbackModel, SessionConfig

RANDOM = "random"
OPPONENTS = (RANDOM, POPULARITY, BEST_RATE)
"""Who is tested beside every agent, by name."""


class Contestant(NamedTuple):
    """One that takes part.

    Attributes:
        policy: `users -> what recommends to them`; only ceilings look at the users.
        params: `parameters of the users -> parameters of the policy`.
        samples: Whether it decides at random.
        rank: `logged sessions -> their items ranked`; None for one that cannot do without users to ask.
    """

    policy: Callable[[FeedbackModel], Policy]
    params: Callable[[Any], Any]
    samples: bool
    rank: Callable[[LoggedSessions], OfflineTest] | None


def learned(config: RunConfig, problem: Problem, learner: HrlLearner, params: ActingParams) -> Contestant:
    """Returns what a learner has learned so far."""
    policy = learner.policy.as_policy()
    return Contestant(lambda users: policy, lambda _: params, False, partial(rerank, config, problem, policy, params))


def random_items(problem: Problem) -> Contestant:
    """Returns one that recommends items drawn uniformly."""
    return Contestant(lambda users: random_policy(problem.data.num_items), lambda _: None, True, rank_randomly)


def fixed_list(ranking: np.ndarray, num_items: int, longest: int) -> Contestant:
    """Returns one that recommends the same items to everyone.

    Args:
        ranking: [I] int32 items that can be recommended, best first.
        num_items: J, items that occur in the log; those that cannot be recommended are ranked last.
        longest: T of the longest session.
    """
    best = jnp.asarray(ranking[: longest + 1])
    rank = partial(rank_by_list, ranking, num_items)
    return Contestant(lambda users: fixed_list_policy(), lambda _: best, False, rank)


def oracle(settings: SessionConfig, num_items: int, trust_weight: float) -> Contestant:
    """Returns one that asks the users themselves (see `hrlmg_jax.evaluation.oracles`)."""

    def policy(users: FeedbackModel) -> Policy:
        return oracle_policy(users, num_items, settings.click_reward, settings.order_reward, trust_weight)

    return Contestant(policy, lambda params: params, False, None)


def opponents(config: RunConfig, problem: Problem) -> dict[str, Contestant]:
    """Returns those that are tested beside every agent, by name."""
    sizes = problem.data.log.num_items, config.evaluation.long
    lists = {name: fixed_list(problem.rankings[name], *sizes) for name in (POPULARITY, BEST_RATE)}
    return {RANDOM: random_items(problem), **lists}

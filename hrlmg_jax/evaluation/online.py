"""The online test (Algorithm 3): a policy in the simulator, in short and long sessions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from harness.reports.results import Metrics
from hrlmg_jax.evaluation.collapse import share_of_items_used, share_of_items_used_at_a_step
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.evaluation.unmoved_users import unmoved
from hrlmg_jax.problem import Problem, make_env
from hrlmg_jax.settings import RunConfig
from sim.envs.session_env import SessionEnv, SessionParams
from sim.evaluation.protocol import compiled_rollout, play_all
from sim.tables.events import CLICK, ORDER


@dataclass(frozen=True)
class OnlineTest:
    """Sessions played by one policy.

    Attributes:
        items: [n, T] int32 recommended items.
        feedback: [n, T] int32 answers.
        reward: [n, T] float32 external rewards.
    """

    items: np.ndarray
    feedback: np.ndarray
    reward: np.ndarray

    def metrics(self, length: int) -> Metrics:
        """Returns reward, clicks (orders included) and orders of the first `length` recommendations, [n] each.

        Policies and users do not know how long a session will be, so that a short session is the beginning of a long
        one.
        """
        feedback = self.feedback[:, :length]
        return {
            "reward": self.reward[:, :length].sum(1, dtype=np.float64),
            "clicks": (feedback >= CLICK).sum(1),
            "orders": (feedback >= ORDER).sum(1),
        }

    def distinct_items(self) -> float:
        """Returns the share of different items among those that the sessions get at the same step, averaged over steps.

        Sessions never repeat an item, which would hide a policy that gives all users the same list: 1 / n for such.
        Sessions that begin at the same row begin with the same item, which keeps the share below 1.
        """
        distinct = [len(np.unique(items)) for items in self.items.T]
        return float(np.mean(distinct)) / len(self.items)


def make_player(env: SessionEnv, env_params: SessionParams, at_a_time: int) -> Callable[[EvaluationPolicy], OnlineTest]:
    """Returns `evaluation policy -> OnlineTest`, compiled once for equal environments and policies.

    The users' randomness is the same for all policies and runs.

    Args:
        env_params: Its tables: one session from each row.
        at_a_time: Sessions at a time, which bounds memory.
    """
    key = jax.random.key(zlib.crc32(b"online"))
    starts = np.arange(len(env_params.rows))

    def play(tested: EvaluationPolicy) -> OnlineTest:
        policy, policy_params = tested.policy(env.model), tested.params(env_params.model)
        batch = partial(compiled_rollout, env, policy, tested.samples)
        played = play_all(batch, env_params, policy_params, starts, key, at_a_time)
        return OnlineTest(played.item, played.feedback, played.reward)

    return play


def make_validation(config: RunConfig, problem: Problem) -> Callable[[EvaluationPolicy], dict[str, float]]:
    """Returns `evaluation policy -> metrics` on sessions of held-out users, named `validation_*`."""
    rows = problem.data.spread_first_rows("held_out", config.evaluation.validation_sessions)
    env = make_env(problem.env, problem.training_users, config.env.episode_length)
    play = make_player(env, problem.env_params(rows), config.evaluation.sessions_at_a_time)

    def validate(tested: EvaluationPolicy) -> dict[str, float]:
        test = play(tested)
        means = {name: float(values.mean()) for name, values in test.metrics(len(test.items[0])).items()}
        catalogue = problem.data.num_items
        return {
            **{f"validation_{name}": value for name, value in means.items()},
            "validation_distinct_items": test.distinct_items(),
            "validation_items_used": share_of_items_used(test.items, catalogue),
            "validation_items_used_at_a_step": share_of_items_used_at_a_step(test.items, catalogue),
        }

    return validate


def play_online(config: RunConfig, problem: Problem, policies: Mapping[str, EvaluationPolicy]) -> dict[str, OnlineTest]:
    """Plays long sessions of the test part with each policy."""
    rows = problem.data.spread_first_rows("test", config.evaluation.sessions)
    env = make_env(problem.env, problem.users, config.evaluation.long)
    play = make_player(env, problem.env_params(rows), config.evaluation.sessions_at_a_time)
    return {name: play(policy) for name, policy in policies.items()}


def play_unmoved(config: RunConfig, problem: Problem, policy: EvaluationPolicy) -> OnlineTest:
    """Plays long sessions of the test part with users whom no answer changes."""
    rows = problem.data.spread_first_rows("test", config.evaluation.sessions)
    env = unmoved(make_env(problem.env, problem.users, config.evaluation.long))
    return make_player(env, problem.env_params(rows), config.evaluation.sessions_at_a_time)(policy)

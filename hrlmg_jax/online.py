"""The online test (Algorithm 3): a policy in the simulator, in short and long sessions."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.results import Metrics
from hrlmg_jax.learner import HrlLearner
from hrlmg_jax.policy import ActingParams
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.system import Problem, make_env
from sim.evaluation import compiled_rollout, play_all
from sim.events import CLICK, ORDER
from sim.fixed_policies import fixed_list_policy, random_policy
from sim.funnel import FunnelModel
from sim.policy import Policy
from sim.session_env import FeedbackModel


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
        """
        distinct = [len(np.unique(items)) for items in self.items.T]
        return float(np.mean(distinct)) / len(self.items)


def session_rows(problem: Problem, part: str, number: int) -> np.ndarray:
    """Returns rows of the log at which a part's sessions begin: at most `number`, spread evenly over the log."""
    rows = problem.data.first_rows(part)
    return rows[np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int)]


def make_player(
    config: RunConfig,
    problem: Problem,
    policy: Policy,
    explore: bool,
    rows: np.ndarray,
    length: int,
    truth: bool = False,
) -> Callable[[Any], OnlineTest]:
    """Returns `policy parameters -> OnlineTest` on given sessions, compiled once for equal environments and policies.

    The users' randomness is the same for all policies and runs.

    Args:
        config: Of the run.
        problem: Log and simulator.
        policy: What recommends.
        explore: Whether it samples.
        rows: [n] rows of the log at which the sessions begin.
        length: T.
        truth: Whether the users are the generator's own (of a generated log) instead of the learned ones.
    """
    model: FeedbackModel = FunnelModel() if truth else problem.simulator.model
    env = make_env(config, model, length)
    env_params = problem.truth_params(rows) if truth else problem.env_params(rows)
    key = jax.random.key(zlib.crc32(b"online"))
    play = partial(compiled_rollout, env, policy, explore)

    def run(policy_params: Any) -> OnlineTest:
        starts = np.arange(len(rows))
        played = play_all(play, env_params, policy_params, starts, key, config.evaluation.sessions_at_a_time)
        return OnlineTest(played.item, played.feedback, played.reward)

    return run


def make_validation(
    config: RunConfig, problem: Problem, learner: HrlLearner
) -> Callable[[ActingParams], dict[str, float]]:
    """Returns `parameters -> metrics` of the greedy policy on sessions of held-out users, named `validation_*`."""
    rows = session_rows(problem, "held_out", config.evaluation.validation_sessions)
    play = make_player(config, problem, learner.policy.as_policy(), False, rows, config.env.episode_length)

    def validate(params: ActingParams) -> dict[str, float]:
        test = play(params)
        found = {
            f"validation_{name}": float(values.mean()) for name, values in test.metrics(len(test.items[0])).items()
        }
        return {**found, "validation_distinct_items": test.distinct_items()}

    return validate


def play_online(
    config: RunConfig, problem: Problem, learner: HrlLearner, params: ActingParams, truth: bool = False
) -> dict[str, OnlineTest]:
    """Plays the trained policy, greedily, and its opponents on sessions of the test part.

    Args:
        config: Of the run.
        problem: Log and simulator.
        learner: Whose policy is played.
        params: What it acts with.
        truth: See `make_player`.
    """
    rows = session_rows(problem, "test", config.evaluation.sessions)
    length = config.evaluation.long

    def play(policy: Policy, params: Any, explore: bool) -> OnlineTest:
        return make_player(config, problem, policy, explore, rows, length, truth)(params)

    own = {config.agent.name: play(learner.policy.as_policy(), params, False)}
    random = {"random": play(random_policy(problem.data.num_items), None, True)}
    lists = {
        name: play(fixed_list_policy(), jnp.asarray(ranking[: length + 1]), False)
        for name, ranking in problem.rankings.items()
    }
    return {**own, **random, **lists}

"""The trust bench on one log: users fitted, policies made, both played (`python -m hrlmg_jax.trust`)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrlmg_jax.evaluation.disagreement import disagreement_of
from hrlmg_jax.evaluation.followers import RANDOM, FollowerParams
from hrlmg_jax.evaluation.off_policy import (
    AS_COMPOSED,
    OffPolicyConfig,
    describe,
    estimate_policy,
    logged_impressions,
)
from hrlmg_jax.evaluation.offline import gains
from hrlmg_jax.evaluation.online import OnlineTest, make_player
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.evaluation.trust_policies import exploiter, fixed_policies, mixed, tested
from hrlmg_jax.evaluation.trust_scores import agreement, estimates_agreement, weighted_calibration
from hrlmg_jax.evaluation.trust_signals import logged_answers, value_ratio
from hrlmg_jax.evaluation.unmoved_users import unmoved
from hrlmg_jax.methods import AgentSettings
from hrlmg_jax.problem import Problem, make_env
from hrlmg_jax.registry import build_method
from sim.envs.session_env import SessionEnv
from sim.tables.events import CLICK, ORDER

METRICS = ("reward", "clicks", "orders")


@dataclass(frozen=True)
class BenchConfig:
    """How much is played and trained (`conf/trust.yaml` explains each)."""

    sessions: int
    at_a_time: int
    lengths: tuple[int, ...]
    agent_steps: tuple[int, ...]
    agents_on_truth: bool
    exploiter_generations: int
    exploiter_size: int
    exploiter_sessions: int


class _Clock:
    """Says on stderr what takes how long."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def say(self, what: str) -> None:
        print(f"{time.perf_counter() - self._began:6.0f} s  {what}", file=sys.stderr, flush=True)


def run_bench(
    config: BenchConfig,
    problem: Problem,
    agents: Mapping[str, AgentSettings],
    off_policy: OffPolicyConfig = AS_COMPOSED,
) -> dict[str, Any]:
    """Plays all policies with learned and with true users of a generated log.

    Args:
        config: How much.
        problem: The log and its learned users.
        agents: Settings by name, trained in the learned users (and on the true ones, to say what is kept).
        off_policy: What is estimated from the log alone.

    Returns:
        policies: by name, by length and metric the means of "learned" and "true" users, and of users that the session
        does not move ("unmoved"), and of users of the second kind, if there is one ("second"); agreement: see
        `trust_scores.agreement`, by length and metric; kept: by agent, true reward when trained in learned users over
        that when trained on true ones; signals: by policy, what the learned users alone tell; calibration: by policy;
        off_policy: what the log alone tells, see `_off_policy`, unless its sessions are 0.
    """
    clock, truth, longest = _Clock(), problem.with_truth(), max(config.lengths)
    rows = problem.data.spread_first_rows("test", config.sessions)
    players = {
        "learned": _player(config, problem, rows, make_env(problem.env, problem.users, longest)),
        "true": _player(config, truth, rows, make_env(truth.env, truth.users, longest)),
        "unmoved": _player(config, problem, rows, unmoved(make_env(problem.env, problem.users, longest))),
    }
    if problem.second is not None:
        second = problem.with_second()
        players["second"] = _player(config, second, rows, make_env(second.env, second.users, longest))
    # Policies that need no training, and one that learns what the simulator pays for.
    followers = fixed_policies(problem)
    followers["exploiter"] = exploiter(
        followers["best_rate"], _value(config, problem, longest), config.exploiter_generations, config.exploiter_size
    )
    clock.say("exploiter trained")
    policies = {name: tested(params) for name, params in followers.items()}
    played = {name: {kind: play(one) for kind, play in players.items()} for name, one in policies.items()}
    clock.say(f"{len(policies)} policies played")
    # Agents, as they are trained.
    kept = {}
    for name, settings in agents.items():
        for steps, one in _checkpoints(problem, settings, config.agent_steps):
            policies[f"{name} {steps}"] = one
        policies[f"{name} {steps}, half random"] = mixed(one, problem.data.num_items)
        for policy in [policy for policy in policies if policy not in played]:
            played[policy] = {kind: play(policies[policy]) for kind, play in players.items()}
        clock.say(f"{name} trained in learned users and played")
        if config.agents_on_truth:
            of_truth = next(players["true"](one) for _, one in _checkpoints(truth, settings, config.agent_steps[-1:]))
            kept[name] = {
                str(length): _mean(played[f"{name} {steps}"]["true"], length) / _mean(of_truth, length)
                for length in config.lengths
            }
            clock.say(f"{name} trained on true users and played")
    found: dict[str, Any] = {
        "policies": {name: _means(config, tests) for name, tests in played.items()},
        "agreement": _agreement(config, played),
        "kept": kept,
        "signals": _signals(problem, rows, played),
        "calibration": _calibration(problem, played),
    }
    if off_policy.sessions:
        found["off_policy"] = _off_policy(config, off_policy, problem, policies, played)
    return found


def _player(
    config: BenchConfig, problem: Problem, rows: np.ndarray, env: SessionEnv
) -> Callable[[EvaluationPolicy], OnlineTest]:
    return make_player(env, problem.env_params(rows), config.at_a_time)


def _value(config: BenchConfig, problem: Problem, length: int) -> Callable[[FollowerParams], float]:
    """Returns what a follower earns from the learned users of the training part."""
    rows = problem.data.spread_first_rows("train", config.exploiter_sessions)
    play = _player(config, problem, rows, make_env(problem.env, problem.users, length))
    return lambda params: _mean(play(tested(params)), length)


def _checkpoints(
    problem: Problem, settings: AgentSettings, steps: tuple[int, ...]
) -> list[tuple[int, EvaluationPolicy]]:
    """Trains an agent, seed 0, and returns its newest networks after so many steps."""
    method = build_method(problem, settings)
    assert method.agent is not None
    agent = method.agent
    state: Any = agent.initial_state(jax.random.key(0))
    train = jax.jit(
        lambda state, world, length: jax.lax.fori_loop(0, length, lambda _, now: agent.train_step(now, world)[0], state)
    )
    found, done = [], 0
    for wanted in steps:
        state = train(state, agent.world, jnp.int32(wanted - done))
        done = wanted
        found.append((wanted, method.newest(state)))
    return found


def _mean(test: OnlineTest, length: int) -> float:
    return float(np.mean(test.metrics(length)["reward"]))


def _means(config: BenchConfig, tests: Mapping[str, OnlineTest]) -> dict[str, Any]:
    """Returns means and their standard errors by length and metric, and of which users."""
    found: dict[str, Any] = {}
    for length in config.lengths:
        by_kind = {kind: test.metrics(length) for kind, test in tests.items()}
        found[str(length)] = {
            metric: {
                kind: {
                    "mean": float(np.mean(metrics[metric])),
                    "error": float(np.std(metrics[metric]) / np.sqrt(len(metrics[metric]))),
                }
                for kind, metrics in by_kind.items()
            }
            for metric in METRICS
        }
    return found


def _agreement(config: BenchConfig, played: Mapping[str, Mapping[str, OnlineTest]]) -> dict[str, Any]:
    def values(kind: str, length: int, metric: str) -> np.ndarray:
        return np.asarray([np.mean(tests[kind].metrics(length)[metric]) for tests in played.values()])

    return {
        str(length): {
            metric: agreement(values("learned", length, metric), values("true", length, metric)) for metric in METRICS
        }
        for length in config.lengths
    }


def _signals(problem: Problem, rows: np.ndarray, played: Mapping[str, Mapping[str, OnlineTest]]) -> dict[str, Any]:
    """Returns by policy what needs no truth (`trust_signals`), beside it the same with true users where it differs."""
    logged = logged_answers(problem.env, problem.data)
    base = value_ratio(played[RANDOM]["learned"].reward, played[RANDOM]["unmoved"].reward)
    disagreement = disagreement_of(problem, rows)

    def signals(tests: Mapping[str, OnlineTest]) -> dict[str, Any]:
        ratio = value_ratio(tests["learned"].reward, tests["unmoved"].reward)
        moved = {"live_over_unmoved": ratio, "live_over_unmoved_of_random": ratio / max(base, 1e-9)}
        if "second" in tests:
            moved["value_over_second_kind"] = value_ratio(tests["learned"].reward, tests["second"].reward)
        if disagreement is not None:
            moved["disagreement_over_log"] = disagreement.over_log(tests["learned"].items, tests["learned"].feedback)
        of, of_truth = (logged.about(tests[kind].feedback, tests[kind].reward) for kind in ("learned", "true"))
        return moved | of | {f"{key}_true": value for key, value in of_truth.items()}

    return {name: signals(tests) for name, tests in played.items()}


def _off_policy(
    config: BenchConfig,
    estimated: OffPolicyConfig,
    problem: Problem,
    policies: Mapping[str, EvaluationPolicy],
    played: Mapping[str, Mapping[str, OnlineTest]],
) -> dict[str, Any]:
    """Returns what the test part of the log tells of each policy, beside what true users pay.

    Returns:
        policies: by name, see `off_policy_estimates`; true: by name and horizon the true reward of the first
        recommendations, and by "step" that of one, over the shortest length; agreement: by horizon (or "step") and
        estimator, see `estimates_agreement`; first_shown: see `_first_shown`.
    """
    shortest = min(config.lengths)
    logged = logged_impressions(problem, estimated.sessions, shortest)
    found, true = {}, {}
    for name, tests in played.items():
        simulated = tests["learned"].reward.mean(0)
        found[name] = estimate_policy(estimated, problem, policies[name], logged, simulated, config.at_a_time)
        true[name] = {"step": _mean(tests["true"], shortest) / shortest} | {
            horizon: _mean(tests["true"], int(horizon)) for horizon in found[name]["first"]
        }

    def compared(of: str, estimator: str) -> dict[str, Any]:
        one = [policy["step"] if of == "step" else policy["first"][of] for policy in found.values()]
        return estimates_agreement([policy[estimator] for policy in one], [values[of] for values in true.values()])

    agreements = {"step": {name: compared("step", name) for name in ("replay", "doubly_robust")}} | {
        horizon: {name: compared(horizon, name) for name in ("per_decision", "doubly_robust")}
        for horizon in next(iter(found.values()))["first"]
    }
    compared_with = {"true": true, "agreement": agreements, "first_shown": _first_shown(problem, logged.row)}
    return {**describe(estimated, problem, logged), "policies": found, **compared_with}


def _first_shown(problem: Problem, rows: np.ndarray) -> float | None:
    """Returns what the items that logged sessions began with were worth, over what they are worth to the true users.

    Both in expectation. Played sessions have a curiosity of their own (`truth_of_sessions`), which the shop that wrote
    the log cannot have read. None: the log does not tell its probabilities.

    Args:
        problem: The log.
        rows: [S] first rows of the sessions.
    """
    log, truth = problem.data.log, problem.with_truth()
    if log.probabilities is None:
        return None
    users, params = truth.users, truth.env_params(rows)

    def probabilities(start: jax.Array, item: jax.Array) -> jax.Array:
        histories = params.table.before(params.rows[start], problem.env.history_length)
        return users.probabilities(params.model, users.initial(params.model, start), histories, item)

    played = jax.jit(jax.vmap(probabilities))(jnp.arange(len(rows)), jnp.asarray(log.item[rows], jnp.int32))
    worth = gains(problem.env)
    return float(np.mean(log.probabilities[rows] @ worth) / np.mean(np.asarray(played) @ worth))


def _calibration(problem: Problem, played: Mapping[str, Mapping[str, OnlineTest]]) -> dict[str, Any]:
    """Returns how well clicks and orders of the logged test part are predicted, weighted by each policy's items."""
    data, log = problem.data, problem.data.log
    rows = data.rows("test")
    rows = rows[log.item[rows] < data.num_items]
    simulator = problem.simulator
    predicted = simulator.model.predict(simulator.params, data, rows, problem.env.history_length)
    logged = np.bincount(log.item[rows], minlength=data.num_items)
    found = {}
    for name, tests in played.items():
        chosen = np.bincount(tests["true"].items.ravel(), minlength=data.num_items)
        weight = (chosen / np.maximum(logged, 1))[log.item[rows]]
        found[name] = {
            kind: weighted_calibration(predicted[:, least:].sum(1), log.feedback[rows] >= least, weight)
            for kind, least in (("click", CLICK), ("order", ORDER))
        }
    return found

"""Both tests of a run beside its baselines: files, tables, ratios."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from harness.reports.results import Metrics, format_means, format_ratio, write_results
from harness.reports.tables import kind_of
from harness.runs.index import newest_checkpoint
from harness.runs.run_folder import RunFolder
from hrlmg_jax.evaluation.disagreement import Disagreement, disagreement_of
from hrlmg_jax.evaluation.followers import RANDOM
from hrlmg_jax.evaluation.off_policy import (
    LoggedImpressions,
    describe,
    estimate_policy,
    logged_impressions,
    why_not,
)
from hrlmg_jax.evaluation.offline import CUTOFFS, LoggedSessions, OfflineTest, gains, logged_sessions, original_ids
from hrlmg_jax.evaluation.online import OnlineTest, play_online, play_unmoved
from hrlmg_jax.evaluation.policies import BASELINES, EvaluationPolicy, baselines
from hrlmg_jax.evaluation.trust_scores import warning
from hrlmg_jax.evaluation.trust_signals import LoggedAnswers, logged_answers, value_ratio
from hrlmg_jax.problem import Problem
from hrlmg_jax.reports.off_policy import off_policy_table
from hrlmg_jax.sessions import describe_log
from hrlmg_jax.settings import RunConfig
from sim.datasets.sessions import SessionData
from sim.envs.python_policy import RECORDED
from sim.evaluation.list_metrics import Catalogue, format_lists, list_metrics
from sim.tables.events import CLICK

_NO_FEEDBACK = -1


@dataclass(frozen=True)
class Comparison:
    """Both tests of agents beside their baselines, who are tested once for all agents: they depend on no run's seed.

    On a log that knows its users (`EventLog.knows_users`) the online test with learned users is repeated with the true
    ones (`online_truth`): a policy may have learned what only the learned users like. Oracles take no part in the
    offline test.

    Attributes:
        config: Of the runs, which are alike in all but seed.
        problem: Log and users.
        function: `Method.function` of the agents.
    """

    config: RunConfig
    problem: Problem
    function: dict[str, str] | None = None

    def test(
        self, tested: EvaluationPolicy, seed: int, folder: RunFolder, step: int, suffix: str = ""
    ) -> dict[str, Metrics]:
        """Tests one agent, prints the tables and writes `online` and `offline` (.json, .npz) into its run folder.

        Args:
            folder: Run folder.
            step: Training steps that it has had.

        Returns:
            Metrics of the online test by policy.
        """
        header = {
            "data": describe_log(self.problem.data),
            "step": step,
            "newest_checkpoint": newest_checkpoint(folder),
            "protocol": _protocol(self.config, seed),
        }
        header |= {} if self.function is None else {RECORDED: self.function}
        name = self.config.agent.result_name

        def online(problem: Problem, baselines: dict[str, OnlineTest]) -> dict[str, OnlineTest]:
            # An agent that is itself a baseline was tested already.
            mine = baselines.get(name) or play_online(self.config, problem, {name: tested})[name]
            return {name: mine} | baselines

        if self._has_truth:  # first, so that what is printed first is what is true
            truth = self.problem.with_truth()
            played = online(truth, self._online_truth)
            _write_played(self.config, folder, header, truth, played, f"online_truth{suffix}")
        simulated = online(self.problem, self._online)
        # Oracles live on what they see of the users, not on mistakes.
        signals = {} if self.problem.truth or tested.rank is None else {name: self._signals(tested, simulated[name])}
        header_of = {**header, "signals": signals} if signals else header
        metrics = _write_played(self.config, folder, header_of, self.problem, simulated, f"online{suffix}")
        if tested.rank is not None:
            estimates = self._estimates(name, tested, simulated[name])
            ranked = {name: self._offline.get(name) or tested.rank(self._sessions, self._at_a_time)} | self._offline
            header["off_policy"] = estimates
            _write_ranked(self.config, folder, header, self.problem, self._sessions, ranked, f"offline{suffix}")
            print(off_policy_table(estimates))
        for policy, found in signals.items():
            if said := warning(policy, found):
                print(f"WARNING: {said}", file=sys.stderr)
        return metrics

    @property
    def _has_truth(self) -> bool:
        return self.problem.data.log.knows_users and not self.problem.truth

    @cached_property
    def _baselines(self) -> dict[str, EvaluationPolicy]:
        return baselines(self.problem)

    @cached_property
    def _online(self) -> dict[str, OnlineTest]:
        return play_online(self.config, self.problem, self._baselines)

    def _signals(self, tested: EvaluationPolicy, live: OnlineTest) -> dict[str, Any]:
        """Returns what tells without the truth that a policy lives on the mistakes of the learned users."""
        unmoved = play_unmoved(self.config, self.problem, tested)
        found = {"live_over_unmoved": value_ratio(live.reward, unmoved.reward)}
        if self.problem.second is not None:
            name = self.config.agent.result_name
            other = play_online(self.config, self.problem.with_second(), {name: tested})[name]
            found["value_over_second_kind"] = value_ratio(live.reward, other.reward)
        if self._disagreement is not None:
            found["disagreement_over_log"] = self._disagreement.over_log(live.items, live.feedback)
        return found | self._logged.about(live.feedback, live.reward)

    @cached_property
    def _logged(self) -> LoggedAnswers:
        return logged_answers(self.problem.env, self.problem.data)

    @cached_property
    def _disagreement(self) -> Disagreement | None:
        rows = self.problem.data.spread_first_rows("test", self.config.evaluation.sessions)
        return disagreement_of(self.problem, rows)

    @cached_property
    def _online_truth(self) -> dict[str, OnlineTest]:
        return play_online(self.config, self.problem.with_truth(), self._baselines)

    @cached_property
    def _sessions(self) -> LoggedSessions:
        return logged_sessions(self.problem, self.config.evaluation.offline_sessions)

    @cached_property
    def _offline(self) -> dict[str, OfflineTest]:
        return {
            name: one.rank(self._sessions, self._at_a_time)
            for name, one in self._baselines.items()
            if one.rank is not None
        }

    def _estimates(self, name: str, tested: EvaluationPolicy, simulated: OnlineTest) -> dict[str, Any]:
        """Returns what the log alone tells of an agent and the baselines, or why it tells nothing."""
        config, problem = self.config.evaluation.off_policy, self.problem
        reason = "evaluation.off_policy.sessions=0" if config.sessions == 0 else why_not(problem)
        if reason is not None:
            return {"left_out": reason}
        mine = self._off_policy.get(name) or estimate_policy(
            config, problem, tested, self._impressions, simulated.reward.mean(0), self._at_a_time
        )
        header = {**describe(config, problem, self._impressions), "simulated_users": _who_answers(problem)}
        return {**header, "policies": {name: mine, **self._off_policy}}

    @cached_property
    def _impressions(self) -> LoggedImpressions:
        config = self.config.evaluation
        return logged_impressions(self.problem, config.off_policy.sessions, config.short)

    @cached_property
    def _off_policy(self) -> dict[str, dict[str, Any]]:
        config = self.config.evaluation.off_policy
        return {
            name: estimate_policy(
                config, self.problem, one, self._impressions, self._online[name].reward.mean(0), self._at_a_time
            )
            for name, one in self._baselines.items()
        }

    @property
    def _at_a_time(self) -> int:
        return self.config.evaluation.sessions_at_a_time


def _who_answers(problem: Problem) -> str:
    if not problem.truth:
        return "learned from the log"
    return "the log's own, who were shown everything" if problem.data.log.complete else "the generator's truth"


def _write_played(
    config: RunConfig,
    folder: RunFolder,
    header: dict[str, Any],
    problem: Problem,
    online: Mapping[str, OnlineTest],
    name: str,
) -> dict[str, Metrics]:
    # Metrics of short and long sessions by policy.
    lengths = {"short": config.evaluation.short, "long": config.evaluation.long}
    played = {policy: _by_length(test, lengths) for policy, test in online.items()}
    distinct = {policy: test.distinct_items() for policy, test in online.items()}
    # How it was tested, and what was played.
    protocol = {
        **header["protocol"],
        **lengths,
        "users": _who_answers(problem),
        "decision": "greedy",
        "decision_of": {RANDOM: "sample"},
    }
    rows = problem.data.spread_first_rows("test", config.evaluation.sessions)
    lists = _describe_lists(problem.data, rows, online)
    print("\n".join(format_lists(lists)))
    header = {**header, "protocol": protocol, "distinct_items": distinct, "lists": lists}
    write_results(folder, name, header, played, "sessions", _arrays(config, problem, rows, header["step"], online))
    print(_online_table(config, problem, played, distinct))
    return played


def _describe_lists(data: SessionData, rows: np.ndarray, online: Mapping[str, OnlineTest]) -> dict[str, dict[str, Any]]:
    """Returns what was recommended in long sessions that begin at rows of the log; items are known by their clicks."""
    log, training = data.log, data.rows("train")
    sessions, session = np.unique(log.session[training], return_inverse=True)
    clicked = log.feedback[training] >= CLICK
    place = log.item[training][clicked], session[clicked]
    shape = data.num_items, len(sessions)
    catalogue = Catalogue(csr_array((np.ones(len(place[0]), np.float32), place), shape))
    activity = np.bincount(log.user[training], minlength=log.num_users)[log.user[rows]]
    return {name: list_metrics(test.items, test.reward, activity, catalogue) for name, test in online.items()}


def _write_ranked(
    config: RunConfig,
    folder: RunFolder,
    header: dict[str, Any],
    problem: Problem,
    sessions: LoggedSessions,
    offline: Mapping[str, OfflineTest],
    name: str,
) -> None:
    ranked = {policy: test.metrics(gains(problem.env)) for policy, test in offline.items()}
    arrays = _arrays(config, problem, sessions.row, header["step"], offline) | {"length": sessions.length}
    header = {
        **header,
        "protocol": {
            **header["protocol"],
            "left_out": "items not in the catalogue, and sessions without a click or an order",
        },
    }
    write_results(folder, name, header, ranked, "sessions", arrays)
    print(_offline_table(problem, ranked))


def _arrays(
    config: RunConfig, problem: Problem, rows: np.ndarray, step: int, tests: Mapping[str, OnlineTest | OfflineTest]
) -> dict[str, np.ndarray]:
    """Returns what was played or ranked in sessions that begin at rows of the log, with original ids.

    Where a session is shorter than others, items are -1 (of text ids: empty) and feedback is -1.
    """
    log = problem.data.log
    arrays: dict[str, np.ndarray] = {
        "user": np.asarray(log.user_ids[log.user[rows]]),
        "row": rows,
        "step": np.asarray(step),
        "synthetic": np.asarray(log.synthetic),
        "order_proxy": np.asarray(log.order_proxy),
        "feedback_proxy": np.asarray(log.feedback_proxy),
    }
    for policy, test in tests.items():
        prefix = "" if policy == config.agent.result_name else f"{policy}_"
        arrays[f"{prefix}items"] = original_ids(np.asarray(log.item_ids), test.items)
        arrays[f"{prefix}feedback"] = np.where(test.items < 0, _NO_FEEDBACK, test.feedback).astype(np.int8)
    return arrays


def references(played: dict[str, Metrics]) -> dict[str, float]:
    """Returns the mean reward of the baselines in long sessions."""
    return {name: float(np.mean(played[name]["long_reward"])) for name in BASELINES}


def _by_length(test: OnlineTest, lengths: dict[str, int]) -> Metrics:
    return {
        f"{name}_{metric}": values
        for name, length in lengths.items()
        for metric, values in test.metrics(length).items()
    }


def _protocol(config: RunConfig, seed: int) -> dict[str, Any]:
    return {
        "history_length": config.env.history_length,
        "click_reward": config.env.click_reward,
        "order_reward": config.env.order_reward,
        "split": config.data.split,
        "seed": seed,
        "simulator_seed": config.simulator.seed,
    }


def _online_table(
    config: RunConfig, problem: Problem, played: Mapping[str, Metrics], distinct: Mapping[str, float]
) -> str:
    description = describe_log(problem.data)
    number = len(next(iter(played.values()))["long_reward"])
    where = "with the true users behind" if problem.truth else "in the simulator of"
    heads = [
        f"{metric} ({length})"
        for length in (config.evaluation.short, config.evaluation.long)
        for metric in ("reward", "clicks", "orders")
    ]
    shares = ", ".join(f"{policy} {share:.3f}" for policy, share in distinct.items())
    name = config.agent.result_name
    return "\n".join(
        [
            f"online test {where} {description['name']}{kind_of(description)}: {number:,} sessions, "
            "means per session ± 95 % interval over sessions",
            *format_means(played, heads, 2),
            *(format_ratio(played, "long_reward", name, baseline) for baseline in BASELINES[1:] if baseline != name),
            f"distinct items at the same step across sessions (1: all differ): {shares}",
        ]
    )


def _offline_table(problem: Problem, ranked: dict[str, Metrics]) -> str:
    description = describe_log(problem.data)
    number = len(next(iter(ranked.values()))["map"])
    heads = ["MAP", *(f"NDCG@{cutoff}" for cutoff in CUTOFFS)]
    return "\n".join(
        [
            f"offline test on {number:,} logged sessions of {description['name']}{kind_of(description)}, means ± 95 % "
            "interval over sessions",
            *format_means(ranked, heads, 4),
        ]
    )

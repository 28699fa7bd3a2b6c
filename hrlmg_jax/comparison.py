"""Both tests of a run beside its opponents: files, tables, ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.results import Metrics, format_means, format_ratio, write_results
from harness.run_folder import RunFolder
from harness.run_index import newest_checkpoint
from hrlmg_jax.contestants import OPPONENTS, Contestant, opponents
from hrlmg_jax.offline import CUTOFFS, gains, logged_sessions
from hrlmg_jax.online import OnlineTest, play_online, session_rows
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.simulator import describe_log, kind_of
from hrlmg_jax.system import Problem


def compare(
    config: RunConfig, problem: Problem, own: Contestant, folder: RunFolder, step: int, suffix: str = ""
) -> dict[str, Metrics]:
    """Runs both tests, prints their tables and writes `online` and `offline` (.json, .npz) into the run folder.

    On a generated log the online test with learned users is repeated with the generator's own (`online_truth`): a
    policy may have learned what only the learned users like. Ceilings take no part in the offline test.

    Args:
        config: Of the run.
        problem: Log and users.
        own: What is tested.
        folder: Run folder.
        step: Training steps that it has had.
        suffix: Of the files' names.

    Returns:
        Metrics of the online test by policy.
    """
    header = {"data": describe_log(problem.data), "step": step, "newest_checkpoint": newest_checkpoint(folder)}
    # One that is itself an opponent is tested once.
    contestants = {config.result_name: own} | opponents(config, problem)
    played = _play_and_write(config, problem, contestants, folder, header, f"online{suffix}")
    if problem.data.log.generator is not None and not problem.truth:
        _play_and_write(config, problem.with_truth(), contestants, folder, header, f"online_truth{suffix}")
    if own.rank is not None:
        _rank_and_write(config, problem, contestants, folder, header, f"offline{suffix}")
    return played


def _play_and_write(
    config: RunConfig,
    problem: Problem,
    contestants: Mapping[str, Contestant],
    folder: RunFolder,
    header: dict[str, Any],
    name: str,
) -> dict[str, Metrics]:
    log = problem.data.log
    online = play_online(config, problem, contestants)
    lengths = {"short": config.evaluation.short, "long": config.evaluation.long}
    played = {policy: _by_length(test, lengths) for policy, test in online.items()}
    print(_online_table(config, problem, played, online))
    rows = session_rows(problem.data, "test", config.evaluation.sessions)
    arrays: dict[str, np.ndarray] = {
        "user": np.asarray(log.user_ids[log.user[rows]]),
        "row": rows,
        "step": np.asarray(header["step"]),
        "synthetic": np.asarray(log.synthetic),
    }
    for policy, test in online.items():
        prefix = "" if policy == config.result_name else f"{policy}_"
        arrays[f"{prefix}items"] = np.asarray(log.item_ids[test.items])
        arrays[f"{prefix}feedback"] = test.feedback.astype(np.int8)
    protocol = {
        **_protocol(config),
        **lengths,
        "users": "the generator's truth" if problem.truth else "learned from the log",
        "decision": "greedy",
        "decision_of": {policy: "sample" for policy, contestant in contestants.items() if contestant.samples},
    }
    distinct = {policy: test.distinct_items() for policy, test in online.items()}
    header = {**header, "protocol": protocol, "distinct_items": distinct}
    write_results(folder, name, header, played, "sessions", arrays)
    return played


def _rank_and_write(
    config: RunConfig,
    problem: Problem,
    contestants: Mapping[str, Contestant],
    folder: RunFolder,
    header: dict[str, Any],
    name: str,
) -> None:
    log = problem.data.log
    sessions = logged_sessions(problem, config.evaluation.offline_sessions)
    offline = {
        policy: contestant.rank(sessions) for policy, contestant in contestants.items() if contestant.rank is not None
    }
    ranked = {policy: test.metrics(gains(config)) for policy, test in offline.items()}
    print(_offline_table(problem, ranked))
    arrays: dict[str, np.ndarray] = {
        "user": np.asarray(log.user_ids[log.user[sessions.row]]),
        "row": sessions.row,
        "length": sessions.length,
        "step": np.asarray(header["step"]),
        "synthetic": np.asarray(log.synthetic),
    }
    for policy, ranking in offline.items():
        prefix = "" if policy == config.result_name else f"{policy}_"
        arrays[f"{prefix}items"] = np.asarray(log.item_ids[ranking.items])  # the padding names the last item
        arrays[f"{prefix}feedback"] = ranking.feedback
    left_out = "sessions without a click or an order"
    write_results(
        folder, name, {**header, "protocol": {**_protocol(config), "left_out": left_out}}, ranked, "sessions", arrays
    )


def references(config: RunConfig, played: dict[str, Metrics]) -> dict[str, float]:
    """Returns the mean reward of the opponents in long sessions."""
    return {name: float(np.mean(played[name]["long_reward"])) for name in OPPONENTS}


def _by_length(test: OnlineTest, lengths: dict[str, int]) -> Metrics:
    return {
        f"{name}_{metric}": values
        for name, length in lengths.items()
        for metric, values in test.metrics(length).items()
    }


def _protocol(config: RunConfig) -> dict[str, Any]:
    return {
        "history_length": config.env.history_length,
        "click_reward": config.env.click_reward,
        "order_reward": config.env.order_reward,
        "split": config.data.split,
        "seed": config.seed,
        "simulator_seed": config.simulator.seed,
    }


def _online_table(config: RunConfig, problem: Problem, played: dict[str, Metrics], tests: dict[str, OnlineTest]) -> str:
    description = describe_log(problem.data)
    number = len(next(iter(tests.values())).items)
    where = "with the true users behind" if problem.truth else "in the simulator of"
    heads = [
        f"{metric} ({length})"
        for length in (config.evaluation.short, config.evaluation.long)
        for metric in ("reward", "clicks", "orders")
    ]
    distinct = ", ".join(f"{policy} {test.distinct_items():.3f}" for policy, test in tests.items())
    own = config.result_name
    return "\n".join(
        [
            f"online test {where} {description['name']}{kind_of(description)}: {number:,} sessions, "
            "means per session ± 95 % interval",
            *format_means(played, heads, 2),
            *(format_ratio(played, "long_reward", own, opponent) for opponent in OPPONENTS[1:] if opponent != own),
            f"distinct items at the same step across sessions (1: all differ): {distinct}",
        ]
    )


def _offline_table(problem: Problem, ranked: dict[str, Metrics]) -> str:
    description = describe_log(problem.data)
    number = len(next(iter(ranked.values()))["map"])
    heads = ["MAP", *(f"NDCG@{cutoff}" for cutoff in CUTOFFS)]
    return "\n".join(
        [
            f"offline test on {number:,} logged sessions of {description['name']}{kind_of(description)}, means ± 95 % "
            "interval",
            *format_means(ranked, heads, 4),
        ]
    )

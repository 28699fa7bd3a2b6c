"""The evaluation of a run: its method beside random, Popularity and the best fixed list on the same users."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.reports.results import Metrics, format_means, format_ratio, write_results
from harness.runs.run_folder import RunFolder
from sim.envs.fixed_policies import fixed_list_policy, random_policy, rank_items
from sim.envs.policy import Policy
from sim.envs.python_policy import RECORDED
from sim.evaluation.list_metrics import Catalogue, format_lists, list_metrics, sameness_warning
from sim.evaluation.protocol import Evaluation, evaluate_policy, make_episode_batch
from tpgr_jax.methods import Method
from tpgr_jax.problem import Problem, describe_data

METRICS = ("reward", "precision", "recall", "f1")
REFERENCES = ("random", "popularity", "best_fixed_list")
USERS_PER_BATCH = 4096

Evaluate = Callable[[Any], Evaluation]


def make_evaluate(
    problem: Problem, method: Method, seed: int, explore: bool, users_per_batch: int = USERS_PER_BATCH
) -> Evaluate:
    """Returns `state -> Evaluation` of a method on the test users, compiled once.

    Args:
        explore: True samples, False decides greedily.
        users_per_batch: Users played at a time.
    """
    run = _evaluator(problem, method.policy, method.name, seed, explore, users_per_batch)
    return lambda state: run(method.policy_params(state))


def evaluate_method(
    problem: Problem,
    method: Method,
    state: Any,
    seed: int,
    users_per_batch: int = USERS_PER_BATCH,
    baselines: dict[str, Evaluation] | None = None,
) -> dict[str, Evaluation]:
    """Evaluates a method (by sampling too, if it can) and its baselines on the same test users; its own name first.

    Args:
        baselines: The baselines' evaluations, if there are any yet.
    """
    results = {method.name: make_evaluate(problem, method, seed, False, users_per_batch)(state)}
    if method.samples:
        results[f"{method.name}_sampled"] = make_evaluate(problem, method, seed, True, users_per_batch)(state)
    return {**results, **(baselines or _evaluate_baselines(problem, seed, users_per_batch, leave_out=method.name))}


def _evaluate_baselines(problem: Problem, seed: int, users_per_batch: int, leave_out: str) -> dict[str, Evaluation]:
    """Evaluates the policies that every result is compared with, on the same test users."""
    data, users, rewards = problem.training_ratings
    longest = problem.env.episode_length + 1  # one spare: a random first item may be on the list
    random = _evaluator(problem, random_policy(data.num_items), "random", seed, True, users_per_batch)
    results = {"random": random(None)}
    for name, by in (("popularity", "average"), ("best_fixed_list", "reward")):
        if name != leave_out:
            ranking = jnp.asarray(rank_items(data, users, by, rewards)[:longest])
            fixed = _evaluator(problem, fixed_list_policy(), name, seed, False, users_per_batch)
            results[name] = fixed(ranking)
    return results


def _evaluator(
    problem: Problem, policy: Policy, name: str, seed: int, explore: bool, users_per_batch: int
) -> Callable[[Any], Evaluation]:
    episode_batch = make_episode_batch(problem.env, policy, explore)

    def run(policy_params: Any) -> Evaluation:
        # A key per policy and way of deciding, the same whichever command evaluates.
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{name}/{explore}".encode()))
        users = problem.test_users, problem.num_relevant
        return evaluate_policy(episode_batch, problem.env_params, policy_params, *users, key, users_per_batch)

    return run


def by_name(evaluation: Evaluation) -> Metrics:
    """Returns the four metrics per user."""
    return {name: getattr(evaluation.metrics, name) for name in METRICS}


def write_evaluation(
    folder: RunFolder,
    problem: Problem,
    seed: int,
    step: int,
    policies: dict[str, Evaluation],
    name: str = "eval",
    budget: dict[str, Any] | None = None,
    function: dict[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Writes means (`NAME.json`) and per-user arrays (`NAME.npz`), from which anyone can recompute them.

    Args:
        budget: What the state's training might cost, and what it did.
        policies: By name; the run's own method comes first.
        function: `Method.function`.

    Returns:
        What the lists of each policy are like.
    """
    data, settings = problem.data, problem.data_settings
    method = next(iter(policies))
    # What the numbers depend on, beside the policy.
    protocol = {
        **problem.env_settings.protocol,
        "relevant_above": settings.hits_above,
        **settings.described_split,
        "seed": seed,
        "decision": "greedy",
        "decision_of": {name: "sample" for name in ("random", f"{method}_sampled") if name in policies},
    }
    # One row per test user, the method's columns without a prefix.
    arrays = {
        "user": np.asarray(data.user_ids[problem.test_users]),
        "train_users": np.asarray(data.user_ids[problem.train_users]),
        "step": np.asarray(step),
        "synthetic": np.asarray(data.synthetic),
    }
    for policy, evaluation in policies.items():
        prefix = "" if policy == method else f"{policy}_"
        arrays[f"{prefix}items"] = np.asarray(data.item_ids[evaluation.items])
    lists = describe_lists(problem, policies)
    header = {"data": describe_data(problem), "protocol": protocol, "step": step, "lists": lists}
    header |= {} if budget is None else {"budget": budget}
    header |= {} if function is None else {RECORDED: function}
    results = {policy: by_name(evaluation) for policy, evaluation in policies.items()}
    write_results(folder, name, header, results, "users", arrays)
    return lists


def describe_lists(problem: Problem, policies: dict[str, Evaluation]) -> dict[str, dict[str, Any]]:
    """Returns what the lists of each policy are like (`sim.evaluation.list_metrics`)."""
    data = problem.data
    catalogue = Catalogue(data.matrix(data.rating_values, problem.train_users).T.tocsr())
    activity = np.diff(data.indptr)[problem.test_users]
    return {name: list_metrics(one.items, one.rewards, activity, catalogue) for name, one in policies.items()}


def print_lists(lists: dict[str, dict[str, Any]]) -> None:
    """Prints the same as a table, and warns where the method, the first of the policies, does not personalise."""
    print("\n".join(format_lists(lists)))
    method, metrics = next(iter(lists.items()))
    if method not in REFERENCES and (warning := sameness_warning(metrics)):
        print(f"WARNING: {method}: {warning}", file=sys.stderr)


def format_table(policies: dict[str, Evaluation], problem: Problem) -> str:
    """Returns the evaluation as a table for people: mean and half-width of the 95 % interval."""
    data, length = problem.data, problem.env.episode_length
    kind = " (SYNTHETIC)" if data.synthetic else ""
    heads = ["reward", f"precision@{length}", f"recall@{length}", f"F1@{length}"]
    results = {policy: by_name(evaluation) for policy, evaluation in policies.items()}
    return "\n".join(
        [
            f"{data.name}{kind}, {problem.env_settings.description}, {len(problem.test_users):,} test users, "
            "means ± 95 % interval over users",
            *format_means(results, heads, 4),
            format_ratio(results, "reward", next(iter(policies)), "best_fixed_list"),
        ]
    )

"""What reports must know of TPGR's runs: their methods, which of them can be compared, and how to make missing ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import fields

from harness.reports.method_results import MethodResult
from harness.reports.system_results import ComparedTest, RunsConfig, System
from harness.reports.tables import kind_of
from harness.runs.composition import is_configuration
from harness.runs.index import RunRecord, RunsFound
from sim.evaluation.user_metrics import UserMetrics

TPGR, TPGR_PLUS = "tpgr", "tpgr_plus"
ON_A_TREE = (TPGR, TPGR_PLUS)
"""Our own methods: what the others are compared with."""
METHODS = {
    "popularity": "Popularity",
    "greedy_svd": "GreedySVD",
    "linear_ucb": "LinearUCB",
    "hlinear_ucb": "HLinearUCB",
    "ddpg_knn_1": "DDPG-KNN (k = 1)",
    "ddpg_knn_tenth": "DDPG-KNN (k = 0.1N)",
    "ddpg_knn_all": "DDPG-KNN (k = N)",
    "ddpg_r": "DDPG-R",
    "dqn_r": "DQN-R",
    TPGR: "TPGR",
    "gaussian_posterior": "GaussianPosterior",
    TPGR_PLUS: "TPGR+",
}
"""By the file of `conf/agent` that makes them, in the order of the paper's Table 2; two are not the paper's."""
BY_SECONDS_ONLY = ("ddpg_knn_all",)
"""Methods that equal budgets of episodes would take days (`+experiment=table2_knn_all`)."""
BEST_LIST = "best_fixed_list"
BASELINES = {BEST_LIST: "best fixed list", "random": "random"}
"""Policies that every run is evaluated beside."""

SPLIT_SEED, FOLD = "data.split_seed", "data.fold"
USERS = "test users"
"""What intervals of TPGR's results are over: users are the same for all methods, and many."""
TEST = ComparedTest(
    "eval",
    {field.name: field.name for field in fields(UserMetrics)},
    episode="user",
    episodes=USERS,
    disjoint=True,
    same=(
        *(SPLIT_SEED, "data.folds", "data.test_fraction", "data.validation", "data.selection"),
        *("data.relevant_above", "data.rating_min", "data.rating_max", "data.scale_users"),
        *("data.hidden_share", "data.hidden_users"),
        *("env.episode_length", "env.reward_scale", "env.counts_by", "env.cold_start", "env.allow_repeats"),
    ),
    of_baselines=("env.alpha", "seed"),
)


def method_name(run: RunRecord) -> str:
    """Returns a key of `METHODS`, or the name of a method that is not there."""
    name = str(run.settings.get("agent.name"))
    if name == "python":
        return str(run.settings.get("agent.label") or name)
    measure = run.settings.get("agent.policy.by")
    if name == "popularity" and measure not in (None, "average"):
        return f"Popularity ({measure})"
    if name == "ddpg_knn":
        k, fraction = run.settings.get("agent.policy.k"), run.settings.get("agent.policy.k_fraction")
        label = f"DDPG-KNN (k = {k if k is not None else 'N' if fraction == 1 else f'{fraction}N'})"
        return next((preset for preset, known in METHODS.items() if known == label), label)
    return name


def alpha_of(run: RunRecord) -> float:
    """Returns the weight of the sequential reward."""
    return float(run.settings["env.alpha"])


def _choose_data(run: RunRecord | None) -> list[str]:
    name = "movielens_1m" if run is None else str(run.settings.get("data.name"))
    if run is None or name == "movielens_1m":
        return ["+experiment=movielens"]
    if not is_configuration("data", name):
        name = "synthetic" if run.settings.get("data.reader") == "synthetic" else "ratings_file"
    return [*(["+experiment=movielens"] if name.startswith("movielens") else []), f"data={name}"]


def _is_irrelevant(run: RunRecord, key: str) -> bool:
    """Says whether a setting need not be that of the reference: generated ratings have no files, trees their seeds."""
    of_files = ("files", "archive", "member", "url", "checksum", "root", "cache")
    expected = ("expected_users", "expected_items", "expected_ratings")
    generated = run.settings.get("data.reader") == "synthetic"
    return key in ("data.offline_fallback", "data.fallback_size", "tree.seed") or (
        generated and key in [f"data.{name}" for name in (*of_files, *expected)]
    )


SYSTEM = System(
    train="tpgr_jax.train",
    evaluate="tpgr_jax.evaluate",
    config="train",
    experiment="table2",
    result="eval.json",
    belongs=lambda run: "env.alpha" in run.settings,
    types={"env.alpha": (int, float), "seed": (int,), "agent.name": (str,)},
    data_facts={"name": "data", "synthetic": "synthetic", "checksum": "checksum"},
    labels={**METHODS, **BASELINES},
    name_of=method_name,
    columns={"alpha": lambda run: f"{alpha_of(run):g}"},
    metric="test_reward",
    tested="reward",
    splits=(FOLD,),
    # They say where and how, not what; whether the data are the same is told by their checksum and `TEST.same`.
    without_effect=(
        *("data.", "items.", "devices.", "logger."),
        *("seed", "num_seeds", "tree.seed", "env.rating_layout", "env.dense_limit_mb"),
        *("train.log_every", "train.evaluate_every", "train.checkpoint_every", "train.max_to_keep"),
    ),
    choose_data=_choose_data,
    problem_sections=("data", "env"),
    method_sections=("tree", "agent", "train"),
    irrelevant=_is_irrelevant,
)


def comparable_runs(config: RunsConfig) -> RunsFound:
    """Finds the runs of a report, which must be about one data set, split of its users and simulator.

    Runs of several folds are about one split: their test users are disjoint.

    Raises:
        UserError: No runs, or runs whose results cannot be mixed.
    """
    found = SYSTEM.runs(config.runs)
    runs = [_with_later_settings(run) for run in found.runs]
    disjoint = (
        f". Test users of two split seeds overlap and count as independent nowhere; to have more of them, run {FOLD}=0 "
        "to 4 with one split seed"
    )
    return SYSTEM.comparable(config, RunsFound(runs, found.unreadable), TEST.same, {SPLIT_SEED: disjoint})


def _with_later_settings(run: RunRecord) -> RunRecord:
    """Returns the run with the settings that came after the first runs were made."""
    data = run.values.get("data")
    if not isinstance(data, dict):
        return run
    data = {"fold": None, "folds": 5, "scale_users": "all", "hidden_share": 0.0, "hidden_users": "training", **data}
    if data.get("reader") == "synthetic" or None not in (data.get("rating_min"), data.get("rating_max")):
        data["scale_users"] = "training"  # without effect
    return dataclasses.replace(run, values={**run.values, "data": data})


def baseline(result: MethodResult, policy: str) -> MethodResult:
    """Returns a baseline on the test users of a result."""
    return result.baseline(policy, BASELINES[policy], [*TEST.metrics])


def with_most_users(results: Sequence[MethodResult]) -> MethodResult:
    """Returns the first of the results on most test users: all of them, unless folds of some methods are missing."""
    return max(results, key=lambda result: result.values["reward"].shape[1])


def baselines(result: MethodResult) -> dict[str, float]:
    """Returns the mean rewards of all baselines on the test users of a result, by label."""
    return {label: baseline(result, policy).mean("reward") for policy, label in BASELINES.items()}


def ratio(result: MethodResult, best_list: MethodResult | None = None) -> float:
    """Returns the mean reward in units of the best fixed list's on the same users; NaN where that is not positive."""
    best = (best_list or baseline(result, BEST_LIST)).mean("reward")
    return result.mean("reward") / best if best > 0 else float("nan")


def describe_problem(result: MethodResult) -> str:
    """Says on which data and users a result, and all that are compared with it, were tested."""
    data, settings = result.runs[0].data, result.runs[0].settings
    return (
        f"{data['name']}{kind_of(data)}, checksum {str(data['checksum'])[:19]}..., split seed "
        f"{settings.get(SPLIT_SEED)}, {describe_users(result)}, "
        f"{settings.get('env.episode_length')} recommendations each"
    )


def describe_users(result: MethodResult) -> str:
    """Says which share of the users a result was tested on, and how many they are."""
    settings, folds = result.runs[0].settings, folds_of(result.runs)
    if folds:
        share = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))} of {settings['data.folds']}"
    else:
        share = f"test fraction {settings.get('data.test_fraction')}"
    return f"{share}: {result.values['reward'].shape[1]:,} {USERS}"


def folds_of(runs: Iterable[RunRecord]) -> list[int]:
    """Returns the folds that runs were tested on, ascending; none for runs without folds."""
    return sorted({run.settings[FOLD] for run in runs if run.settings.get(FOLD) is not None})


def repetitions_of(runs: Sequence[RunRecord]) -> list[str]:
    """Returns the overrides that give missing runs the folds and seeds of those at hand."""
    seeds = sorted({run.settings["seed"] for run in runs}) or [0]
    found = {FOLD: folds_of(runs), "seed": seeds}
    return [f"{key}={','.join(map(str, values))}" for key, values in found.items() if values]

"""The results of finished runs, by method: what Table 2 and Figure 4 are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from harness.reports import run_list
from harness.reports.results import Estimate, estimate
from harness.reports.seed_results import SeedResults, check_same_episodes, values_of_seeds
from harness.runs import index as run_index
from harness.runs.composition import is_configuration, overrides_like, shell_command
from harness.runs.index import RunRecord, RunsFound, newest_of_each_seed, runs_of_system
from harness.runs.run_folder import read_arrays
from sim.evaluation.user_metrics import UserMetrics

RESULT = "eval.json"
METRICS = tuple(field.name for field in fields(UserMetrics))
OPPONENTS = {"best fixed list": "best_fixed_list", "random": "random"}
"""Policies that every run is evaluated beside, and the prefix of their arrays."""

_TRAIN = "tpgr_jax.train"
SPLIT_SEED = "data.split_seed"
_SAME_FOR_ALL = (
    *(
        SPLIT_SEED,
        "data.test_fraction",
        "data.validation",
        "data.relevant_above",
        "data.rating_min",
        "data.rating_max",
    ),
    *("env.episode_length", "env.reward_scale", "env.cold_start", "env.allow_repeats"),
)
# They say where and how, not what; whether the data are the same is told by their checksum and `_SAME_FOR_ALL`.
_WITHOUT_EFFECT = (
    *("seed", "num_seeds", "tree.seed", "env.rating_layout", "env.dense_limit_mb"),
    *("train.log_every", "train.evaluate_every", "train.checkpoint_every", "train.max_to_keep"),
)
_TYPES = {"env.alpha": (int, float), "seed": (int,), "agent.name": (str,)}
_ONLY_FOR_FILES = ("files", "archive", "member", "url", "checksum", "expected_users", "expected_items")


class Method(NamedTuple):
    """A method of the comparison: its label, and the file of `conf/agent` that makes it."""

    label: str
    preset: str


TPGR = Method("TPGR", "tpgr")
TPGR_PLUS = Method("TPGR+", "tpgr_plus")
METHODS = (
    Method("Popularity", "popularity"),
    Method("GreedySVD", "greedy_svd"),
    Method("LinearUCB", "linear_ucb"),
    Method("HLinearUCB", "hlinear_ucb"),
    Method("DDPG-KNN (k = 1)", "ddpg_knn_1"),
    Method("DDPG-KNN (k = 0.1N)", "ddpg_knn_tenth"),
    Method("DDPG-KNN (k = N)", "ddpg_knn_all"),
    Method("DDPG-R", "ddpg_r"),
    Method("DQN-R", "dqn_r"),
    TPGR,
    Method("GaussianPosterior", "gaussian_posterior"),
    TPGR_PLUS,
)
"""In the order of the paper's Table 2; the last two are not the paper's."""
ON_A_TREE = (TPGR.label, TPGR_PLUS.label)
"""Labels of our own methods: what the others are compared with."""


@dataclass(frozen=True)
class MethodResult(SeedResults):
    """What one method reached at one alpha with one or more seeds; values of users.

    Attributes:
        method: Label of the method alone.
        alpha: Weight of the sequential reward.
        opponents: By policy, [U] per metric: what the first run was evaluated beside, on the same test users; those of
            all splits in a row where there are several.
    """

    method: str
    alpha: float
    opponents: Mapping[str, Mapping[str, np.ndarray]]

    def opponent(self, policy: str, metric: str) -> Estimate:
        """Returns the mean over users of an opponent with its interval."""
        return estimate(self.opponents[policy][metric])

    @property
    def ratio(self) -> float:
        """Mean reward, in units of the best fixed list's on the same users; NaN where that is not positive."""
        best = float(np.mean(self.opponents["best_fixed_list"]["reward"]))
        return float(np.mean(self.values["reward"])) / best if best > 0 else float("nan")


def method_label(run: RunRecord) -> str:
    """Returns the name of a run's method as the paper writes it."""
    name = run.settings.get("agent.name")
    measure = run.settings.get("agent.policy.by")
    if name == "popularity" and measure not in (None, "average"):
        return f"Popularity ({measure})"
    if name == "ddpg_knn":
        k, fraction = run.settings.get("agent.policy.k"), run.settings.get("agent.policy.k_fraction")
        return f"DDPG-KNN (k = {k if k is not None else 'N' if fraction == 1 else f'{fraction}N'})"
    return next((method.label for method in METHODS if method.preset == name), str(name))


def without_effect(key: str) -> bool:
    """Says whether a setting, in dots, cannot set the results of runs on the same data apart, or is a seed."""
    return key.startswith(("data.", "devices.", "logger.")) or key in _WITHOUT_EFFECT


def comparable_runs(folders: Sequence[str] | None, data_name: str | None, several_splits: bool = False) -> RunsFound:
    """Finds the runs of this package, which must be about one data set, split and simulator.

    Args:
        folders: Where to search; None for the default places.
        data_name: Takes only runs on the data set of this name.
        several_splits: Allows different data.split_seed.

    Raises:
        UserError: No runs, or runs whose results cannot be mixed.
    """
    same = [key for key in _SAME_FOR_ALL if not (several_splits and key == SPLIT_SEED)]
    unless = {SPLIT_SEED: ", or let several splits count as repetitions with several_splits=true"}
    make_them = f"python -m {_TRAIN} -m +experiment=table2"
    return run_index.comparable_runs(tpgr_runs(folders), folders, data_name, same, make_them, unless)


def tpgr_runs(folders: Sequence[str] | None) -> RunsFound:
    """Finds the runs of this package, and no other system's.

    Raises:
        UserError: A folder that was named does not exist.
    """
    return runs_of_system(folders, RESULT, lambda run: "env.alpha" in run.settings, _TYPES)


def describe_unfinished(found: RunsFound) -> list[str]:
    """Says which runs have no result that could be used, and how to continue them."""
    return run_list.describe_unfinished(
        found, _TRAIN, lambda run: f"{method_label(run)}, alpha {run.settings['env.alpha']:g}"
    )


def read_results(
    runs: Sequence[RunRecord], label: str, method: str, alpha: float
) -> tuple[MethodResult, list[RunRecord]]:
    """Reads the per-user results of runs that are equal but for their seed (and, where that is allowed, their split).

    Returns:
        The result, and the runs that repeat a seed and were left out for a newer one.

    Raises:
        UserError: A file is missing, damaged, or of other test users than another one of the same split.
    """
    kept, repeated = newest_of_each_seed(runs, RESULT, SPLIT_SEED)
    prefixes = ("", *(f"{policy}_" for policy in OPPONENTS.values()))
    names = [f"{prefix}{metric}" for prefix in prefixes for metric in METRICS]
    read = [read_arrays(run.folder.path / "eval.npz", [*names, "user"]) for run in kept]
    of_splits = check_same_episodes(
        kept, read, "eval.npz", "user", "test users", "tpgr_jax.evaluate", lambda run: run.settings.get(SPLIT_SEED)
    )
    values = values_of_seeds(read, METRICS)
    opponents = {
        policy: {metric: np.concatenate([arrays[f"{policy}_{metric}"] for arrays in of_splits]) for metric in METRICS}
        for policy in OPPONENTS.values()
    }
    return MethodResult(label, kept, values, method, alpha, opponents), repeated


def is_synthetic(runs: Sequence[RunRecord]) -> bool:
    """Says whether any of the runs learned from generated ratings."""
    return any(run.data.get("synthetic") for run in runs)


def describe_problem(result: MethodResult) -> str:
    """Says on which data and users a result, and all that are compared with it, were tested."""
    data, settings = result.runs[0].data, result.runs[0].settings
    kind = " (SYNTHETIC)" if data["synthetic"] else ""
    splits = dict.fromkeys(run.settings.get(SPLIT_SEED) for run in result.runs)
    return (
        f"{data['name']}{kind}, checksum {str(data['checksum'])[:19]}..., split seed "
        f"{', '.join(map(str, splits))}, test fraction {settings.get('data.test_fraction')}: "
        f"{result.values['reward'].shape[1]:,} test users, {settings.get('env.episode_length')} recommendations each"
    )


def training_command(
    reference: RunRecord | None, method: Method, alpha: float, more: Sequence[str] = (), like_reference: bool = False
) -> str:
    """Returns the command line that makes a missing run.

    Args:
        reference: A run whose data and simulator it is to share; None for the experiment on MovieLens-1M.
        method: Which agent.
        alpha: Weight of the sequential reward.
        more: Further overrides; a group among them is taken as it is, whatever the reference has there.
        like_reference: Whether agent, tree and schedule, too, are to be those of the reference, which is a run of the
            same method.
    """
    data, agent = _data_choice(reference), f"agent={method.preset}"
    chosen = [*data, agent, *more]
    last = [f"env.alpha={alpha:g}", "seed=0"]
    if reference is None:
        return shell_command(_TRAIN, [*chosen, *last])
    # The preset says nothing about data and simulator; for these any agent will do, also where the preset is gone.
    whole = like_reference and is_configuration("agent", method.preset)
    base = [*data, agent] if whole else data
    sections = ("data", "env", "tree", "agent", "train") if whole else ("data", "env")
    replaced = [override.split("=")[0] for override in more]
    relevant = _makes_a_difference(reference, sections, replaced)
    return shell_command(_TRAIN, [*chosen, *overrides_like("train", base, reference.values, relevant), *last])


def _data_choice(reference: RunRecord | None) -> list[str]:
    """Returns the overrides that choose the data set of a run."""
    name = "movielens_1m" if reference is None else str(reference.settings.get("data.name"))
    if name == "movielens_1m":
        return ["+experiment=movielens"]
    reader = reference.settings.get("data.reader") if reference is not None else None
    if not is_configuration("data", name):
        name = "synthetic" if reader == "synthetic" else "ratings_file"
    return [*(["+experiment=movielens"] if name.startswith("movielens") else []), f"data={name}"]


def _makes_a_difference(
    reference: RunRecord, sections: Sequence[str], replaced: Sequence[str]
) -> Callable[[str], bool]:
    generated = reference.settings.get("data.reader") == "synthetic"

    def relevant(key: str) -> bool:
        section, _, name = key.partition(".")
        if section not in sections or key in ("env.alpha", "data.offline_fallback", "data.fallback_size", "tree.seed"):
            return False
        if generated and section == "data" and name in (*_ONLY_FOR_FILES, "expected_ratings", "root", "cache"):
            return False
        return not any(key == other or section == other for other in replaced)

    return relevant

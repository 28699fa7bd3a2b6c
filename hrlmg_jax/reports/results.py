"""The results of finished runs, by method: what the figures are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from harness.reports import run_list
from harness.reports.seed_results import SeedResults, check_same_episodes, values_of_seeds
from harness.reports.tables import Cell, kind_of
from harness.runs import index as run_index
from harness.runs.composition import is_configuration, unlike_composed
from harness.runs.index import (
    RunRecord,
    RunsFound,
    Status,
    finished,
    group_by_settings,
    label_of,
    newest_of_each_seed,
    runs_of_system,
)
from harness.runs.run_folder import read_arrays

RESULT = "online.json"
TRAIN = "hrlmg_jax.train"
POPULARITY = "popularity"

LABELS = {
    "random": "Random",
    "popularity": "Popularity",
    "best_rate": "Best rate",
    "count": "Popularity (count)",
    "dnn": "DNN",
    "ddpg": "DDPG",
    "hrl": "HRL",
    "hrl_mg": "HRL-MG",
    "hrl_mg_frozen": "HRL-MG (goals frozen)",
    "hrl_mg_alpha0": "HRL-MG (alpha = 0)",
    "hrl_mg_conditioned": "HRL-MG (goals seen)",
    "ddpg_memory": "DDPG (memory)",
    "hrl_mg_memory": "HRL-MG (memory)",
    "hrl_mg_memory_frozen": "HRL-MG (memory, goals frozen)",
    "hrl_mg_memory_alpha0": "HRL-MG (memory, alpha = 0)",
    "dnn_paper": "DNN (paper)",
    "ddpg_paper": "DDPG (paper)",
    "hrl_paper": "HRL (paper)",
    "hrl_mg_paper": "HRL-MG (paper)",
    "greedy_oracle": "Greedy oracle",
    "planner": "Planner",
}
"""Names of methods and opponents as tables write them; other names stay as they are."""
WITHOUT_SEED = ("random", "popularity", "best_rate", "count", "greedy_oracle", "planner")
"""Methods that neither train nor draw from their seed."""
_POPULARITY_BY = {"average": "best_rate", "count": "count"}

_SAME_LOG = ("data.split", "data.train_days", "data.test_quantile", "data.order_proxy")
_SAME_SECTIONS = ("env.", "simulator.")
# They say where and how, not what. `train.evaluate_every` has an effect: the best actors are those of an evaluation.
_WITHOUT_EFFECT = (
    *("seed", "num_seeds", "simulator.root", "evaluation.sessions_at_a_time"),
    *("train.log_every", "train.checkpoint_every", "train.max_to_keep"),
)
_TYPES = {"agent.name": (str,), "seed": (int,)}


@dataclass(frozen=True)
class FigureConfig:
    """Which runs a figure shows (`conf/report/of_runs.yaml`)."""

    report: str
    runs: list[str] | None
    data_name: str | None
    out: str


class ComparedTest(NamedTuple):
    """A test that a run ends with.

    Attributes:
        file: Name of its files in the run folder, without ending.
        metrics: Its metrics by the names of their arrays, with the names for people; the first one ranks methods.
        same: Settings, in dots, that must agree for results to be comparable.
        digits: After the decimal point, in tables.
    """

    file: str
    metrics: Mapping[str, str]
    same: Sequence[str]
    digits: int


LENGTHS = ("long", "short")
_PER_SESSION = ("reward", "clicks", "orders")
_ONLINE = {f"{length}_{metric}": f"{metric}, {length} sessions" for length in LENGTHS for metric in _PER_SESSION}
_OF_ONLINE = ("evaluation.short", "evaluation.long", "evaluation.sessions")
ONLINE = ComparedTest("online", _ONLINE, _OF_ONLINE, 3)
ONLINE_TRUTH = ComparedTest("online_truth", _ONLINE, _OF_ONLINE, 3)
_OF_OFFLINE = {"map": "MAP", "ndcg20": "NDCG@20", "ndcg40": "NDCG@40"}
OFFLINE = ComparedTest("offline", _OF_OFFLINE, ("evaluation.offline_sessions",), 4)


def metrics_of(length: str) -> dict[str, str]:
    """Returns the metrics of the online test in long or short sessions, by the names of their arrays."""
    return {f"{length}_{metric}": metric for metric in _PER_SESSION}


class MethodRuns(NamedTuple):
    """Runs that are equal but for their seed.

    Attributes:
        label: The method, with `distinction`.
        name: See `method_name`.
        distinction: Settings, in dots, that tell it from its other variants and that its preset does not have; none
            where it has no variants.
        runs: The runs.
    """

    label: str
    name: str
    distinction: Mapping[str, Any]
    runs: Sequence[RunRecord]


@dataclass(frozen=True)
class MethodResult(SeedResults):
    """What one method, or an opponent that runs were tested beside, reached with one or more seeds; values of sessions.

    Attributes:
        name: See `method_name`; of an opponent its name in the files.
        distinction: See `MethodRuns`.
        popularity: [n] per metric for each run (of an opponent: for the run that it was read from): what the fixed list
            of popular items reached in the same file; empty where it did not take part.
    """

    name: str
    distinction: Mapping[str, Any]
    popularity: Sequence[Mapping[str, np.ndarray]]

    @property
    def seedless(self) -> bool:
        """See `SeedResults`; known of what neither trains nor draws from its seed."""
        return super().seedless or (self.name in WITHOUT_SEED and not self.seed_matters)

    def ratios(self, metric: str) -> list[float]:
        """Returns the mean of each run in units of popularity's; NaN where that did not take part or got nothing."""
        means = np.broadcast_to(self.values[metric].mean(axis=1), len(self.popularity))
        references = [float(np.mean(found[metric])) if found else 0.0 for found in self.popularity]
        return [
            float(mean) / reference if reference > 0 else float("nan")
            for mean, reference in zip(means, references, strict=True)
        ]


Variant = TypeVar("Variant", MethodRuns, MethodResult)


class Collected(NamedTuple):
    """Results of one test.

    Attributes:
        results: Of the methods, in the order of `group_methods`.
        opponents: Of the policies that runs were tested beside and that are no method's own result, each once.
        left_out: Why runs do not count.
        warnings: What casts doubt on the comparison.
    """

    results: list[MethodResult]
    opponents: list[MethodResult]
    left_out: list[str]
    warnings: list[str]


def method_name(run: RunRecord) -> str:
    """Returns the name of a run's method in its results (`AgentSettings.result_name`)."""
    name = str(run.settings["agent.name"])
    if name == POPULARITY:
        return _POPULARITY_BY.get(str(run.settings.get("agent.policy.by")), name)
    return name


def method_label(run: RunRecord) -> str:
    """Returns the name of a run's method as tables write it."""
    name = method_name(run)
    return LABELS.get(name, name)


def has_goals(run: RunRecord) -> bool:
    """Says whether a run's method has a high level, whose settings are numbers."""
    numbers = [run.settings.get(key) for key in ("agent.goals.count", "agent.goals.intrinsic_weight")]
    return run.settings.get("agent.goals.enabled") is True and all(type(number) in (int, float) for number in numbers)


def without_effect(key: str) -> bool:
    """Says whether a setting, in dots, cannot set the results of comparable runs apart, or is the seed."""
    return key.startswith(("data.", "devices.", "logger.")) or key in _WITHOUT_EFFECT


def hrl_mg_runs(folders: Sequence[str] | None) -> RunsFound:
    """Finds the runs of this package, and no other system's; simulators are no runs.

    Raises:
        UserError: A folder that was named does not exist.
    """

    def belongs(run: RunRecord) -> bool:
        simulated = any(key.startswith("simulator.") for key in run.settings)
        return simulated and "env.alpha" not in run.settings and any(key.startswith("agent.") for key in run.settings)

    found = runs_of_system(folders, RESULT, belongs, _TYPES)
    runs = [_with_later_settings(run) for run in found.runs if _is_described(run)]
    unclear = [f"{run.folder.path}: its files do not describe the data" for run in found.runs if not _is_described(run)]
    return RunsFound(runs, [*found.unreadable, *unclear])


def comparable_runs(
    folders: Sequence[str] | None, data_name: str | None, same: Sequence[str], experiment: str
) -> RunsFound:
    """Finds the runs of this package, which must be about one log, its split, its users and their simulator.

    Args:
        folders: Where to search; None for the default places.
        data_name: Takes only runs on the data set of this name.
        same: More settings, in dots, that must agree: those of the test.
        experiment: What to make runs with, for whoever has none.

    Raises:
        UserError: No runs, or runs whose results cannot be mixed.
    """
    found = hrl_mg_runs(folders)
    keys = dict.fromkeys(key for run in found.runs for key in run.settings if key.startswith(_SAME_SECTIONS))
    keys.pop("simulator.root", None)
    make_them = f"python -m {TRAIN} -m +experiment={experiment}"
    return run_index.comparable_runs(found, folders, data_name, [*_SAME_LOG, *keys, *same], make_them)


def describe_unfinished(found: RunsFound) -> list[str]:
    """Says which runs have no result that could be used, and how to continue them."""
    return run_list.describe_unfinished(found, TRAIN, method_label)


def group_methods(runs: Sequence[RunRecord]) -> list[MethodRuns]:
    """Returns runs by method and by variant of it, in the order of `LABELS`."""
    names = sorted({method_name(run) for run in runs}, key=_place)
    methods = []
    for name in names:
        for group in group_by_settings([run for run in runs if method_name(run) == name], without_effect):
            distinction = unlike_preset(name, group.distinction)
            methods.append(MethodRuns(label_of(LABELS.get(name, name), distinction), name, distinction, group.runs))
    return methods


def unlike_preset(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of some settings, in dots, that `agent=NAME` would not have."""
    agent = [f"agent={name}"] if is_configuration("agent", name) else []
    return unlike_composed("train_hrl_mg", agent, settings) if settings else {}


def preset(methods: Sequence[Variant], name: str) -> Variant | None:
    """Returns the variant of a method that is nearest to `conf/agent/NAME.yaml`, if the method is there.

    Of equally near ones it is the one with most runs.
    """
    variants = [method for method in methods if method.name == name]
    return min(variants, key=lambda method: (len(method.distinction), -len(method.runs)), default=None)


def read_results(methods: Sequence[MethodRuns], test: ComparedTest) -> Collected:
    """Reads the per-session results of a test; all must be about the same sessions.

    Raises:
        UserError: A file is damaged, or of other sessions than another one.
    """
    chosen = [_tested_runs(method, test) for method in methods]
    tested = [one for own, _ in chosen for one in own]
    runs, arrays = [one.run for one in tested], [one.arrays for one in tested]
    check_same_episodes(runs, arrays, f"{test.file}.npz", "row", "test sessions", "hrlmg_jax.evaluate")
    metrics = list(test.metrics)
    results = [
        MethodResult(
            method.label,
            [one.run for one in own],
            values_of_seeds([one.arrays for one in own], metrics),
            method.name,
            method.distinction,
            [one.policy(POPULARITY, test) for one in own],
        )
        for method, (own, _) in zip(methods, chosen, strict=True)
        if own
    ]
    opponents, warnings = [], []
    for name in sorted({name for one in tested for name in one.opponents(test)}, key=_place):
        beside = [one for one in tested if name in one.opponents(test)]
        warnings += _unequal(name, beside, test)
        if name not in {result.name for result in results}:
            values = values_of_seeds([beside[0].policy(name, test)], metrics)
            popularity = [beside[0].policy(POPULARITY, test)]
            opponents.append(MethodResult(LABELS.get(name, name), [], values, name, {}, popularity))
    return Collected(results, opponents, [line for _, left_out in chosen for line in left_out], warnings)


def describe_problem(runs: Sequence[RunRecord]) -> str:
    """Says on which log comparable runs were trained and tested; empty where none tells."""
    run = next((run for run in runs if run.data), None)
    if run is None:
        return ""
    return (
        f"{run.data_name}{kind_of(run.data)}, checksum {str(run.data['checksum'])[:19]}..., split by "
        f"{run.settings.get('data.split')}, simulator seed {run.settings.get('simulator.seed')}."
    )


def users_of(run: RunRecord, test: ComparedTest) -> str:
    """Says who answered in an online test."""
    truth = test is ONLINE_TRUTH or run.settings.get("env.users") == "truth"
    return "the generator's truth" if truth else "learned from the log"


def title_of(figure: str, runs: Sequence[RunRecord]) -> str:
    """Returns a report's title with the data set, and whether it is real."""
    run = next((run for run in runs if run.data), None)
    return figure if run is None else f"{figure}: {run.data_name}{kind_of(run.data)}"


DATA_HEADS = ("data", "synthetic", "synthetic_skips", "order_proxy", "checksum")
"""Of `describe_data`."""


def describe_data(runs: Sequence[RunRecord]) -> list[Cell]:
    """Returns what every row of a CSV says about the log of comparable runs."""
    run = next((run for run in runs if run.data), None)
    if run is None:
        return [None] * len(DATA_HEADS)
    kinds = (bool(run.data["synthetic"]), bool(run.data["synthetic_skips"]), run.data.get("order_proxy", ""))
    return [run.data_name, *kinds, run.data["checksum"]]


def _place(name: str) -> tuple[bool, int, str]:
    order = list(LABELS)
    return (name not in order, order.index(name) if name in order else 0, name)


def _is_described(run: RunRecord) -> bool:
    return "synthetic_skips" in run.data or (not run.data and run.status is not Status.FINISHED)


def _with_later_settings(run: RunRecord) -> RunRecord:
    """Returns the run with the settings of its log that came after the first runs were made."""
    data = run.values.get("data")
    if not isinstance(data, dict):
        return run
    return dataclasses.replace(run, values={**run.values, "data": {"order_proxy": [], **data}})


class _Tested(NamedTuple):
    """A run, and what a test of it left: the sessions' rows and all policies' metrics."""

    run: RunRecord
    arrays: dict[str, np.ndarray]

    def opponents(self, test: ComparedTest) -> list[str]:
        """Returns the policies whose metrics have a prefix in the arrays."""
        first = f"_{next(iter(test.metrics))}"
        names = [name.removesuffix(first) for name in self.arrays if name.endswith(first)]
        return [name for name in names if all(f"{name}_{metric}" in self.arrays for metric in test.metrics)]

    def policy(self, name: str, test: ComparedTest) -> dict[str, np.ndarray]:
        """Returns the metrics of an opponent or of the run's own method; none of a policy that did not take part."""
        if name in self.opponents(test):
            return {metric: self.arrays[f"{name}_{metric}"] for metric in test.metrics}
        return {metric: self.arrays[metric] for metric in test.metrics} if name == method_name(self.run) else {}


def _tested_runs(method: MethodRuns, test: ComparedTest) -> tuple[list[_Tested], list[str]]:
    """Returns the newest finished run of each seed with its arrays, and why other finished runs do not count."""
    arrays, left_out = {}, []
    for run in finished(method.runs):
        path = run.folder.path / f"{test.file}.npz"
        found = read_arrays(path, partial(_is_read, test)) if path.exists() else {}
        if {"row", *test.metrics} <= found.keys():
            arrays[run.folder.path] = found
        else:
            left_out.append(f"{run.folder.path}: has no result in {path.name}")
    with_result = [run for run in method.runs if run.folder.path in arrays]
    newest, repeated = newest_of_each_seed(with_result, RESULT)
    left_out += [f"{run.folder.path}: an older repetition of seed {run.settings['seed']}" for run in repeated]
    return [_Tested(run, arrays[run.folder.path]) for run in newest], left_out


def _is_read(test: ComparedTest, name: str) -> bool:
    return name == "row" or name.endswith(tuple(test.metrics))


def _unequal(name: str, beside: Sequence[_Tested], test: ComparedTest) -> list[str]:
    """Says so where an opponent, which is the same for all runs, has different results beside them."""
    metric = next(iter(test.metrics))
    means = [float(np.mean(one.policy(name, test)[metric])) for one in beside]
    if max(means) == min(means):
        return []
    low, high = (beside[int(place)].run.folder.path for place in (np.argmin(means), np.argmax(means)))
    lowest, highest = (f"{extreme(means):.{test.digits}f}" for extreme in (min, max))
    return [
        f"{LABELS.get(name, name)} got {lowest} beside {low} and {highest} beside {high} ({test.metrics[metric]}): "
        "their simulators or machines are not quite the same"
    ]

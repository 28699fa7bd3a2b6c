"""What reports must know of HRL-MG's runs: methods, tests, which runs can be compared, and how to make missing ones."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.reports.method_results import MethodRuns
from harness.reports.system_results import Collected, ComparedTest, Rerun, System, preset
from harness.reports.tables import kind_of
from harness.runs.composition import is_configuration, sweep_of
from harness.runs.index import RunRecord, RunsFound, Status
from harness.runs.run_folder import read_json
from hrlmg_jax.evaluation.trust_scores import warning, warning_of_users
from hrlmg_jax.reports.worlds import SAME_IN_ALL_WORLDS, WORLD, WorldsConfig, check_worlds, over_worlds
from hrlmg_jax.sessions import BUILT_OTHERWISE

POPULARITY = "popularity"
LABELS = {
    "random": "Random",
    "popularity": "Popularity",
    "best_rate": "Best rate",
    "count": "Popularity (count)",
    "dnn": "DNN",
    "ddpg": "DDPG",
    "ddpg_critic": "DDPG (LCritic decides)",
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
    "hrl_mg_paper_updates": "HRL-MG (paper, Algorithm 2's updates)",
    "greedy_oracle": "Greedy oracle",
    "planner": "Planner",
    "python": "Python function",
}
"""Names of methods and baselines as tables write them; other names stay as they are."""
WITHOUT_SEED = ("random", "popularity", "best_rate", "count", "greedy_oracle", "planner", "python")
"""Methods that neither train nor draw from their seed."""
BASELINES = ("random", "popularity", "best_rate")
"""Baselines of every run that know no user."""
_POPULARITY_BY = {"average": "best_rate", "count": "count"}

_USERS = "simulator.json"  # `user_model.store.REPORT`, which would import what fits users
LENGTHS = ("long", "short")
_PER_SESSION = ("reward", "clicks", "orders")
ONLINE = ComparedTest(
    "online",
    {f"{length}_{metric}": f"{metric}, {length} sessions" for length in LENGTHS for metric in _PER_SESSION},
    episode="row",
    episodes="test sessions",
    same=("evaluation.short", "evaluation.long", "evaluation.sessions"),
    digits=3,
)
ONLINE_TRUTH = ONLINE._replace(file="online_truth")
ONLINE_TESTS = (ONLINE_TRUTH, ONLINE)
"""The users who wrote the log, where they are known, come before those who were learned from it."""
OFFLINE = ComparedTest(
    "offline",
    {"map": "MAP", "ndcg20": "NDCG@20", "ndcg40": "NDCG@40"},
    episode="row",
    episodes="test sessions",
    same=("evaluation.offline_sessions",),
)
_SAME_LOG = ("data.split", "data.train_days", "data.test_quantile", "data.order_proxy")
COUNT, WEIGHT, PERIOD = "agent.goals.count", "agent.goals.intrinsic_weight", "agent.goals.period"


def metrics_of(length: str) -> dict[str, str]:
    """Returns the metrics of the online test in long or short sessions, by the names of their arrays."""
    return {f"{length}_{metric}": metric for metric in _PER_SESSION}


def method_name(run: RunRecord) -> str:
    """Returns the name of a run's method in its results (`AgentSettings.result_name`)."""
    name = str(run.settings["agent.name"])
    if name == "python":
        return str(run.settings.get("agent.label") or name)
    if name == POPULARITY:
        return _POPULARITY_BY.get(str(run.settings.get("agent.policy.by")), name)
    return name


def has_goals(run: RunRecord) -> bool:
    """Says whether a run's method has a high level, whose settings are numbers."""
    numbers = [run.settings.get(key) for key in (COUNT, WEIGHT)]
    return run.settings.get("agent.goals.enabled") is True and all(type(number) in (int, float) for number in numbers)


def _choose_data(run: RunRecord | None) -> list[str]:
    name = "synthetic_funnel" if run is None else str(run.settings.get("data.name"))
    if run is not None and not is_configuration("data", name):
        name = "synthetic_funnel" if run.settings.get("data.reader") == "synthetic_funnel" else "events_csv"
    return [f"data={name}"]


def _belongs(run: RunRecord) -> bool:
    simulated = any(key.startswith("simulator.") for key in run.settings)  # a simulator's own folder has no agent
    return simulated and "env.alpha" not in run.settings and any(key.startswith("agent.") for key in run.settings)


SYSTEM = System(
    train="hrlmg_jax.train",
    evaluate="hrlmg_jax.evaluate",
    config="train_hrl_mg",
    experiment="figure8",
    result="online.json",
    belongs=_belongs,
    types={"agent.name": (str,), "seed": (int,)},
    data_facts={"name": "data"}
    | {key: key for key in ("synthetic", "synthetic_skips", "order_proxy", "feedback_proxy", "checksum")},
    labels=LABELS,
    name_of=method_name,
    columns={
        "alpha": lambda run: f"{run.settings[WEIGHT]:g}" if has_goals(run) else "",
        "M": lambda run: f"{run.settings[COUNT]:g}" if has_goals(run) else "",
    },
    metric="validation_reward",
    tested="long_reward",
    seedless=WITHOUT_SEED,
    splits=(WORLD,),
    # They say where and how, not what. `train.evaluate_every` has an effect: the best actors are those of an
    # evaluation.
    without_effect=(
        *("data.", "items.", "devices.", "logger.", "second_simulator."),
        *("seed", "num_seeds", "simulator.root", "simulator.trial_sessions", "evaluation.sessions_at_a_time"),
        "evaluation.final",
        *("train.log_every", "train.checkpoint_every", "train.max_to_keep"),
    ),
    choose_data=_choose_data,
    problem_sections=("data", "env", "simulator", "train", "evaluation"),
    method_sections=("agent",),
)


def hrl_mg_runs(folders: Sequence[str] | None) -> RunsFound:
    """Finds the runs of this package, and no other system's; simulators are no runs.

    Raises:
        UserError: A folder that was named does not exist.
    """
    found = SYSTEM.runs(folders)
    problems = {run.folder.path: _problem(run) for run in found.runs}
    runs = [_with_later_settings(run) for run in found.runs if not problems[run.folder.path]]
    unclear = [f"{path}: {problem}" for path, problem in problems.items() if problem]
    return RunsFound(runs, [*found.unreadable, *unclear])


def comparable_runs(config: WorldsConfig, same: Sequence[str]) -> RunsFound:
    """Finds the runs of a report, which must be about one log (or several worlds), its split, users and simulator.

    Args:
        same: More settings, in dots, that must agree: those of the test.

    Raises:
        UserError: No runs, or runs whose results cannot be mixed.
    """
    found = hrl_mg_runs(config.runs)
    keys = dict.fromkeys(key for run in found.runs for key in run.settings if key.startswith(("env.", "simulator.")))
    for key in ("simulator.root", "simulator.trial_sessions"):
        keys.pop(key, None)
    several = config.several_worlds
    check_worlds([run for run in found.runs if config.data_name in (None, run.data_name)], several)
    every = [*_SAME_LOG, *(SAME_IN_ALL_WORLDS if several else ()), *keys, *same]
    return SYSTEM.comparable(config, found, every, worlds=(WORLD,) if several else ())


def read(methods: Sequence[MethodRuns], test: ComparedTest, several_worlds: bool) -> Collected:
    """Reads the results of a test, see `System.read`; of several worlds one value for each."""
    collected = SYSTEM.read(methods, test)
    return over_worlds(collected, [run for method in methods for run in method.runs]) if several_worlds else collected


def trust_warnings(runs: Sequence[RunRecord]) -> list[str]:
    """Returns a sentence for each run whose agent may live on the mistakes of its learned users, and about these users.

    Raises:
        UserError: A file is damaged.
    """
    lines, of_users = [], Counter[str]()
    for run in runs:
        signals = _signals(run, f"{ONLINE.file}.json")
        said = [line for name, of in signals.items() if (line := warning(name, of))]
        lines += [f"{run.folder.path.name}: {line}" for line in said]
        if said_of_users := warning_of_users(_signals(run, _USERS)):
            of_users[said_of_users] += 1
    return lines + [f"learned users (runs: {number}): {line}" for line, number in of_users.items()]


def _signals(run: RunRecord, name: str) -> dict[str, Any]:
    """Returns the signals by policy that one of a run's files has."""
    path = run.folder.path / name
    found = read_json(path) if path.exists() else {}
    signals = found.get("signals", {}) if isinstance(found, dict) else {}
    return signals if isinstance(signals, dict) else {}


def missing_methods(methods: Sequence[MethodRuns], report: str, several_worlds: bool = False) -> list[Rerun]:
    """Returns the methods of a report's experiment, and seeds of them, that have no run.

    Of methods on which the seed has no effect, the first seed is enough; in each of several worlds it is of all.

    Args:
        methods: What there is; at least one run.
        report: Name of the report.
        several_worlds: Whether every world has runs of its own.
    """
    if several_worlds:
        return [one for world in by_world(methods) for one in _missing_methods(world, report, 1)]
    return _missing_methods(methods, report, None)


def by_world(methods: Sequence[MethodRuns]) -> list[list[MethodRuns]]:
    """Returns the methods with their runs in each world, worlds in order."""
    worlds = sorted({run.settings[WORLD] for method in methods for run in method.runs})
    parts = [
        [one._replace(runs=[run for run in one.runs if run.settings[WORLD] == world]) for one in methods]
        for world in worlds
    ]
    return [[one for one in part if one.runs] for part in parts]


def _missing_methods(methods: Sequence[MethodRuns], report: str, seeds: int | None) -> list[Rerun]:
    swept = sweep_of(SYSTEM.experiment if report == "figure7" else report)
    furthest = max((run for method in methods for run in method.runs), key=lambda run: run.step)
    missing = []
    for name in swept["agent"]:
        method = preset(methods, name)
        runs = method.runs if method else []
        if last := missing_seeds(runs, swept["seed"][: 1 if name in WITHOUT_SEED else seeds]):
            missing.append(Rerun(name, runs[0] if runs else furthest, [], last, like_reference=bool(runs)))
    return missing


def missing_seeds(runs: Sequence[RunRecord], wanted: Sequence[int]) -> list[str]:
    """Returns the override for the seeds that no run has, if any; an unfinished run only has to be continued."""
    present = {run.settings["seed"] for run in runs}
    absent = [str(seed) for seed in wanted if seed not in present]
    return [f"seed={','.join(absent)}"] if absent else []


def describe_problem(runs: Sequence[RunRecord]) -> str:
    """Says on which log comparable runs were trained and tested; empty where none tells."""
    run = next((run for run in runs if run.data), None)
    if run is None:
        return ""
    worlds = sorted({int(one.settings[WORLD]) for one in runs if one.data and WORLD in one.settings})
    if len(worlds) > 1:
        log = f"{len(worlds)} worlds ({WORLD}={', '.join(map(str, worlds))})"
    else:
        log = f"checksum {str(run.data['checksum'])[:19]}..."
    return (
        f"{run.data_name}{kind_of(run.data)}, {log}, split by {run.settings.get('data.split')}, simulator seed "
        f"{run.settings.get('simulator.seed')}."
    )


def users_of(run: RunRecord, test: ComparedTest) -> str:
    """Says who answered in an online test."""
    truth = test is ONLINE_TRUTH or run.settings.get("env.users") == "truth"
    return "the generator's truth" if truth else "learned from the log"


def _problem(run: RunRecord) -> str:
    """Says why a run cannot be compared with others; empty if it can."""
    if "synthetic_skips" in run.data:
        return "" if "table" in run.data else BUILT_OTHERWISE
    return "" if not run.data and run.status is not Status.FINISHED else "its files do not describe the data"


def _with_later_settings(run: RunRecord) -> RunRecord:
    """Returns the run with the settings of its log that came after the first runs were made."""
    data = run.values.get("data")
    if not isinstance(data, dict):
        return run
    return dataclasses.replace(run, values={**run.values, "data": {"order_proxy": [], **data}})

"""What the lists of compared methods are like, as sections of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.reports.method_results import MethodResult
from harness.reports.tables import markdown_list, markdown_table, markdown_text
from harness.runs.index import RunRecord
from harness.runs.run_folder import read_json
from sim.evaluation.list_metrics import HEADS

_ACTIVITY = {"least": "least active users", "middle": "middle third", "most": "most active users"}
_POPULARITY = {"head": "most popular items", "middle": "middle third", "tail": "least popular items"}
_NOTE = (
    "Means over runs of the greedy policy. Coverage: share of the catalogue that anybody was recommended. Gini: 0, all "
    "items equally often; near 1, few items only. Novelty: bits, how few training users know an item. Distance within: "
    "1 - cosine of two items of a list, by who knows them. Distinct: different lists per 100 users."
)
_REWARD_NOTE = (
    "Reward per recommendation by thirds of the users (by how much the data know of them) and of the items (each third "
    "has as many training entries); in brackets the share of the recommendations."
)


def lists_section(
    results: Sequence[MethodResult], baselines: Sequence[MethodResult], file: str, evaluate: str
) -> list[str]:
    """Returns Markdown with two tables: what lists are like, and reward by activity and popularity.

    Args:
        results: Of methods.
        baselines: Of the policies beside them; a row is the mean over the runs of the first method that has it.
        file: Name of the test's files in a run folder, without ending.
        evaluate: The module that evaluates: runs of earlier versions do not describe their lists.
    """
    # What each run says, its own policy first.
    stored = {id(result): [_lists_of(run, file) for run in result.runs] for result in results}
    found = {result.label: [next(iter(lists.values())) for lists in stored[id(result)] if lists] for result in results}
    for baseline in baselines:
        beside = ([lists[baseline.name] for lists in of_runs if baseline.name in lists] for of_runs in stored.values())
        found[baseline.label] = next(filter(None, beside), [])
    silent = sum(not lists for of_runs in stored.values() for lists in of_runs)

    # The tables.
    rows = {label: lists for label, lists in found.items() if lists}
    lines = ["", "### What the lists are like", ""]
    if rows:
        shown = [[label, *(_mean(lists, name) for name in HEADS)] for label, lists in rows.items()]
        lines += [markdown_text(_NOTE), "", *markdown_table(["method", *HEADS.values()], shown), ""]
        lines += ["### Reward by activity and popularity", "", markdown_text(_REWARD_NOTE), ""]
        heads = ["method", *_ACTIVITY.values(), *_POPULARITY.values()]
        lines += [*markdown_table(heads, [[label, *_thirds(lists)] for label, lists in rows.items()]), ""]
    if silent:
        runs = "1 run does" if silent == 1 else f"{silent} runs do"
        lines += markdown_list([f"{runs} not describe lists (of an earlier version): python -m {evaluate} run=FOLDER"])
    return lines if rows or silent else []


def _lists_of(run: RunRecord, file: str) -> dict[str, Mapping[str, Any]]:
    """Returns `list_metrics` by policy; empty of an evaluation that has none."""
    path = run.folder.path / f"{file}.json"
    content = read_json(path) if path.exists() else None
    lists = content.get("lists") if isinstance(content, dict) else None
    if not isinstance(lists, dict):
        return {}
    return {name: metrics for name, metrics in lists.items() if isinstance(metrics, dict)}


def _thirds(lists: Sequence[Mapping[str, Any]]) -> list[str]:
    rewards = [_mean(lists, "reward_by_activity", third) for third in _ACTIVITY]
    for third in _POPULARITY:
        reward, share = (_mean(lists, "by_popularity", third, what) for what in ("reward", "share"))
        rewards.append(f"{reward} ({float(share):.0%})" if share else reward)
    return rewards


def _mean(lists: Sequence[Mapping[str, Any]], *keys: str) -> str:
    """Returns the mean over runs of a number under nested keys; empty if none has it."""
    numbers = []
    for metrics in lists:
        value: Any = metrics
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)):
            numbers.append(float(value))
    return f"{np.mean(numbers):.4f}" if numbers else ""

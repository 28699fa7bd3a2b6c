"""The trust bench over worlds: a world is the unit, and policies that are far off are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.reports.results import estimate
from harness.reports.tables import markdown_table, markdown_text

_NOTE = (
    "Learned / true is of reward; of every world the median over policies, then their mean over worlds, ±: 95 % "
    "t-interval over worlds. Kept: true reward of an agent that was trained in learned users over that of one trained "
    "on true users. Far off: the policies that are not within 25 % in most worlds, with their mean ratio."
)
_NAMED = 4


def over_worlds_section(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line for each kind of true users, shop, kind of learned users and length; none for a single world.

    Args:
        entries: Logs of the bench; those of earlier versions, which do not say what moves their true users, are of
            trust.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry.get("dynamics", "trust"), entry["shop"], entry["simulator"]), []).append(entry)
    if all(len(alike) < 2 for alike in groups.values()):
        return []
    heads = ["true users", "shop", "simulator", "worlds", "steps", "learned / true", "policies within 25 %"]
    heads += ["Spearman, mean (least)", "regret", "kept", "far off"]
    rows = [
        [*kind, str(len(alike)), length, *_cells(alike, length)]
        for kind, alike in groups.items()
        for length in alike[0]["agreement"]
    ]
    return ["## Over worlds", "", markdown_text(_NOTE), "", *markdown_table(heads, rows)]


def _cells(alike: Sequence[dict[str, Any]], length: str) -> list[str]:
    found = [entry["agreement"][length]["reward"] for entry in alike]
    orders = [one["spearman"] for one in found if one["spearman"] is not None]
    within, policies = (sum(one[key] for one in found) for key in ("within_25_percent", "policies"))
    agents = dict.fromkeys(agent for entry in alike for agent in entry["kept"])
    kept = [
        f"{agent} {_mean([entry['kept'][agent][length] for entry in alike if agent in entry['kept']])}"
        for agent in agents
    ]
    return [
        _mean([one["ratio"]["median"] for one in found]),
        f"{within} of {policies}",
        f"{np.mean(orders):.2f} ({min(orders):.2f})" if orders else "-",
        f"{np.mean([one['regret'] for one in found]):.0%}",
        ", ".join(kept) or "-",
        _far_off(alike, length),
    ]


def _mean(values: Sequence[float]) -> str:
    return estimate(np.asarray(values)).text(2)


def _far_off(alike: Sequence[dict[str, Any]], length: str) -> str:
    """Returns the names of the policies that are most often not within 25 %, how often, and their mean ratio."""
    ratios: dict[str, list[float]] = {}
    for entry in alike:
        for name, by_length in entry["policies"].items():
            reward = by_length[length]["reward"]
            ratio = reward["learned"]["mean"] / max(reward["true"]["mean"], 1e-9)
            ratios.setdefault(name, []).append(ratio)
    often = Counter({name: sum(abs(ratio - 1) > 0.25 for ratio in of) for name, of in ratios.items()})
    named = [f"{name} ({times}: {np.mean(ratios[name]):.2f})" for name, times in often.most_common(_NAMED) if times]
    return ", ".join(named) or "-"

"""Warnings against the truth: how often policies that learned users overpay are warned of, and others are.

A case is a policy with users learned from one log: a (shop, agent) pair, or a fixed policy in place of the agent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hrlmg_jax.evaluation.trust_scores import THRESHOLDS

SIGNALS = (*THRESHOLDS, "windows_beyond_log", "value_over_second_kind", "disagreement_over_log")
BANDS = {
    "above 2": (2.0, math.inf),
    "1.5 to 2": (1.5, 2.0),
    "1.25 to 1.5": (1.25, 1.5),
    "below 1.25": (0.0, 1.25),
}
"""Of learned / true; the lower bound is not in it."""


class Case(NamedTuple):
    """One policy of the trust bench.

    Attributes:
        world: Seed of the log.
        shop: Who wrote it.
        simulator: Which kind of learned users.
        is_agent: Whether it was trained in them.
        ratio: Reward in learned users over that with true ones, in the longest sessions.
        signals: What needs no truth, by name; None where there is nothing to compare.
    """

    world: int
    shop: str
    simulator: str
    is_agent: bool
    ratio: float
    signals: Mapping[str, float | None]


class Rule(NamedTuple):
    """A warning is given if any signal is above its threshold."""

    name: str
    thresholds: Mapping[str, float]


class Counts(NamedTuple):
    """How many cases there are, and how many with a warning."""

    warned: int
    cases: int


def cases_of(entries: Sequence[Mapping[str, Any]]) -> list[Case]:
    """Returns the cases of the bench's entries, which name their `agents`."""
    found = []
    for entry in entries:
        longest = max(entry["agreement"], key=int)
        for name, by_length in entry["policies"].items():
            pay = {kind: by_length[longest]["reward"][kind]["mean"] for kind in ("learned", "true")}
            ratio = pay["learned"] / max(pay["true"], 1e-9)
            is_agent = name.split(" ")[0] in entry["agents"]
            signals = {signal: entry["signals"][name].get(signal) for signal in SIGNALS}
            found.append(Case(entry["world"], entry["shop"], entry["simulator"], is_agent, ratio, signals))
    return found


def is_warned(case: Case, rule: Rule) -> bool:
    """Says whether a rule warns of a case."""
    return any((case.signals.get(signal) or 0.0) > threshold for signal, threshold in rule.thresholds.items())


def count(cases: Sequence[Case], rule: Rule, above: float = 0.0, at_most: float = math.inf) -> Counts:
    """Counts the cases with a ratio in (above, at_most] for which the rule has a signal, and those it warns of."""
    judged = [
        case
        for case in cases
        if above < case.ratio <= at_most and any(case.signals.get(signal) is not None for signal in rule.thresholds)
    ]
    return Counts(sum(is_warned(case, rule) for case in judged), len(judged))


def present_rules() -> list[Rule]:
    """Returns the thresholds that warnings have now, each alone and all together."""
    return [*(Rule(name, {name: threshold}) for name, threshold in THRESHOLDS.items()), Rule("any", THRESHOLDS)]


def proposed_rules(cases: Sequence[Case], fine_below: float, false_alarms: float) -> list[Rule]:
    """Returns thresholds with as many warnings as the false alarms allow: each signal alone, and all together.

    Args:
        cases: Those that may be looked at.
        fine_below: Learned / true of cases that deserve no warning: up to this.
        false_alarms: Share of these that may have one.

    Returns:
        A rule for each signal that a fine case has, and "any" of them: their thresholds leave the same number of
        fine cases above, as many as keep the share of those above any within `false_alarms`.
    """
    # What fine cases have, the highest first.
    fine = [case for case in cases if case.ratio <= fine_below]
    known = {signal: [value for case in fine if (value := case.signals.get(signal)) is not None] for signal in SIGNALS}
    highest = {signal: sorted(values, reverse=True) for signal, values in known.items() if values}
    alone = [
        Rule(signal, {signal: _rounded_up(values[math.floor(false_alarms * len(values))])})
        for signal, values in highest.items()
    ]

    # As many above each as all together can bear.
    def together(left_above: int) -> Rule:
        thresholds = {name: _rounded_up(values[min(left_above, len(values) - 1)]) for name, values in highest.items()}
        return Rule("any", thresholds)

    tried = (together(number) for number in range(math.floor(false_alarms * len(fine)), -1, -1))
    return [*alone, next(rule for rule in tried if count(fine, rule).warned <= false_alarms * len(fine))]


def _rounded_up(value: float) -> float:
    """Returns the next number of three digits, so that no more values are above it."""
    if value <= 0:
        return value
    scale = 10.0 ** (2 - math.floor(math.log10(value)))
    return math.ceil(value * scale - 1e-9) / scale

"""What training may cost, and which state counts within it: methods are compared at equal budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.settings import Count, Positive

SELECTION = "selection_"
"""How the metrics begin that choose among the states of a run; without them the last state counts."""
_EVALUATED = ("test_", "validation_", SELECTION)


@dataclass(frozen=True)
class BudgetsConfig:
    """How many episodes, and how many seconds of training, a state may have cost; None: any number.

    Training ends when all budgets that are given are spent, so that one run has a reading at each. Seconds are those of
    `seconds` in metrics.jsonl: fitting before the first step and training, without compilation ahead of it, evaluation
    and checkpoints; they add up over resumptions.
    """

    episodes: Count | None = None
    seconds: Positive | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The budgets that are given, by name; the names are those of the columns of metrics.jsonl."""
        return {name: limit for name in ("episodes", "seconds") if (limit := getattr(self, name)) is not None}

    def exhausted(self, next_costs: Mapping[str, float]) -> list[str]:
        """Returns the budgets that the next chunk would exceed.

        Args:
            next_costs: Episodes and seconds after the next chunk, if it takes as long as the last one.
        """
        return [name for name, limit in self.limits.items() if next_costs[name] > limit]


def counted_step(rows: Sequence[Mapping[str, Any]], budget: str, limit: float, headline: str = "reward") -> int | None:
    """Returns the step of the state that counts within a budget.

    It is the best evaluation on selection users (the earliest of equals), if the run has such, else the last one.

    Args:
        rows: Of metrics.jsonl.
        budget: `episodes` or `seconds`.
        limit: How many.
        headline: The metric that is compared.

    Returns:
        A step, which has a checkpoint; None: there is no evaluation within the budget.
    """
    within = [row for row in rows if row[budget] <= limit and any(name.startswith(_EVALUATED) for name in row)]
    selected = [row for row in within if f"{SELECTION}{headline}" in row]
    if selected:
        return int(max(selected, key=lambda row: float(row[f"{SELECTION}{headline}"]))["step"])
    return int(within[-1]["step"]) if within else None

"""What training may cost, and which state counts within it: methods are compared at equal budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.settings import Count, Positive

SELECTION = "selection_"
"""How the metrics begin that choose among the states of a run; without them the last state counts."""
_EVALUATED = ("test_", "validation_", SELECTION)


Costs = Mapping[str, float]
"""Episodes and seconds, by these names."""


class Spent(NamedTuple):
    """What training has cost so far.

    Attributes:
        seconds: Of fitting before the first step, and of training.
        fastest: Seconds per step of the fastest chunk; 0 before the first.
        slowest: Seconds per step of the slowest chunk.
    """

    seconds: float
    fastest: float = 0.0
    slowest: float = 0.0

    def after(self, chunk_seconds: float, length: int) -> Spent:
        """Returns the cost after one more chunk of `length` steps."""
        step_seconds = chunk_seconds / length
        fastest, slowest = min(self.fastest or step_seconds, step_seconds), max(self.slowest, step_seconds)
        return Spent(self.seconds + chunk_seconds, fastest, slowest)


@dataclass(frozen=True)
class BudgetsConfig:
    """How many episodes, and how many seconds of training, a state may have cost; None: any number.

    Training ends when all budgets that are given are spent, so that one run has a reading at each. Seconds are those of
    `seconds` in metrics.jsonl: fitting before the first step and training, without compilation of training steps,
    evaluation and checkpoints; they add up over resumptions.

    With `evaluations`, so many states of a run may count within each budget, one after every equal part of it: a choice
    among more states is a better one, so that methods are compared with equally many. None: `evaluate_every` decides.

    With `seconds_per_step`, every training step counts so many seconds, whatever the clock says: measured once where
    nothing else runs, it makes a reading at a number of seconds independent of what else this machine does.
    """

    episodes: Count | None = None
    seconds: Positive | None = None
    evaluations: Count | None = None
    seconds_per_step: Positive | None = None

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.evaluations is not None and not self.limits:
            raise UserError(
                f"train.budgets.evaluations is {self.evaluations}, and there is no budget to divide",
                do="Give train.budgets.episodes, train.budgets.seconds or both, or set train.evaluate_every instead.",
            )

    @property
    def limits(self) -> dict[str, float]:
        """The budgets that are given, by name; the names are those of the columns of metrics.jsonl."""
        return {name: limit for name in ("episodes", "seconds") if (limit := getattr(self, name)) is not None}

    def seconds_of(self, length: int, measured: float) -> float:
        """Returns the seconds that count for a chunk of `length` steps that took `measured` seconds."""
        return measured if self.seconds_per_step is None else length * self.seconds_per_step

    def exceeded(self, costs: Costs) -> list[str]:
        """Returns the budgets that are smaller than the costs."""
        return [name for name, limit in self.limits.items() if costs[name] > limit]

    def spent(self, coming: Costs) -> bool:
        """Returns whether there are budgets and the costs that come next exceed each."""
        return bool(self.limits) and len(self.exceeded(coming)) == len(self.limits)

    def may_be_last(self, costs: Costs, coming: Costs) -> bool:
        """Returns whether a state of these costs is within a budget that those that come next would exceed."""
        return not set(self.exceeded(coming)) <= set(self.exceeded(costs))

    def evaluation_due(self, before: Costs, after: Costs) -> bool:
        """Returns whether training has ended a part of a budget.

        Args:
            before: The costs before a chunk.
            after: The costs after it.
        """
        return self.evaluations is not None and any(
            after[name] <= limit
            and _parts(after[name], limit, self.evaluations) > _parts(before[name], limit, self.evaluations)
            for name, limit in self.limits.items()
        )


def _parts(cost: float, limit: float, number: int) -> int:
    """Returns how many of the equal parts of a budget have been spent."""
    return int(number * cost / limit)


def candidate_rows(
    rows: Sequence[Mapping[str, Any]], budget: str, budgets: BudgetsConfig, ended: bool = True
) -> list[Mapping[str, Any]]:
    """Returns the rows of the evaluated states among which one counts within a budget.

    With `budgets.evaluations` these are the first after each part of the budget and the last one within it.

    Args:
        rows: Of metrics.jsonl.
        budget: `episodes` or `seconds`.
        budgets: With a limit for it.
        ended: Whether the last row is the last one within the budget; False: that is not known yet.
    """
    limit, number = budgets.limits[budget], budgets.evaluations
    within = [row for row in rows if row[budget] <= limit]
    if number is not None:
        parts = [_parts(row[budget], limit, number) for row in within]
        firsts = [row for row, before, after in zip(within, [0, *parts], parts, strict=False) if after > before]
        last = [within[-1]] if within and (ended or len(within) < len(rows)) and within[-1] not in firsts else []
        within = [*firsts, *last]
    return [row for row in within if any(name.startswith(_EVALUATED) for name in row)]


def counted_step(
    rows: Sequence[Mapping[str, Any]],
    budget: str,
    budgets: BudgetsConfig,
    ended: bool = True,
    headline: str = "reward",
) -> int | None:
    """Returns the step of the state that counts within a budget.

    It is the best evaluation on selection users (the earliest of equals), if the run has such, else the last one.

    Args:
        rows: Of metrics.jsonl.
        budget: `episodes` or `seconds`.
        budgets: With a limit for it.
        ended: Whether the last row is the last one within the budget; False: that is not known yet.
        headline: The metric that is compared.

    Returns:
        A step, which has a checkpoint; None: there is no evaluation within the budget.
    """
    candidates = candidate_rows(rows, budget, budgets, ended)
    selected = [row for row in candidates if f"{SELECTION}{headline}" in row]
    if selected:
        return int(max(selected, key=lambda row: float(row[f"{SELECTION}{headline}"]))["step"])
    return int(candidates[-1]["step"]) if candidates else None


def counted_steps(
    histories: Sequence[Sequence[Mapping[str, Any]]], budgets: BudgetsConfig, ended: bool = False
) -> set[int]:
    """Returns the steps of all states that count within a budget, of runs that train together.

    Args:
        histories: The rows of each run.
        ended: Whether training has; else also those that will count if nothing better comes.
    """
    known = (True,) if ended else (True, False)
    steps = [counted_step(rows, name, budgets, so) for name in budgets.limits for rows in histories for so in known]
    return {step for step in steps if step is not None}

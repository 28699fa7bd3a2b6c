"""How many items a policy uses: an actor that has collapsed recommends the same few to everyone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from harness.runs.run_folder import RunFolder

COVERED = 0.9
TOO_FEW = 0.01


def share_of_items_used(items: np.ndarray, num_items: int) -> float:
    """Returns the smallest share of the catalogue that 90 % of all recommendations fall on.

    Args:
        items: [n, T] recommended items.
        num_items: I, items that can be recommended.
    """
    return _number_covering(items) / num_items


def share_of_items_used_at_a_step(items: np.ndarray, num_items: int) -> float:
    """Returns the same at one and the same step of all sessions, averaged over steps.

    A session repeats no item, so that even one list for everyone uses T items. Here it uses one, as a share of the
    items that n sessions can get at a step: n, or the catalogue where that is smaller.
    """
    number = np.mean([_number_covering(at_step) for at_step in items.T])
    return float(number) / min(len(items), num_items)


def _number_covering(items: np.ndarray) -> int:
    counts = np.sort(np.unique(items, return_counts=True)[1])[::-1]
    return int(np.searchsorted(np.cumsum(counts), COVERED * items.size)) + 1


class CollapseWatch:
    """Warns when a run's actor is found collapsed for the first time."""

    def __init__(self, folder: RunFolder) -> None:
        """Takes the run's folder, for the message."""
        self._folder = folder
        self._warned = False

    def look_at(self, metrics: Mapping[str, float]) -> None:
        """Looks at the metrics of a validation."""
        warning = collapse_warning(metrics)
        if warning and not self._warned:
            self._warned = True
            tqdm.write(f"WARNING: {self._folder.path}: {warning}", file=sys.stderr)  # above the progress bar


def collapse_at_the_end(rows: Sequence[Mapping[str, float]]) -> str | None:
    """Returns the warning of the last validation in the rows of metrics.jsonl, if it found the actor collapsed."""
    validations = [row for row in rows if "validation_items_used" in row]
    return collapse_warning(validations[-1]) if validations else None


def collapse_warning(metrics: Mapping[str, float]) -> str | None:
    """Returns a warning if a validation saw 90 % of the recommendations fall on fewer than 1 % of the items."""
    used, at_a_step = metrics["validation_items_used"], metrics["validation_items_used_at_a_step"]
    if min(used, at_a_step) >= TOO_FEW:
        return None
    where = "of the catalogue" if used < TOO_FEW else "of the items that they could get at the same step"
    return (
        f"the actor has collapsed: 90 % of its recommendations to held-out users fall on {min(used, at_a_step):.2%} "
        f"{where}, so that everyone gets the same. Proto-actions that saturate do this: see low_saturation in "
        "metrics.jsonl, and set agent.network.action_norm=unit, agent.network.critics=twin, "
        "agent.learner.target_action=item if they are not; else raise agent.learner.action_noise, or lower "
        "agent.learner.actor_rate."
    )

"""What lists are like beside their reward: how much of the catalogue they use, for whom they are good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

SAME_LIST = 0.9
"""Share of users with one and the same list from which on a policy does not personalise."""
_MOST_LISTS, _MOST_OWNERS = 500, 20_000  # of which distances within lists are computed, evenly spaced
_THIRDS = 3
HEADS = {
    "coverage": "coverage",
    "gini": "Gini",
    "novelty": "novelty, bits",
    "intra_list_distance": "distance within",
    "distinct_lists_per_100": "distinct per 100",
}
"""The numbers of `list_metrics` that a table shows, with their heads."""


@dataclass(frozen=True)
class Catalogue:
    """Who dealt with which item in the training data.

    Attributes:
        owners: [I, U] sparse, an entry for each training user who rated the item (or training session that holds it).
    """

    owners: scipy.sparse.csr_array

    @cached_property
    def counts(self) -> np.ndarray:
        """[I] int64 training users of each item."""
        return np.diff(self.owners.indptr).astype(np.int64)

    @cached_property
    def self_information(self) -> np.ndarray:
        """[I] bits: log2((U + 1) / (count + 1)), finite also for items without training users."""
        return np.log2((self.owners.shape[1] + 1) / (self.counts + 1))

    @cached_property
    def third(self) -> np.ndarray:
        """[I] int: 0 for the most popular items, which together have a third of all entries, 1 for the next, 2."""
        order = np.argsort(-self.counts, kind="stable")
        before = np.cumsum(self.counts[order]) - self.counts[order]
        third = np.empty(len(order), np.int64)
        third[order] = np.minimum(_THIRDS * before // max(1, self.counts.sum()), _THIRDS - 1)
        return third

    @cached_property
    def unit_rows(self) -> scipy.sparse.csr_array:
        """[I, at most 20,000] rows of `owners` (0 and 1) of length one; of items without users empty."""
        every = max(1, self.owners.shape[1] // _MOST_OWNERS)
        rows = self.owners[:, ::every] if every > 1 else self.owners
        counts = np.diff(rows.indptr)
        values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
        return scipy.sparse.csr_array((values, rows.indices, rows.indptr), rows.shape)


def list_metrics(items: np.ndarray, rewards: np.ndarray, activity: np.ndarray, catalogue: Catalogue) -> dict[str, Any]:
    """Describes the lists that a policy gave.

    Args:
        items: [n, T] recommended items, in order.
        rewards: [n, T] their rewards.
        activity: [n] how much the data know of each user.
        catalogue: Of the training data.

    Returns:
        As JSON values: `coverage`, the share of the catalogue that was recommended to anyone; `gini` of how often each
        item was (0: all equally often, towards 1: one item alone); `novelty`, the mean self-information in bits of an
        item (Zhou et al. 2010: its rarity among training users); `intra_list_distance`, the mean of 1 - cosine of two
        items of a list, by who rated them (Ziegler et al. 2005; over at most 500 lists); `distinct_lists_per_100`, for
        100 users; `most_common_list`, the share of users who got it; `reward_by_activity`, the mean reward of the
        least, middle and most active third of users; `by_popularity`, the share of recommendations and their mean
        reward (null without any) among the items that have the first, second and last third of training entries.
    """
    number = np.unique(items, axis=0, return_counts=True)[1]
    counts = np.bincount(items.ravel(), minlength=len(catalogue.counts))
    return {
        "coverage": float((counts > 0).mean()),
        "gini": gini(counts),
        "novelty": float(catalogue.self_information[items].mean()),
        "intra_list_distance": intra_list_distance(items, catalogue.unit_rows),
        "distinct_lists_per_100": 100 * len(number) / len(items),
        "most_common_list": float(number.max() / len(items)),
        "reward_by_activity": _by_activity(rewards, activity),
        "by_popularity": _by_popularity(rewards, catalogue.third[items]),
    }


def gini(counts: np.ndarray) -> float:
    """Returns the Gini coefficient of [I] counts, not all 0: sum_i (2 i - I - 1) x_i / (I sum x), x ascending."""
    ascending = np.sort(counts)
    place = np.arange(1, len(counts) + 1)
    return float(((2 * place - len(counts) - 1) * ascending).sum() / (len(counts) * ascending.sum()))


def intra_list_distance(items: np.ndarray, unit_rows: scipy.sparse.csr_array) -> float | None:
    """Returns the mean over lists of the mean of 1 - cosine over pairs of items; None for lists of one item.

    The cosines of all pairs of T unit vectors v add up to (|sum v|^2 - T) / 2.

    Args:
        items: [n, T].
        unit_rows: [I, U] one vector for each item, of length one or (nothing in common with any other) zero.
    """
    length = items.shape[1]
    if length < 2:
        return None
    items = items[:: max(1, -(-len(items) // _MOST_LISTS))]
    row = np.repeat(np.arange(len(items)), length)
    holds = scipy.sparse.csr_array((np.ones(items.size), (row, items.ravel())), (len(items), unit_rows.shape[0]))
    total: Any = holds @ unit_rows
    squared = np.asarray(total.multiply(total).sum(axis=1)).ravel()
    own = np.asarray(holds @ (np.diff(unit_rows.indptr) > 0).astype(float)).ravel()
    return float(np.mean(1 - (squared - own) / (length * (length - 1))))


def _by_activity(rewards: np.ndarray, activity: np.ndarray) -> dict[str, float | None]:
    parts = np.array_split(np.argsort(activity, kind="stable"), _THIRDS)
    return {
        name: float(rewards[part].mean()) if len(part) else None
        for name, part in zip(("least", "middle", "most"), parts, strict=True)
    }


def _by_popularity(rewards: np.ndarray, third: np.ndarray) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "share": float((third == number).mean()),
            "reward": float(rewards[third == number].mean()) if (third == number).any() else None,
        }
        for number, name in enumerate(("head", "middle", "tail"))
    }


def format_lists(lists: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a table with a row per policy."""
    lines = [f"{'lists':<18}" + "".join(f"{head:>18}" for head in HEADS.values())]
    for policy, metrics in lists.items():
        cells = ["-" if metrics[name] is None else f"{metrics[name]:.3f}" for name in HEADS]
        lines.append(f"{policy:<18}" + "".join(cell.rjust(18) for cell in cells))
    return lines


def sameness_warning(metrics: Mapping[str, Any]) -> str | None:
    """Returns a warning if nearly all users got the same list."""
    share = metrics["most_common_list"]
    if share < SAME_LIST:
        return None
    return f"{share:.0%} of the users get one and the same list: the policy does not use their answers"

"""What histories become before a program reads them: episodes of limited length, and items that must not come again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KINDS = ("browsed", "clicked", "ordered")
"""Kinds of items in a history, for policies that see it; the names of a program's inputs."""
_FEWEST_EXCLUDED = 16


def last_of_each(items: np.ndarray) -> np.ndarray:
    """Returns the places, ascending, at which each of the items [n] comes for the last time."""
    _, last = np.unique(items[::-1], return_index=True)
    return np.sort(len(items) - 1 - last)


def barred_items(
    replayed: np.ndarray, shown: np.ndarray, seen: np.ndarray, excluded: np.ndarray, again: bool, remembers: bool
) -> tuple[np.ndarray, int]:
    """Returns what must not be recommended besides the replayed items, which the policy knows.

    Args:
        replayed: [n] items of the episode.
        shown: [m] items of the present session, which never come again in it.
        seen: Items seen earlier, none of them replayed.
        excluded: Items that the caller excludes.
        again: Whether items from before the session may come again.
        remembers: Whether the policy leaves out what it has recommended.

    Returns:
        The items, each once where that is known of `seen`, and how many of the replayed ones may come again.
    """
    repeatable = 0
    if again:
        barred = np.setdiff1d(shown, replayed)
        repeatable = max(len(replayed) - len(np.unique(shown)), 0)
    else:
        barred = seen if remembers else np.concatenate([seen, replayed])
    if len(excluded):
        barred = np.setdiff1d(np.concatenate([barred, excluded]), replayed[repeatable:])
    return barred, repeatable


def power_of_two(number: int) -> int:
    """Returns the smallest power of two that is not below."""
    return 1 << (number - 1).bit_length()


def width_for(longest: int) -> int:
    """Returns 16 times a power of four that is not below: so few widths that few programs compile."""
    width = _FEWEST_EXCLUDED
    while width < longest:
        width *= 4
    return width


def padded(items: Sequence[np.ndarray], size: int, width: int) -> np.ndarray:
    """Returns [size, width] int32 lists of items, padded with -1 behind."""
    lists = np.full((size, width), -1, np.int32)
    for row, some in zip(lists, items, strict=False):
        row[: len(some)] = some
    return lists


def padded_in_front(items: Sequence[np.ndarray], size: int, width: int) -> np.ndarray:
    """Returns [size, width] int32 the last items of each list, padded with -1 in front."""
    lists = np.full((size, width), -1, np.int32)
    for row, some in zip(lists, items, strict=False):
        last = some[max(len(some) - width, 0) :]
        row[width - len(last) :] = last
    return lists

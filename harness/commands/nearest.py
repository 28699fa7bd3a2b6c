"""What somebody most likely meant: of known words those nearest to one that is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(word: str, known: Sequence[str], most: int = 3) -> list[str]:
    """Returns the known words that a word is most likely meant to be, best first; of dotted keys the ends count too."""

    def likeness(one: str) -> float:
        last, own = one.rpartition(".")[2], word.rpartition(".")[2]
        if last == own:
            return 1.0 + _ratio(word, one) / 10
        # An end that is alike says more than a beginning that is equal.
        return max(0.5 * _ratio(word, one) + 0.5 * _ratio(own, last), 0.9 * _ratio(own, last))

    scored = sorted(((likeness(one), one) for one in known), key=lambda pair: -pair[0])
    best = scored[0][0] if scored else 0.0
    return [one for score, one in scored[:most] if score > 0.65 and score > best - 0.2]


def meant(words: Sequence[str]) -> str:
    """Returns the question whether these were meant; nothing if there are none."""
    return f"Did you mean {' or '.join(words)}? " if words else ""


def _ratio(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio()

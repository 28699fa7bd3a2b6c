"""Values that stand for a missing one, as programs and people write them, and ids that look alike."""

from __future__ import annotations

import unicodedata

_WORDS = """
    na n/a n.a. #n/a <na> nan nat null (null) [null] none (none) nil nul \\n - -- -1 ? unknown undefined anonymous guest
    missing 00000000-0000-0000-0000-000000000000
"""
PLACEHOLDERS = frozenset(_WORDS.split()) | {"", "(not set)", "not set", "not available"}
"""What `stands_for_nothing`, without blanks around and in lower case."""
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def stands_for_nothing(value: object) -> bool:
    """Returns whether a value often means that there is none."""
    return str(value).strip().lower() in PLACEHOLDERS


def folded(text: str) -> str:
    """Returns an id without what readers do not see or programs change: blanks around, case, leading zeros."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    return text.strip().casefold().lstrip("0")

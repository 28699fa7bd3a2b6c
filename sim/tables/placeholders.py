"""Values that stand for a missing one, as programs and people write them, and ids that look alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_WORDS = """
    na n/a n.a. #n/a <na> nan nat null (null) [null] none (none) nil nul \\n - -- -1 ? unknown undefined anonymous guest
    missing 00000000-0000-0000-0000-000000000000
"""
_PLACEHOLDERS = [*_WORDS.split(), "", "(not set)", "not set", "not available"]
AS_FLOAT = r"^([0-9]*)\.0*$"
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def stand_for_nothing(texts: pl.Series) -> pl.Series:
    """Returns which texts often mean that there is no value."""
    return texts.str.strip_chars().str.to_lowercase().is_in(_PLACEHOLDERS)


def missing_values_setting(given: Sequence[str], more: Sequence[str]) -> str:
    """Returns the words for a shell that leave out some values, beside those that are left out already."""
    from harness.commands.command_words import override_value

    return f"'data.missing_values={override_value(list(dict.fromkeys((*given, *more))))}'"


def folded(text: str) -> str:
    """Returns an id without what readers do not see or programs change: blanks around, case, the form of a number."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    return re.sub(AS_FLOAT, r"\1", text.strip().casefold().lstrip("+0"))

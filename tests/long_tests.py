"""Which of the long tests are due in a run of CI: a part of them each time, so that all have their turn."""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Test = TypeVar("Test")


class Part(NamedTuple):
    """The `number`-th (from 1) of `count` parts."""

    number: int
    count: int

    def of(self, tests: Sequence[Test]) -> list[Test]:
        """Every `count`-th of some tests, so that neighbours, which often take alike, are spread over the parts."""
        return list(tests[self.number - 1 :: self.count])


def part(text: str) -> Part:
    """Reads K/N with 1 <= K <= N.

    Raises:
        ValueError: The text is no part.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} is no part: write K/N with K from 1 to N, such as 3/13")
    return Part(int(match[1]), int(match[2]))

"""Lists of recommended items, as arrays and as a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Recommendations:
    """k items for each of n requests, best first; where there are fewer, the last entries are empty.

    Attributes:
        requests: [n] whose lists: the user's id, or the number of the request for a history.
        ids: [n, k] original ids of the items; -1 (of text ids: "") where there is none.
        titles: [n, k] their titles, "" where there is none.
        scores: [n, k] float32, -inf where there is none.
        ranks: [n, k] int32, from 1; 0 where there is none. Of a plan: the step.
        score: What the scores are, and in which unit.
        notes: What a user should know: ids that were not found, lists that are shorter than asked for.
        paths: For trees, if asked for: request, rank, item, level, node, score and what is below it; else None.
        path_score: What the scores of the paths are.
    """

    requests: np.ndarray
    ids: np.ndarray
    titles: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    score: str
    notes: tuple[str, ...] = ()
    paths: pl.DataFrame | None = None
    path_score: str = ""

    @property
    def number(self) -> np.ndarray:
        """[n] int items in each list."""
        return np.count_nonzero(self.ranks, 1)

    def frame(self) -> pl.DataFrame:
        """Returns a table with a row per recommended item: request, rank, item, title, score."""
        listed = self.ranks > 0
        return pl.DataFrame(
            {
                "request": np.repeat(self.requests, self.number),
                "rank": self.ranks[listed],
                "item": self.ids[listed],
                "title": self.titles[listed],
                "score": self.scores[listed],
            }
        )

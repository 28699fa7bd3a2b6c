"""Lists of ten items by the ALS model of implicit: users a second, items already rated left out."""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as implicit asks for: it has threads of its own

import numpy as np
import scipy.sparse
from implicit.cpu.als import AlternatingLeastSquares
from timing import Sizes, median_seconds, report


def measure(sizes: Sizes) -> dict[str, float]:
    """Returns lists a second: of stored users, and of users whose factors are fitted to their ratings first."""
    generator = np.random.default_rng(0)
    rows = np.repeat(np.arange(sizes.users), sizes.ratings_per_user)
    items = generator.integers(0, sizes.items, len(rows))
    values = np.ones(len(rows), np.float32)
    ratings = scipy.sparse.csr_matrix((values, (rows, items)), (sizes.users, sizes.items))
    model = AlternatingLeastSquares(factors=sizes.factors, iterations=1, random_state=0)
    model.fit(ratings, show_progress=False)
    users = np.arange(min(sizes.users, 1_024))

    def rate(recalculate: bool) -> float:
        def lists() -> None:
            model.recommend(users, ratings[users], N=10, recalculate_user=recalculate)

        return len(users) / median_seconds(lists, sizes.repeats)

    return {"users' factors stored": rate(False), "users' factors fitted to their ratings": rate(True)}


if __name__ == "__main__":
    report("implicit", measure)

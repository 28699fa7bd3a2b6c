"""Lists of ten items by RecTools: users a second, items already rated left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import EASEModel
from timing import Sizes, median_seconds, report


def measure(sizes: Sizes) -> dict[str, float]:
    """Returns lists a second of its item-to-item model (EASE)."""
    generator = np.random.default_rng(0)
    rows = np.repeat(np.arange(sizes.users), sizes.ratings_per_user)
    table = pd.DataFrame(
        {
            Columns.User: rows,
            Columns.Item: generator.integers(0, sizes.items, len(rows)),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2000-01-01"),
        }
    ).drop_duplicates([Columns.User, Columns.Item])
    dataset = Dataset.construct(table)
    model = EASEModel().fit(dataset)
    users = np.arange(min(sizes.users, 1_024))

    def lists() -> None:
        model.recommend(users, dataset, k=10, filter_viewed=True)

    return {"EASE": len(users) / median_seconds(lists, sizes.repeats)}


if __name__ == "__main__":
    report("rectools", measure)

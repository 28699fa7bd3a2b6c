"""LinearUCB of MABWiser: users x steps a second, decision and update.

An arm per item, each with a ridge regression of its own on the user's features: what its LinUCB is. Ours has one
regression per user on the items' features.
"""

from __future__ import annotations

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from timing import Sizes, median_seconds, report

DECISIONS = 8  # of one after the other; a decision asks every arm


def measure(sizes: Sizes) -> dict[str, float]:
    """Returns decisions with updates a second."""
    generator = np.random.default_rng(0)
    bandit = MAB(list(range(sizes.items)), LearningPolicy.LinUCB(alpha=0.3, l2_lambda=0.3))
    users = generator.standard_normal((sizes.items, sizes.features)) / np.sqrt(sizes.features)
    bandit.fit(np.arange(sizes.items), generator.uniform(-1, 1, sizes.items), users)  # every arm was played once

    def play() -> None:
        for user in users[:DECISIONS]:
            item = bandit.predict(user[None])
            bandit.partial_fit([item], [0.5], user[None])

    return {"": DECISIONS / median_seconds(play, sizes.repeats)}


if __name__ == "__main__":
    report("mabwiser", measure)

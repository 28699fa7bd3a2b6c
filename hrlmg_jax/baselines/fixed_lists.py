"""Fixed lists: the catalogue ranked by what the log says of its items."""

from __future__ import annotations

import numpy as np

from sim.datasets.sessions import SessionData
from sim.envs.session_env import SessionConfig

POPULARITY, BEST_RATE, COUNT = "popularity", "best_rate", "count"
"""By total reward in the log, by reward per impression, by impressions."""


def fixed_rankings(env: SessionConfig, data: SessionData) -> dict[str, np.ndarray]:
    """Ranks the catalogue by training users' feedback, [I] int32 each, ties to the lower index.

    Returns:
        "popularity": by total external reward in the log; "best_rate": by reward per impression, shrunk towards the
        mean as if every item had been shown 100 times more at the mean rate; "count": by impressions.
    """
    counts = data.training_counts()
    order = env.order_reward
    reward = env.click_reward * (counts["clicked"] - counts["ordered"]) + order * counts["ordered"]
    prior = 100.0
    rate = (reward + prior * reward.sum() / counts["shown"].sum()) / (counts["shown"] + prior)
    return {
        name: np.argsort(-score, kind="stable").astype(np.int32)
        for name, score in ((POPULARITY, reward), (BEST_RATE, rate), (COUNT, counts["shown"]))
    }

"""Ratings and networks of a few numbers, for tests of learning on a tree."""

from typing import Any

import numpy as np

from hand_made import hand_made_ratings
from sim.envs.rating_env import EnvConfig
from sim.tables.ratings import RatingData
from tpgr_jax.agents.tree_policy import PolicyConfig


def small_ratings(num_users: int, num_items: int, episode_length: int) -> tuple[RatingData, EnvConfig]:
    """Two of five pairs are rated, 1 to 5; a simulator of these."""
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((num_users, num_items)) < 0.4)
    data = hand_made_ratings(users, items, generator.integers(1, 6, len(users)))
    env_config = EnvConfig(
        alpha=0.1,
        episode_length=episode_length,
        reward_scale="half_open",
        cold_start="policy",
        allow_repeats=False,
        rating_layout="dense",
        dense_limit_mb=10,
    )
    return data, env_config


def small_networks(**changes: Any) -> PolicyConfig:
    """Networks of three and four numbers."""
    sizes: dict[str, Any] = {"hidden": [4], "embedding_size": 3, "state_hidden": 4}
    start: dict[str, Any] = {"embedding": "random", "embedding_epochs": 1, "encoder_pretrain_steps": 0}
    parts = dict.fromkeys(("train_embedding", "status_in_rnn", "count_prior"), True)
    return PolicyConfig(**(sizes | start | parts | changes))

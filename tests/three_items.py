"""A world of three items whose values are known: everybody loves item 0, finds item 1 fair and dislikes item 2."""

import jax.numpy as jnp
import numpy as np

from hand_made import hand_made_ratings
from sim.envs.rating_env import EnvConfig, EnvParams, RatingEnv, make_env_params, make_rating_env

# Empirical rewards 1, 0.2 and -0.6; episodes of two steps, so that the second reward gets 0.1 more or less.
RATINGS = (5, 3, 1)
ALPHA = 0.1
DISCOUNT = 0.6
REPLAY = {
    "discount": DISCOUNT,
    "updates_per_step": 1,
    "batch_episodes": 8,
    "replay_episodes": 100,
    "target_rate": 0.05,
    "loss": "squared",
    "clip_norm": 10.0,
    "epsilon": 1.0,
    "epsilon_end": 0.2,
    "epsilon_steps": 100,
}
"""Settings of `ReplayConfig` that suit so small a problem."""
BEST = [0, 1]
BEST_REWARD = (1 + 0.3) / 2
# Q(s, a) of the best policy: at the first step, and at the second one by the item that came first.
FIRST_VALUES = np.array([1 + DISCOUNT * 0.3, 0.2 + DISCOUNT * 1.1, -0.6 + DISCOUNT * 0.9])
SECOND_VALUES = np.array([[np.nan, 0.3, -0.5], [1.1, np.nan, -0.5], [0.9, 0.1, np.nan]])


def make_three_items(users: int = 4) -> tuple[RatingEnv, EnvParams]:
    """The simulator and its tables."""
    user, item = np.divmod(np.arange(3 * users), 3)
    data = hand_made_ratings(user, item, np.array(RATINGS)[item], 1, 5)
    config = EnvConfig(ALPHA, 2, "half_open", "policy", False, "dense", 1.0)
    return make_rating_env(config, data), make_env_params(config, data, np.arange(users), 3)


def all_episodes() -> tuple[jnp.ndarray, jnp.ndarray, jnp.ndarray]:
    """Items [2, 6], rewards [2, 6] and status [2, 6, 9] of the six possible episodes, by hand."""
    pairs = np.array([(a, b) for a in range(3) for b in range(3) if a != b]).T
    empirical = 2 * np.array(RATINGS) / 5 - 1
    first, second = empirical[pairs]
    reward = np.stack([first, second + ALPHA * np.sign(first)])
    status = np.zeros((2, 6, 9))
    negative, positive = first < 0, first > 0
    status[1] = np.stack(
        [negative, positive, 0 * first, 1 + 0 * first, negative, positive, 0 * first, ~negative, ~positive], -1
    )
    return jnp.asarray(pairs, jnp.int32), jnp.asarray(reward, jnp.float32), jnp.asarray(status / 2, jnp.float32)

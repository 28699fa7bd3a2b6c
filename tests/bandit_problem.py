"""A small rating problem, and a look into the episodes that a policy plays in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hand_made import hand_made_ratings
from sim.envs.policy import Policy
from sim.envs.rating_env import EnvConfig, EnvParams, RatingEnv, empirical_rewards, make_env_params, make_rating_env
from sim.envs.rollout import advance, begin
from sim.tables.ratings import RatingData

NUM_USERS, NUM_ITEMS, LENGTH = 30, 12, 6
TRAIN_USERS = np.arange(0, NUM_USERS, 2)
TEST_USERS = np.arange(1, NUM_USERS, 2)


def make_table(seed: int = 0) -> np.ndarray:
    """[U, I] ratings 1 to 5, 0 = not rated: two kinds of users with opposite tastes. All items and values occur."""
    generator = np.random.default_rng(seed)
    liked = (np.arange(NUM_ITEMS) + np.arange(NUM_USERS)[:, None] // 2) % 2 == 0
    table = np.where(liked, generator.integers(3, 6, liked.shape), generator.integers(1, 4, liked.shape))
    table = np.where(generator.random(table.shape) < 0.3, 0, table)
    table[:2, 0], table[:2, 1:6] = 4, np.arange(1, 6)
    table[:2, 6:] = 3
    return table


def make_data(table: np.ndarray) -> RatingData:
    """The ratings of a table, on the scale 1 to 5."""
    users, items = np.nonzero(table)
    data = hand_made_ratings(users, items, table[users, items])
    assert data.shape == table.shape
    return data


def reward_table(table: np.ndarray) -> np.ndarray:
    """[U, I] empirical rewards on the half-open scale, worked out apart from the package."""
    return np.where(table > 0, 2 * table / 5 - 1, 0.0)


def make_simulator(data: RatingData, **changes: object) -> tuple[RatingEnv, EnvParams, np.ndarray]:
    """The simulator of a table of ratings, its tables (training users) and the reward of each rating code."""
    settings = {
        "alpha": 0.1,
        "episode_length": LENGTH,
        "reward_scale": "half_open",
        "cold_start": "policy",
        "allow_repeats": False,
        "rating_layout": "dense",
        "dense_limit_mb": 1.0,
    }
    config = EnvConfig(**(settings | changes))
    params = make_env_params(config, data, TRAIN_USERS, 3)
    return make_rating_env(config, data), params, empirical_rewards(data, config.reward_scale)


@functools.partial(jax.jit, static_argnums=(0, 2, 5))
def play_and_keep(
    env: RatingEnv, env_params: EnvParams, policy: Policy, policy_params, users: jax.Array, explore: bool = False
):
    """Plays an episode with each user; returns items [T, B], answers [T, B] and the carry that each step decided on."""
    policy = env.prepare(policy)

    def step(episodes, t):
        following, kept = advance(env, env_params, policy, policy_params, episodes, jax.random.key(t), explore)
        return following, (kept.item, following.observation.last_empirical, following.carry)

    episodes = begin(env, env_params, policy, policy_params, jnp.asarray(users, jnp.int32))
    return jax.lax.scan(step, episodes, jnp.arange(env.episode_length))[1]


def is_best_left(item: int, score: np.ndarray, past: list[int]) -> bool:
    """Whether an item was not recommended yet and no item left scores higher (but for rounding)."""
    left = np.setdiff1d(np.arange(len(score)), past)
    return item in left and score[item] >= score[left].max() - 1e-5

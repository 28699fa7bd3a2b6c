"""HLinearUCB (Wang, Wu and Wang 2016): LinearUCB whose items have learned hidden features besides the observed ones.

A reward is r = (x_a, v_a)^T theta_u: x_a observed, v_a hidden features of item a, theta_u = (theta_x, theta_v) the
user's vector. Both sides are ridge regressions given the other: after each interaction

    user:  A_u += (x_a, v_a) (x_a, v_a)^T   b_u += (x_a, v_a) r                   theta_u = A_u^-1 b_u
    item:  C_a += theta_v theta_v^T         d_a += theta_v (r - x_a^T theta_x)    v_a = C_a^-1 d_a

and an item scores (x_a, v_a)^T theta_u + exploration * sqrt((x_a, v_a)^T A_u^-1 (x_a, v_a))
+ item_exploration * sqrt(theta_v^T C_a^-1 theta_v).

The items' side is learned before evaluation, by simulated episodes with training users, B side by side: the statistics
C_a, d_a collect every interaction, v_a is computed from them after each round of B episodes. In evaluation it stays as
it is. No item comes twice in an episode, so an update of an item within an episode could only reach other users, and
test users are not to learn from each other (nor could a batch of episodes afford C_a of every item for each of them).
What an episode learns is its user's side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.settings import Count, CountOrZero, NotNegative, Positive
from sim.envs.policy import UPPER_BOUND, Policy, scoring_policy
from sim.envs.rating_env import Observation
from sim.envs.rollout import Environment, Episodes, advance, begin
from sim.tables.ratings import RatingData
from tpgr_jax.baselines.linear_ucb import (
    LinearUCBConfig,
    LinearUCBParams,
    UserModel,
    fit_linear_ucb,
    initial_user_model,
    update_user_model,
    upper_bound,
)
from tpgr_jax.methods import AgentSettings, Method, RunContext, fitted_method
from tpgr_jax.models.kalman import predict
from tpgr_jax.problem import Problem

_START_DEVIATION = 0.01  # of hidden features before learning: from exactly 0 they would never move


@dataclass(frozen=True)
class HLinearUCBConfig(LinearUCBConfig):
    """Settings (`conf/agent/hlinear_ucb.yaml`): those of LinearUCB, and of the hidden features."""

    hidden_size: Count
    item_ridge: Positive
    item_exploration: NotNegative
    rounds: CountOrZero
    users_per_round: Count


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/hlinear_ucb.yaml` holds."""

    policy: HLinearUCBConfig


@flax.struct.dataclass
class ItemStatistics:
    """What interactions say about the hidden features of each item.

    Attributes:
        matrix: [I, H, H] float32 C_a, item_ridge * identity before the first interaction.
        vector: [I, H] float32 d_a, item_ridge * v_a before the first interaction, for small random v_a.
    """

    matrix: jax.Array
    vector: jax.Array


@flax.struct.dataclass
class HLinearUCBParams:
    """What the policy knows before an episode.

    Attributes:
        user: LinearUCB over features (x_a, v_a) [I, E + H]; the prior mean of theta_v is 0.
        item_covariance: [I, H, H] float32 C_a^-1.
        item_exploration: float32.
    """

    user: LinearUCBParams
    item_covariance: jax.Array
    item_exploration: jax.Array


def initial_statistics(num_items: int, hidden_size: int, item_ridge: float, key: jax.Array) -> ItemStatistics:
    """Returns the statistics before the first interaction, for H = `hidden_size`."""
    start = _START_DEVIATION * jax.random.normal(key, (num_items, hidden_size))
    matrix = jnp.broadcast_to(item_ridge * jnp.eye(hidden_size), (num_items, hidden_size, hidden_size))
    return ItemStatistics(matrix, item_ridge * start)


def add_interactions(
    statistics: ItemStatistics, features: jax.Array, item: jax.Array, user_vector: jax.Array, reward: jax.Array
) -> ItemStatistics:
    """Adds S interactions to C_a and d_a.

    Args:
        features: [I, E] observed features of the items.
        item: [S] int32.
        user_vector: [S, E + H] theta_u, after the interaction.
        reward: [S] empirical.
    """
    size = features.shape[1]
    observed, hidden = user_vector[:, :size], user_vector[:, size:]
    residual = reward - jnp.sum(features[item] * observed, -1)
    return ItemStatistics(
        statistics.matrix.at[item].add(hidden[:, :, None] * hidden[:, None, :]),
        statistics.vector.at[item].add(hidden * residual[:, None]),
    )


def with_hidden_features(
    linear: LinearUCBParams, statistics: ItemStatistics, item_exploration: jax.Array
) -> HLinearUCBParams:
    """Joins observed features [I, E] and the hidden ones that the statistics give, in the ball of radius 1."""
    covariance = jnp.linalg.inv(statistics.matrix)
    hidden = jnp.einsum("ihg,ig->ih", covariance, statistics.vector, precision="highest")
    hidden = hidden / jnp.maximum(jnp.linalg.norm(hidden, axis=-1, keepdims=True), 1)
    user = replace(
        linear,
        features=jnp.concatenate([linear.features, hidden], axis=-1),
        prior=jnp.concatenate([linear.prior, jnp.zeros(hidden.shape[1])]),
    )
    return HLinearUCBParams(user, covariance, item_exploration)


def fit_hlinear_ucb(
    config: HLinearUCBConfig,
    data: RatingData,
    train_users: np.ndarray,
    reward_of_code: np.ndarray,
    seed: int,
    env: Environment,
    env_params: Any,
) -> HLinearUCBParams:
    """Makes the observed features from the training users' ratings, and learns the hidden ones by playing with them.

    Args:
        data: Ratings of all users.
        train_users: [n] users to learn from, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code.
        seed: Of the features, of the start and of the episodes' users.
        env: The simulator, in which a start is a user.

    Raises:
        UserError: More factors of rewards than items.
    """
    linear = fit_linear_ucb(config, data, train_users, reward_of_code, seed)
    # The tag keeps these numbers apart from those of matrix factorisation with the same seed.
    start_key, key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2))
    statistics = initial_statistics(data.num_items, config.hidden_size, config.item_ridge, start_key)
    users = jnp.asarray(train_users, jnp.int32)
    keys = jax.random.split(key, config.rounds)
    item_exploration = jnp.float32(config.item_exploration)
    statistics = _play_rounds(
        env, config.users_per_round, env_params, users, linear, item_exploration, statistics, keys
    )
    return with_hidden_features(linear, statistics, item_exploration)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _play_rounds(
    env: Environment,
    users_per_round: int,
    env_params: Any,
    train_users: jax.Array,
    linear: LinearUCBParams,
    item_exploration: jax.Array,
    statistics: ItemStatistics,
    keys: jax.Array,
) -> ItemStatistics:
    def play_round(statistics: ItemStatistics, key: jax.Array) -> tuple[ItemStatistics, None]:
        user_key, key = jax.random.split(key)
        users = jax.random.choice(user_key, train_users, (users_per_round,))
        params = with_hidden_features(linear, statistics, item_exploration)
        interactions = play_interactions(env, env_params, params, users, key)
        item, user_vector, reward = (jnp.concatenate(steps) for steps in interactions)
        return add_interactions(statistics, linear.features, item, user_vector, reward), None

    return jax.lax.scan(play_round, statistics, keys)[0]


def play_interactions(
    env: Environment, env_params: Any, params: HLinearUCBParams, users: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Plays an episode with each of B users.

    Returns:
        Items [T, B], the users' vectors theta_u after each interaction [T, B, E + H], empirical rewards [T, B].
    """
    policy = env.prepare(hlinear_ucb_policy())

    def step(episodes: Episodes, t: jax.Array) -> tuple[Episodes, Any]:
        step_key = jax.random.fold_in(key, t)
        episodes, _ = advance(env, env_params, policy, params, episodes, step_key, explore=True)
        observation = episodes.observation
        user = update_user_model(params.user, episodes.carry, observation)
        return episodes, (observation.last_item, user.posterior.mean, observation.last_empirical)

    episodes = begin(env, env_params, policy, params, users)
    return jax.lax.scan(step, episodes, jnp.arange(env.episode_length))[1]


def hlinear_ucb_policy() -> Policy:
    """Returns the policy whose parameters are `HLinearUCBParams`: the highest bound, with or without `explore`."""
    return scoring_policy(_initial_carry, _score, UPPER_BOUND)


def _initial_carry(params: HLinearUCBParams, batch_size: int) -> UserModel:
    return initial_user_model(params.user, batch_size)


def _score(params: HLinearUCBParams, user: UserModel, observation: Observation) -> tuple[UserModel, jax.Array]:
    user = update_user_model(params.user, user, observation)
    return user, upper_bound(params.user, user) + params.item_exploration * item_deviation(params, user)


def item_deviation(params: HLinearUCBParams, user: UserModel) -> jax.Array:
    """Returns [B, I] sqrt(theta_v^T C_a^-1 theta_v), the uncertainty from the items' hidden features."""
    num_items, size, _ = params.item_covariance.shape
    hidden = user.posterior.mean[:, -size:]
    products = (hidden[:, :, None] * hidden[:, None, :]).reshape(-1, size * size)
    variance = predict(params.item_covariance.reshape(num_items, size * size), products)
    return jnp.sqrt(jnp.maximum(variance, 0))


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    params = fit_hlinear_ucb(settings.policy, *problem.training_ratings, run.seed, problem.env, problem.env_params)
    return fitted_method(settings.result_name, hlinear_ucb_policy(), params)

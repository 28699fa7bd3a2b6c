"""LinearUCB (Li et al. 2010): a linear model of rewards over item features, and the upper end of its confidence bound.

One model per user and episode, shared by all items: with x the features of the items recommended and r the empirical
rewards, A = ridge * identity + sum x x^T and theta minimises sum (r - x^T theta)^2 + ridge |theta - prior|^2. An item
scores x^T theta + exploration * sqrt(x^T A^-1 x) (their Eq. 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from harness.settings import Count, NotNegative, Positive
from sim.envs.policy import UPPER_BOUND, Policy, scoring_policy
from sim.envs.rating_env import Observation
from sim.tables.ratings import RatingData
from tpgr_jax.methods import AgentSettings, Method, RunContext, fitted_method
from tpgr_jax.models.kalman import KalmanState, predict
from tpgr_jax.models.matrix_factorisation import factor_vectors
from tpgr_jax.models.reward_moments import mean_rewards, principal_axes, reward_matrix
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class LinearUCBConfig:
    """Settings (`conf/agent/linear_ucb.yaml`)."""

    features: Literal["svd", "mf"]
    feature_size: Count
    feature_epochs: Count
    ridge: Positive
    exploration: NotNegative
    prior: Literal["zero", "population"]


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/linear_ucb.yaml` holds."""

    policy: LinearUCBConfig


@flax.struct.dataclass
class LinearUCBParams:
    """What the policy knows before an episode.

    Attributes:
        features: [I, K] float32 features of the items.
        prior: [K] float32 prior mean of the user's vector theta.
        ridge: float32.
        exploration: float32.
    """

    features: jax.Array
    prior: jax.Array
    ridge: jax.Array
    exploration: jax.Array


@flax.struct.dataclass
class UserModel:
    """What an episode has learned of its user.

    Attributes:
        posterior: theta [B, K] and A^-1 [B, K, K].
        variance: [B, I] x^T A^-1 x of all items, kept up to date in O(K) per item instead of computed in O(K^2).
    """

    posterior: KalmanState
    variance: jax.Array


def item_features(
    config: LinearUCBConfig, data: RatingData, train_users: np.ndarray, rewards: scipy.sparse.csr_array, seed: int
) -> np.ndarray:
    """Returns [I, feature_size + 1] float64 features of the items: factors of what the training users answered, and 1.

    "svd" factors are right singular vectors of the reward matrix (not rated = 0) times their singular values, "mf"
    those of biased matrix factorisation of the ratings given. They are divided by the norm of the longest, the constant
    is added, and all is divided by sqrt(2): no item's norm exceeds 1, as Li et al. ask, and norms between items keep
    their ratio.

    Args:
        config: Says which, and how many.
        data: Ratings of all users.
        train_users: [n] users to learn from, ascending.
        rewards: [n, I] their empirical rewards.

    Raises:
        UserError: More factors of rewards than items.
    """
    if config.features == "mf":
        factors = factor_vectors(data, train_users, config.feature_size, config.feature_epochs, seed)
    else:
        values, vectors = principal_axes(rewards, config.feature_size, False, seed)
        factors = vectors * np.sqrt(values)
    longest = np.max(np.linalg.norm(factors, axis=1))
    factors = factors / (longest if longest > 0 else 1)
    return np.concatenate([factors, np.ones((len(factors), 1))], axis=1) / np.sqrt(2)


def fit_linear_ucb(
    config: LinearUCBConfig, data: RatingData, train_users: np.ndarray, reward_of_code: np.ndarray, seed: int
) -> LinearUCBParams:
    """Makes the items' features and the prior from the training users' ratings.

    Args:
        data: Ratings of all users.
        train_users: [n] users to learn from, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code.

    Raises:
        UserError: More factors of rewards than items.
    """
    rewards = reward_matrix(data, train_users, reward_of_code)
    features = item_features(config, data, train_users, rewards, seed)
    prior = np.zeros(features.shape[1])
    if config.prior == "population":
        # Ridge regression on the rewards of all n users for all items: only the items' means matter.
        weight = len(train_users)
        matrix = weight * features.T @ features + config.ridge * np.eye(len(prior))
        prior = np.linalg.solve(matrix, weight * features.T @ mean_rewards(rewards))
    return LinearUCBParams(
        jnp.asarray(features, jnp.float32),
        jnp.asarray(prior, jnp.float32),
        jnp.float32(config.ridge),
        jnp.float32(config.exploration),
    )


def linear_ucb_policy() -> Policy:
    """Returns the policy whose parameters are `LinearUCBParams`; the highest bound, whether it is to explore or not."""
    return scoring_policy(initial_user_model, _score, UPPER_BOUND)


def initial_user_model(params: LinearUCBParams, batch_size: int) -> UserModel:
    """Returns what is known of B users before the first answer."""
    variance = jnp.sum(params.features**2, axis=-1) / params.ridge
    return UserModel(
        KalmanState.initial(params.prior, 1 / params.ridge, batch_size),
        jnp.broadcast_to(variance, (batch_size, *variance.shape)),
    )


def update_user_model(params: LinearUCBParams, user: UserModel, observation: Observation) -> UserModel:
    """Takes in the answers to the last items (nothing before the first step)."""
    features = params.features[jnp.maximum(observation.last_item, 0)]
    posterior, direction = user.posterior.update(
        features, observation.last_empirical, jnp.float32(1), observation.step > 0
    )
    return UserModel(posterior, user.variance - predict(params.features, direction) ** 2)


def upper_bound(params: LinearUCBParams, user: UserModel) -> jax.Array:
    """Returns [B, I] x^T theta + exploration * sqrt(x^T A^-1 x)."""
    deviation = jnp.sqrt(jnp.maximum(user.variance, 0))  # rounding may leave a variance just below 0
    return predict(params.features, user.posterior.mean) + params.exploration * deviation


def _score(params: LinearUCBParams, user: UserModel, observation: Observation) -> tuple[UserModel, jax.Array]:
    user = update_user_model(params, user, observation)
    return user, upper_bound(params, user)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    params = fit_linear_ucb(settings.policy, *problem.training_ratings, run.seed)
    return fitted_method(settings.result_name, linear_ucb_policy(), params)

"""GaussianPosterior: users' reward vectors are Gaussian; recommend what has the highest mean given the answers so far.

Mean and covariance of the empirical reward vector (not rated = 0) come from the training users. At each step the policy
recommends the item with the highest conditional mean given all rewards seen in the episode (a baseline beyond the
paper's: what an engineer would try without reinforcement learning).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.settings import Count, NotNegative, Positive
from sim.envs.policy import EXPECTED_REWARD, Policy, scoring_policy
from sim.envs.rating_env import Observation
from sim.tables.ratings import RatingData
from tpgr_jax.methods import AgentSettings, Method, RunContext, fitted_method
from tpgr_jax.models.kalman import KalmanState, predict
from tpgr_jax.models.reward_moments import mean_rewards, principal_axes, reward_covariance, reward_matrix
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class GaussianPosteriorConfig:
    """Settings (`conf/agent/gaussian_posterior.yaml`)."""

    noise: Positive
    factors: Count | None
    covariance_limit_mb: NotNegative


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/gaussian_posterior.yaml` holds."""

    policy: GaussianPosteriorConfig


@flax.struct.dataclass
class Answers:
    """What an episode has learned, for the full covariance; zeros beyond the steps taken.

    Attributes:
        item: [B, T] int32 the items that were answered, in order.
        precision: [B, T, T] inverse of the observed rewards' covariance, noise included.
        weight: [B, T] the same times (reward - mean): how much each answer adds of its item's covariances.
    """

    item: jax.Array
    precision: jax.Array
    weight: jax.Array


@flax.struct.dataclass
class FullCovariance:
    """The Gaussian with its full covariance; conditioning takes O(T^2) per step, and a row of it per answer.

    Attributes:
        mean: [I] float32 mean rewards.
        covariance: [I, I] float32.
        noise: float32 variance that an observed reward has besides.
    """

    mean: jax.Array
    covariance: jax.Array
    noise: jax.Array

    def initial(self, batch_size: int, episode_length: int) -> Answers:
        """Returns what is known of B users before the first answer."""
        shape = (batch_size, episode_length)
        return Answers(jnp.zeros(shape, jnp.int32), jnp.zeros((*shape, episode_length)), jnp.zeros(shape))

    def update(self, answers: Answers, observation: Observation) -> Answers:
        """Takes in the answers to the last items (nothing before the first step).

        The inverse of a matrix bordered by one row and column: with k the covariances of the new item with the earlier
        ones, it grows by e e^T / s, where e = unit vector - inverse k and s = variance + noise - k^T inverse k.
        """
        item = jnp.maximum(observation.last_item, 0)
        # What stands here beyond the earlier items meets zeros.
        covariance = self.covariance[item[:, None], answers.item]
        regression = jnp.einsum("bst,bt->bs", answers.precision, covariance, precision="highest")
        newest = jax.nn.one_hot(observation.step - 1, regression.shape[-1])
        border = newest - regression
        unexplained = self.covariance[item, item] - jnp.sum(covariance * regression, -1)
        spread = jnp.maximum(unexplained, 0) + self.noise  # rounding must not make a variance negative
        innovation = observation.last_empirical - self.mean[item] - jnp.sum(covariance * answers.weight, -1)
        scaled = jnp.where(observation.step > 0, 1 / spread, 0)[:, None] * border
        return Answers(
            jnp.where(newest > 0, item[:, None], answers.item),
            answers.precision + border[:, :, None] * scaled[:, None, :],
            answers.weight + innovation[:, None] * scaled,
        )

    def conditional_mean(self, answers: Answers, observation: Observation) -> jax.Array:
        """Returns [B, I] the mean reward of each item given the answers: mean + sum_t weight_t covariance[item_t].

        One answer of each episode at a time, so that memory is O(B I): [B, T, I] would be too much.
        """

        def add(t: jax.Array, mean: jax.Array) -> jax.Array:
            return mean + answers.weight[:, t, None] * self.covariance[answers.item[:, t]]

        start = jnp.broadcast_to(self.mean, (answers.item.shape[0], self.mean.shape[0]))
        return jax.lax.fori_loop(0, jnp.max(observation.step), add, start)


@flax.struct.dataclass
class FactorCovariance:
    """The Gaussian with covariance `loadings loadings^T + diagonal`; conditioning takes O(K^2 + I K) per step.

    Attributes:
        mean: [I] float32 mean rewards.
        loadings: [I, K] float32: eigenvectors times the square roots of the eigenvalues.
        noise: [I] float32 variance of an observed reward given the factors: what the factors leave of the item's
            variance, plus the noise setting.
    """

    mean: jax.Array
    loadings: jax.Array
    noise: jax.Array

    def initial(self, batch_size: int, episode_length: int) -> KalmanState:
        """Returns what is known of B users' factors before the first answer: N(0, identity)."""
        return KalmanState.initial(jnp.zeros(self.loadings.shape[1]), jnp.float32(1), batch_size)

    def update(self, posterior: KalmanState, observation: Observation) -> KalmanState:
        """Takes in the answers to the last items (nothing before the first step)."""
        item = jnp.maximum(observation.last_item, 0)
        centred = observation.last_empirical - self.mean[item]
        return posterior.update(self.loadings[item], centred, self.noise[item], observation.step > 0)[0]

    def conditional_mean(self, posterior: KalmanState, observation: Observation) -> jax.Array:
        """Returns [B, I] the mean reward of each item that was not observed, given the answers."""
        return self.mean + predict(self.loadings, posterior.mean)


GaussianParams = FullCovariance | FactorCovariance


def fit_gaussian_posterior(
    config: GaussianPosteriorConfig,
    data: RatingData,
    train_users: np.ndarray,
    reward_of_code: np.ndarray,
    seed: int,
) -> GaussianParams:
    """Estimates mean and covariance of the training users' reward vectors.

    Args:
        data: Ratings of all users.
        train_users: [n] users to learn from, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code.
        seed: Of the iteration that finds the factors.

    Raises:
        UserError: The full covariance would be larger than allowed, or there are more factors than items.
    """
    if config.factors is None:
        _check_size(data.num_items, config.covariance_limit_mb)
    rewards = reward_matrix(data, train_users, reward_of_code)
    mean = mean_rewards(rewards)
    if config.factors is None:
        return FullCovariance(_float32(mean), jnp.asarray(reward_covariance(rewards)), jnp.float32(config.noise))
    values, vectors = principal_axes(rewards, config.factors, True, seed)
    loadings = vectors * np.sqrt(values)
    variance = np.asarray(rewards.multiply(rewards).sum(axis=0)) / len(train_users) - mean**2
    residual = np.maximum(variance - np.sum(loadings**2, axis=1), 0)
    return FactorCovariance(_float32(mean), _float32(loadings), _float32(residual + config.noise))


def _check_size(num_items: int, limit_mb: float) -> None:
    size_mb = 4 * num_items**2 / 1e6
    if size_mb > limit_mb:
        raise UserError(
            f"the covariance of {num_items:,} items takes {size_mb:,.0f} MB, agent.policy.covariance_limit_mb is "
            f"{limit_mb:,.15g}",
            do="Set agent.policy.factors (16, for instance), or raise agent.policy.covariance_limit_mb.",
        )


def _float32(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


@functools.cache
def gaussian_posterior_policy(episode_length: int) -> Policy:
    """Returns the policy whose parameters are a `FullCovariance` or a `FactorCovariance`.

    It decides greedily whether it is to explore or not. Equal arguments give the same policy, so that what was compiled
    for one is found again. With repeats allowed, each repeat is an observation with noise of its own.

    Args:
        episode_length: T.
    """
    return scoring_policy(functools.partial(_initial_carry, episode_length=episode_length), _score, EXPECTED_REWARD)


def _initial_carry(params: GaussianParams, batch_size: int, episode_length: int) -> Any:
    return params.initial(batch_size, episode_length)


def _score(params: GaussianParams, carry: Any, observation: Observation) -> tuple[Any, jax.Array]:
    carry = params.update(carry, observation)
    return carry, params.conditional_mean(carry, observation)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    params = fit_gaussian_posterior(settings.policy, *problem.training_ratings, run.seed)
    return fitted_method(settings.result_name, gaussian_posterior_policy(problem.env.episode_length), params)
